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

import base64
import json
import os
import re
import subprocess

from openstack import exceptions
from openstack import utils

from tests.cloud import base


class NginxTest(base.CloudTestCase):
    """The demo image as a user runs it."""

    def setUp(self):
        super().setUp()
        image = self.user.image.find_image('nginx', ignore_missing=False)
        self.server = self.active(self.boot(image.id, 'c1.small'))
        self.address = self.floating_ip(self.server)
        self.assertIn('nova-container', base.curl(self.address))

    def fixed(self):
        return sorted(entry['addr'] for entry in
                      self.user.compute.get_server(self.server)
                      .addresses['private']
                      if entry['OS-EXT-IPS:type'] == 'fixed')

    def test_answers_after_every_change_of_power(self):
        fixed = self.fixed()
        for kind in ('SOFT', 'HARD'):
            self.user.compute.reboot_server(self.server, kind)
            self.assertEqual('ACTIVE', self.settled(self.server))
            self.assertIn('nova-container', base.curl(self.address), kind)
        self.user.compute.stop_server(self.server)
        self.assertEqual('SHUTOFF', self.settled(self.server))
        self.user.compute.start_server(self.server)
        self.assertEqual('ACTIVE', self.settled(self.server))
        self.assertIn('nova-container', base.curl(self.address))
        self.assertEqual(fixed, self.fixed())

    def test_pause(self):
        self.user.compute.pause_server(self.server)
        self.status(self.server, 'PAUSED')
        with self.assertRaises(subprocess.CalledProcessError):
            base.curl(self.address, retry=0)
        self.user.compute.unpause_server(self.server)
        self.status(self.server, 'ACTIVE')
        self.assertIn('nova-container', base.curl(self.address))

    def test_console_log_shows_the_request(self):
        self.await_console(self.server, 'GET / HTTP')

    def test_service_restart_changes_nothing(self):
        host = self.admin.compute.get_server(self.server).hypervisor_hostname
        before = base.host_state()
        base.restart(f'nova-compute@{host}')
        self.assertEqual(before, base.host_state())
        self.assertIn('nova-container', base.curl(self.address, retry=5))
        self.assertEqual('ACTIVE',
                         self.user.compute.get_server(self.server).status)


class ProcessTest(base.CloudTestCase):

    def test_words_of_the_tenant(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:command': '/bin/sh -c "echo said=$WORD in $(pwd) as '
                                 '$(id -u) on $(hostname); sleep 1000"',
            'container:env:WORD': 'hello there',
            'container:workdir': '/srv', 'container:user': 'web'},
            name='Say Hello'))
        self.await_console(
            server, 'said=hello there in /srv as 33 on say-hello')

    def test_words_in_user_data(self):
        long = 'x' * 3000
        server = self.active(self.boot(
            self.busybox(), metadata={'container:env:WHERE': 'metadata'},
            user_data=base64.b64encode(
                '#container-config\n'
                'command: [sh, -c, "echo $WHERE $(echo -n $LONG | wc -c); '
                'sleep 1000"]\n'
                f'env:\n  LONG: {long}\n  WHERE: user data\n'
                'health_cmd: test -d /srv\nhealth_interval: 1s\n'
                .encode()).decode()))
        self.await_console(server, 'metadata 3000')
        for _ in utils.iterate_timeout(60, 'no health', wait=0.3):
            if self.user.compute.get_server(server).metadata.get(
                    'container:health') == 'healthy':
                break
        wrong = self.boot(self.busybox(), user_data=base64.b64encode(
            b'#container-config\ncomand: x\n').decode())
        self.assertRegex(self.fault(wrong), 'comand.* command, ')

    def test_environment_changed_by_stop_and_start(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:command': '/bin/sh -c "echo said=$WORD; sleep 1000"',
            'container:env:WORD': 'one'}))
        self.await_console(server, 'said=one')
        self.user.compute.set_server_metadata(
            server, **{'container:env:WORD': 'two'})
        self.user.compute.reboot_server(server, 'HARD')
        self.await_console(server, 'said=two')

    def test_process_that_ends_makes_the_server_shutoff(self):
        server = self.boot(self.busybox(), metadata={
            'container:command': '/bin/sh -c "sleep 6; exit 1"'})
        self.status(server, 'SHUTOFF')

    def test_process_that_ends_at_once(self):
        server = self.boot(self.busybox(), metadata={
            'container:command': '/bin/echo done'})
        self.status(server, 'SHUTOFF')
        self.assertIn('done', self.console(server))

    def test_network_is_there_before_the_process(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:command':
                '/bin/sh -c "ip addr show eth0; ip route; ip -6 route; '
                'cat /etc/resolv.conf /sys/class/net/eth0/mtu; '
                'ping -c1 -W5 10.0.0.1 && echo reached; '
                # Neutron begins to serve a network's first port on a host
                # once it is there.
                'until wget -q -O - http://169.254.169.254/latest/meta-data/'
                'local-ipv4; do sleep 1; done; echo -metadata; sleep 1000"'
        }))
        self.await_console(server, '-metadata')
        log = self.console(server)
        self.assertIn('reached', log)
        self.assertRegex(log, r'10\.0\.0\.\d+-metadata')
        server = self.user.compute.get_server(server)
        port = next(self.user.network.ports(device_id=server.id))
        network = self.user.network.get_network(port.network_id)
        self.assertIn(port.mac_address, log)
        for ip in port.fixed_ips:
            self.assertIn(ip['ip_address'], log)
        self.assertRegex(log, r'default via 10\.0\.0\.1 dev eth0')
        self.assertRegex(log, r'default via [0-9a-f:]+ dev eth0')
        self.assertIn(f'\n{network.mtu}\n', log)
        for subnet in self.user.network.subnets(network_id=network.id):
            for address in subnet.dns_nameservers:
                self.assertIn(f'nameserver {address}', log)

    def test_limits_of_the_flavor(self):
        flavor = self.user.compute.find_flavor('c1.small')
        server = self.active(self.boot(self.busybox(), 'c1.small', metadata={
            'container:command':
                '/bin/sh -c "cd /sys/fs/cgroup; cat memory.max '
                'memory/memory.limit_in_bytes 2>/dev/null; '
                'cat cpu.max cpu/cpu.cfs_quota_us 2>/dev/null; echo end; '
                'sleep 1000"'}))
        self.await_console(server, 'end')
        log = self.console(server)
        self.assertIn(str(flavor.ram << 20), log)
        self.assertRegex(log, rf'\b{flavor.vcpus * 100000}\b')

    def test_no_network_asked_for(self):
        server = self.active(self.boot(self.busybox(), networks='none'))
        self.assertEqual({}, self.user.compute.get_server(server).addresses)


class BurstTest(base.CloudTestCase):

    def test_ten_servers_at_once(self):
        servers = [self.boot(self.busybox(), name=f'burst-{n}')
                   for n in range(10)]
        for server in servers:
            self.active(server)
        for server in servers:
            self.user.compute.delete_server(server)


class ClientsTest(base.CloudTestCase):
    """The commands of the README, in a shell that openrc has set up."""

    def sh(self, script):
        done = subprocess.run(
            ['bash', '-c', f'eval "$({base._CLOUD} openrc)"; set -e; '
             f'{script}'], text=True, capture_output=True)
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout

    def test_nova_commands(self):
        out = self.sh('nova boot --image nginx --flavor c1.small '
                      '--nic net-name=private --poll web-readme')
        self.assertIn('web-readme', out)
        (server,) = self.user.compute.servers(name='^web-readme$')
        self.addCleanup(self.delete, server)
        listed = self.sh('nova list')
        self.assertRegex(listed, r'web-readme\s*\|\s*ACTIVE\s*\|\s*-\s*\|\s*'
                                 r'Running\s*\|\s*private=.*10\.0\.0\.')
        self.sh('nova console-log web-readme')
        self.sh('nova reboot --poll web-readme && nova delete web-readme')

    def test_openstack_commands(self):
        shown = json.loads(self.sh(
            'openstack server create --wait --image nginx --flavor c1.small '
            '--network private -f json osc-readme'))
        server = self.user.compute.get_server(shown['id'])
        self.addCleanup(self.delete, server)
        self.assertEqual('ACTIVE', shown['status'])
        self.assertTrue(re.search(r'10\.0\.0\.\d+', str(shown['addresses'])))


class InventoryTest(base.CloudTestCase):

    def test_hypervisor_says_what_it_runs(self):
        for hypervisor in self.admin.compute.hypervisors(details=True):
            self.assertEqual('docker', hypervisor.hypervisor_type)

    def test_placement_agrees_with_a_server(self):
        server = self.active(self.boot(self.busybox(), 'c1.small'))
        host = self.admin.compute.get_server(server).hypervisor_hostname
        provider = next(self.admin.placement.resource_providers(name=host))
        found = self.admin.placement.get(
            f'/allocations/{server.id}').json()['allocations']
        flavor = self.user.compute.find_flavor('c1.small')
        self.assertEqual(
            {'VCPU': flavor.vcpus, 'MEMORY_MB': flavor.ram,
             'DISK_GB': flavor.disk}, found[provider.id]['resources'])
        traits = self.admin.placement.get(
            f'/resource_providers/{provider.id}/traits',
            headers={'OpenStack-API-Version': 'placement 1.6'}
        ).json()['traits']
        self.assertIn('COMPUTE_IMAGE_TYPE_RAW', traits)
        if os.uname().machine == 'x86_64':
            self.assertIn('HW_CPU_X86_SSE2', traits)


class UnsupportedTest(base.CloudTestCase):

    def test_operation_that_is_not_supported_says_so(self):
        server = self.active(self.boot(self.busybox()))
        with self.assertRaisesRegex(exceptions.BadRequestException,
                                    'No valid host'):
            self.admin.compute.live_migrate_server(server, host=None,
                                                   block_migration='auto')
        self.assertEqual('ACTIVE',
                         self.user.compute.get_server(server).status)
        # Why, each host has said.
        action = next(a for a in self.user.compute.server_actions(server)
                      if a.action == 'live-migration')
        action = self.admin.compute.get_server_action(action.request_id,
                                                      server)
        told = [event.details for event in action.events
                if event.event == 'compute_check_can_live_migrate_destination']
        self.assertEqual(len(base.cloud()['nodes']) - 1, len(told))
        for details in told:
            self.assertIn('cannot move while it runs', details)
