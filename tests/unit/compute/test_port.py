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

import unittest
from unittest import mock

from nova.network import model

from nova_container.compute import port
from nova_container import exception
from nova_container.spec import network


def vif(*subnets, details=None, vif_type='ovs', **meta):
    return model.VIF(
        id='f151f10a-abf9-4012-bbde-0f2fb39a8114',
        address='FA:16:3E:00:00:01', type=vif_type,
        devname='tapf151f10a-ab', details=details or {},
        network=model.Network(id='n', bridge='br-int', label='private',
                              subnets=list(subnets), **meta))


def subnet(cidr, address, gateway=None, routes=()):
    return model.Subnet(
        cidr=cidr, ips=[model.FixedIP(address=address)],
        gateway=gateway and model.IP(address=gateway),
        routes=[model.Route(cidr=destination, gateway=model.IP(address=via))
                for destination, via in routes])


V4 = subnet('10.0.0.0/24', '10.0.0.5', '10.0.0.1',
            [('10.9.0.0/16', '10.0.0.9')])
V6 = subnet('fd00::/64', 'fd00::5', 'fd00::1')


class InterfaceTest(unittest.TestCase):

    def test_addresses_routes_and_mtu(self):
        found = port.interface(vif(V4, V6, mtu=1442), 0)
        self.assertEqual(network.NetworkInterface(
            name='eth0', host_device='tapf151f10a-ab',
            mac='fa:16:3e:00:00:01', mtu=1442,
            addresses=('10.0.0.5/24', 'fd00::5/64'),
            routes=(network.Route('10.9.0.0/16', '10.0.0.9'),
                    network.Route('169.254.169.254/32'),
                    network.Route('0.0.0.0/0', '10.0.0.1'),
                    network.Route('::/0', 'fd00::1'))), found)

    def test_default_route_of_the_first_interface_goes_first(self):
        found = port.interface(vif(V4, V6), 1)
        self.assertEqual('eth1', found.name)
        self.assertEqual((network.Route('10.9.0.0/16', '10.0.0.9'),
                          network.Route('169.254.169.254/32', metric=1),
                          network.Route('0.0.0.0/0', '10.0.0.1', 1),
                          network.Route('::/0', 'fd00::1', 1025)),
                         found.routes)
        given = subnet('10.0.0.0/24', '10.0.0.5', None,
                       [('0.0.0.0/0', '10.0.0.9')])
        self.assertIn(network.Route('0.0.0.0/0', '10.0.0.9', 2),
                      port.interface(vif(given), 2).routes)

    def test_route_on_the_link(self):
        given = subnet('10.0.0.0/24', '10.0.0.5', None,
                       [('10.9.0.0/16', '0.0.0.0')])
        self.assertIn(network.Route('10.9.0.0/16'),
                      port.interface(vif(given), 1).routes)

    def test_subnet_without_gateway(self):
        found = port.interface(vif(subnet('10.0.0.0/24', '10.0.0.5')), 0)
        self.assertEqual((network.Route('169.254.169.254/32'),),
                         found.routes)

    def test_metadata_route_of_neutron_wins(self):
        given = subnet('10.0.0.0/24', '10.0.0.5', None,
                       [('169.254.169.254/32', '10.0.0.2')])
        self.assertEqual(
            (network.Route('169.254.169.254/32', '10.0.0.2'),),
            port.interface(vif(given), 0).routes)

    def test_switch_in_user_space_gets_complete_checksums(self):
        self.assertTrue(port.interface(vif(V4), 0).checksum_offload)
        self.assertFalse(port.interface(
            vif(V4, details={'datapath_type': 'netdev'}),
            0).checksum_offload)

    def test_types_that_are_not_supported_name_the_port(self):
        for given in (vif(V4, vif_type='bridge'),
                      vif(V4, vif_type='binding_failed'),
                      vif(V4, details={'ovs_hybrid_plug': True})):
            with self.assertRaisesRegex(exception.NetworkFailed,
                                        'f151f10a'):
                port.interface(given, 0)


class NameServersTest(unittest.TestCase):

    def servers(self, *vifs):
        return port.name_servers(list(vifs)).servers

    def test_those_of_the_subnets_each_once(self):
        one = subnet('10.0.0.0/24', '10.0.0.5')
        one['dns'] = [model.IP(address=a) for a in ('1.1.1.1', 'fd00::9')]
        other = subnet('10.1.0.0/24', '10.1.0.5')
        other['dns'] = [model.IP(address=a) for a in ('2.2.2.2', '1.1.1.1')]
        self.assertEqual(('1.1.1.1', 'fd00::9', '2.2.2.2'),
                         self.servers(vif(one), vif(other)))

    def test_subnet_that_is_to_have_none(self):
        one = subnet('10.0.0.0/24', '10.0.0.5')
        one['dns'] = [model.IP(address='0.0.0.0')]
        one['meta'] = {'dhcp_server': '10.0.0.2'}
        self.assertEqual((), self.servers(vif(one)))
        other = subnet('fd00::/64', 'fd00::5')
        other['dns'] = [model.IP(address='fd00::9')]
        self.assertEqual(('fd00::9',), self.servers(vif(one, other)))

    def test_dhcp_agent(self):
        one = subnet('10.0.0.0/24', '10.0.0.5')
        one['meta'] = {'dhcp_server': '10.0.0.2'}
        self.assertEqual(('10.0.0.2',), self.servers(vif(one)))

    def test_ovn(self):
        details = {'bound_drivers': {'0': 'ovn'}}
        self.assertEqual(('169.254.169.254',),
                         self.servers(vif(V4, V6, details=details)))
        self.assertEqual((), self.servers(vif(V6, details=details)))
        self.assertEqual(('169.254.169.254',),
                         self.servers(vif(V6, details=details),
                                      vif(V4, details=details)))
        self.assertEqual((), self.servers(vif(V4)))
        self.assertEqual((), self.servers())


class WaitTest(unittest.TestCase):

    def setUp(self):
        super().setUp()
        for name in ('plug', '_ovsdb'):
            self.enterContext(mock.patch.object(port, name, autospec=True))
        self.run = self.enterContext(mock.patch.object(
            port.processutils, 'execute', autospec=True))
        self.virtapi = mock.MagicMock()
        self.port = vif(V4, details={'bound_drivers': {'0': 'ovn'}})

    def expected(self):
        """Events that are waited for."""
        (call,) = self.virtapi.wait_for_instance_event.call_args_list
        return call.args[1]

    def test_port_that_is_down(self):
        self.port['active'] = False
        port.plug_and_wait(self.virtapi, None, [self.port])
        self.assertEqual([('network-vif-plugged', self.port['id'])],
                         self.expected())
        self.run.assert_not_called()

    def test_port_that_is_up(self):
        self.port['active'] = True
        port.plug_and_wait(self.virtapi, None, [self.port])
        self.assertEqual([], self.expected())
        self.assertIn('external_ids:ovn-installed=true',
                      self.run.call_args.args)

    def test_before_the_service_takes_messages(self):
        """An event would never come, and all other servers wait, too."""
        self.port['active'] = False
        port.plug_and_wait(self.virtapi, None, [self.port], events=False)
        self.assertEqual([], self.expected())
        self.assertIn('external_ids:ovn-installed=true',
                      self.run.call_args.args)


class UnplugTest(unittest.TestCase):

    def setUp(self):
        super().setUp()
        self.devices = {'tapf151f10a-ab'}
        self.enterContext(mock.patch.object(
            port.engine, 'unplug', autospec=True,
            side_effect=self.devices.discard))
        for name in ('nova_to_osvif_vif', 'nova_to_osvif_instance'):
            self.enterContext(mock.patch.object(port.os_vif_util, name,
                                                autospec=True))
        self.switch = self.enterContext(mock.patch.object(
            port.os_vif, 'unplug', autospec=True,
            side_effect=lambda vif, instance: self.left.append(
                set(self.devices))))
        self.left: list[set[str]] = []

    def test_os_vif_meets_no_device_that_may_go_meanwhile(self):
        port.unplug(None, [vif(V4)])
        self.assertEqual([set()], self.left)

    def test_the_device_goes_when_the_switch_does_not_answer(self):
        self.switch.side_effect = OSError('no answer')
        with self.assertRaisesRegex(OSError, 'no answer'):
            port.unplug(None, [vif(V4)])
        self.assertEqual(set(), self.devices)

    def test_port_that_was_never_bound(self):
        port.unplug(None, [vif(V4, vif_type='binding_failed')])
        self.assertEqual([], self.left)
        self.assertEqual({'tapf151f10a-ab'}, self.devices)


class AttachTest(unittest.TestCase):

    def setUp(self):
        super().setUp()
        self.runs = True
        for module, name, fake in (
                (port.state, 'read', self.read),
                (port.stats, 'read', lambda _: mock.Mock(network=())),
                (port, 'plug_and_wait', self.plug),
                (port, 'unplug', mock.Mock())):
            self.enterContext(mock.patch.object(module, name, fake))
        self.ends = False

    def read(self, _):
        return mock.Mock(process=self.runs or None)

    def plug(self, *_):
        self.runs = not self.ends
        raise exception.StateConflict('it is not running')

    def test_container_that_ends_meanwhile_gets_it_later(self):
        self.ends = True
        port.attach(None, mock.Mock(), vif(V4))
        port.unplug.assert_called_once()

    def test_container_that_runs_on_is_told_of(self):
        with self.assertRaises(exception.StateConflict):
            port.attach(None, mock.Mock(), vif(V4))

    def test_port_that_no_container_can_have(self):
        self.runs = False
        with self.assertRaises(exception.NetworkFailed):
            port.attach(None, mock.Mock(), vif(V4, vif_type='binding_failed'))
