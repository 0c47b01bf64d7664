#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

import os
import pathlib
import subprocess
from unittest import mock
import uuid

from nova_container import exception
from nova_container.privileged import container
from nova_container.privileged import link
from nova_container.privileged import namespace
from nova_container.runtime import engine
from nova_container.spec import network
from tests.functional import base


class InterfaceTest(base.RuntimeTestCase):

    def setUp(self):
        super().setUp()
        self.container_id = self.define(
            '/bin/sh', '-c', 'ip addr; ip route; ip -6 route; echo end; '
            'sleep 1000')
        engine.create(self.container_id)
        self.device = f'nct{self.container_id[:8]}'
        self.addCleanup(engine.unplug, self.device)

    def interface(self, **fields) -> network.NetworkInterface:
        return network.NetworkInterface(**{
            'name': 'eth0', 'host_device': self.device,
            'mac': 'fa:16:3e:00:00:01', 'mtu': 1442,
            'addresses': ('10.9.8.7/24', 'fd09::7/64'),
            'routes': (network.Route('169.254.169.254/32'),
                       network.Route('10.77.0.0/16', '10.9.8.254'),
                       network.Route('0.0.0.0/0', '10.9.8.1'),
                       network.Route('::/0', 'fd09::1')), **fields})

    def seen(self) -> str:
        """What the container says of its network."""
        engine.start(self.container_id)
        self.await_text(self.container_id, 'end')
        return self.text(self.container_id)

    def test_everything_is_there_when_the_process_starts(self):
        engine.plug(self.container_id, self.interface())
        seen = self.seen()
        for text in ('eth0@', 'fa:16:3e:00:00:01', 'mtu 1442',
                     'inet 10.9.8.7/24', 'inet6 fd09::7/64',
                     'default via 10.9.8.1', '10.77.0.0/16 via 10.9.8.254',
                     '169.254.169.254 dev eth0 scope link',
                     'default via fd09::1'):
            self.assertIn(text, seen)
        self.assertNotIn('tentative', seen)

    def test_ipv6_where_new_interfaces_have_it_disabled(self):
        pid = container.require_process(self.container_id).pid
        subprocess.run(
            ['nsenter', f'--net=/proc/{pid}/ns/net', 'sh', '-c',
             'echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6'],
            check=True)
        engine.plug(self.container_id, self.interface())
        self.assertIn('inet6 fd09::7/64', self.seen())

    def test_gateway_outside_the_prefix(self):
        engine.plug(self.container_id, self.interface(
            addresses=('10.9.8.7/32',),
            routes=(network.Route('0.0.0.0/0', '169.254.1.1'),)))
        self.assertIn('default via 169.254.1.1', self.seen())

    def test_several(self):
        engine.plug(self.container_id, self.interface())
        second = f'ncu{self.container_id[:8]}'
        self.addCleanup(engine.unplug, second)
        engine.plug(self.container_id, self.interface(
            name='eth1', host_device=second, mac='fa:16:3e:00:00:02',
            addresses=('10.9.9.7/24', 'fd10::7/64'),
            routes=(network.Route('0.0.0.0/0', '10.9.9.1', 1),
                    network.Route('::/0', 'fd10::1', 1025))))
        seen = self.seen()
        for text in ('10.9.8.7/24', '10.9.9.7/24',
                     'default via 10.9.8.1 dev eth0',
                     'default via 10.9.9.1 dev eth1  metric 1 ',
                     'default via fd09::1 dev eth0  metric 1024',
                     'default via fd10::1 dev eth1  metric 1025'):
            self.assertIn(text, seen)

    def test_plug_again_changes_nothing(self):
        engine.plug(self.container_id, self.interface())
        before = self.index()
        engine.plug(self.container_id, self.interface())
        self.assertEqual(before, self.index())

    def test_plug_again_looks_at_no_other_interface(self):
        """Of which a container with its own rights may have thousands."""
        engine.plug(self.container_id, self.interface())
        self.enterContext(mock.patch.object(
            link.IPRoute, 'get_links', self.fail, create=True))
        engine.plug(self.container_id, self.interface())

    def test_plugged_anew_when_the_container_has_removed_it(self):
        engine.plug(self.container_id, self.interface())
        pid = container.require_process(self.container_id).pid
        subprocess.run(['nsenter', f'--net=/proc/{pid}/ns/net', 'ip', 'link',
                        'delete', 'eth0'], check=True)
        self.assertFalse(os.path.exists(f'/sys/class/net/{self.device}'))
        engine.plug(self.container_id, self.interface())
        self.assertIn('10.9.8.7/24', self.seen())

    def index(self) -> str:
        return pathlib.Path(
            f'/sys/class/net/{self.device}/ifindex').read_text()

    def test_checksums_are_complete_for_a_switch_in_user_space(self):
        engine.plug(self.container_id,
                    self.interface(checksum_offload=False))
        self.assertIn('tx-checksumming: off', subprocess.run(
            ['ethtool', '-k', self.device], check=True, text=True,
            capture_output=True).stdout)

    def test_ends_with_the_container(self):
        engine.plug(self.container_id, self.interface())
        engine.halt(self.container_id)
        engine.unplug(self.device)
        self.assertFalse(os.path.exists(f'/sys/class/net/{self.device}'))

    def test_container_that_ended_before_it_was_plugged(self):
        engine.halt(self.container_id)
        self.assertRaises(exception.StateConflict, engine.plug,
                          self.container_id, self.interface())

    def test_address_that_is_given_twice_leaves_no_device(self):
        with self.assertRaises(exception.NetworkFailed):
            engine.plug(self.container_id, self.interface(
                addresses=('10.9.8.7/24', '10.9.8.7/24')))
        self.assertFalse(os.path.exists(f'/sys/class/net/{self.device}'))


class HostTest(base.RuntimeTestCase):

    def test_devices_of_the_host_are_left_alone(self):
        name = f'ncx{uuid.uuid4().hex[:8]}'
        subprocess.run(['ip', 'link', 'add', name, 'type', 'veth', 'peer',
                        'name', f'{name}p'], check=True)
        self.addCleanup(subprocess.run, ['ip', 'link', 'del', name],
                        check=True)
        for device in (name, 'lo'):
            self.assertRaises(exception.NetworkFailed, link.unplug, device)
        self.assertTrue(os.path.exists(f'/sys/class/net/{name}'))

    def test_the_hosts_own_namespace_is_never_configured(self):
        own = os.open('/proc/self/ns/net', os.O_RDONLY)
        self.addCleanup(os.close, own)
        self.assertRaises(exception.NetworkFailed, namespace.with_network,
                          own, self.fail)
