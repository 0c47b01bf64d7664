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

import types
from unittest import mock

from heat_plugin import exposure
from tests.unit import base


def _entry(address: str, mac: str, kind: str = 'fixed') -> dict:
    return {'addr': address, 'version': 6 if ':' in address else 4,
            'OS-EXT-IPS:type': kind, 'OS-EXT-IPS-MAC:mac_addr': mac}


def _interfaces(**ports) -> list:
    return [types.SimpleNamespace(port_id=port, mac_addr=mac)
            for port, mac in ports.items()]


class FirstPortTest(base.TestCase):

    def test_as_the_addresses_say(self):
        addresses = {'b': [_entry('10.0.0.2', 'm2'),
                           _entry('198.51.100.2', 'm2', 'floating')],
                     'a': [_entry('10.0.0.1', 'm1')]}
        self.assertEqual('p2', exposure.first_port(
            addresses, _interfaces(p1='m1', p2='m2')))

    def test_has_the_first_address(self):
        addresses = {'six': [_entry('2001:db8::1', 'm1')],
                     'four': [_entry('10.0.0.2', 'm2')]}
        self.assertEqual('10.0.0.2', exposure.first_address(addresses))
        self.assertEqual('p2', exposure.first_port(
            addresses, _interfaces(p1='m1', p2='m2')))

    def test_not_known_before_nova_has_caught_up(self):
        self.assertIsNone(exposure.first_port({}, _interfaces(p1='m1')))
        self.assertIsNone(exposure.first_port(
            {'gone': [_entry('10.0.0.1', 'm0')]}, _interfaces(p1='m1')))


class GivenTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.networks = [{'network': 'a', 'fixed_ip': '10.0.0.9'},
                         {'port': 'p2'}, {'network': 'b', 'port': None},
                         {'subnet': 's', 'fixed_ip': '10.0.1.9'}]
        self.interfaces = [
            types.SimpleNamespace(port_id=port, fixed_ips=[
                {'ip_address': address}])
            for port, address in (('p1', '10.0.0.9'), ('p2', '10.0.0.2'),
                                  ('p3', '10.0.2.3'), ('p4', '10.0.1.9'))]

    def test_what_was_made_for_a_server_is_left_to_it(self):
        self.assertEqual(['p1', 'p2'], exposure.given(
            self.networks, self.interfaces, own=['p4']))
        self.assertEqual([], exposure.given([], self.interfaces, own=[]))

    def test_what_was_given_is_what_is_missing_then(self):
        self.assertEqual([], exposure.missing(self.networks, self.interfaces))
        self.assertEqual(self.networks[:2], exposure.missing(
            self.networks, self.interfaces[2:]))


class SetGroupsTest(base.TestCase):

    def set_groups(self, *ports: dict, others=()) -> dict:
        """What Neutron is told: port -> groups."""
        neutron = mock.Mock()
        neutron.list_ports.return_value = {'ports': ports}
        exposure.set_groups(neutron, 'server', ['a', 'b'], others)
        neutron.list_ports.assert_called_once_with(device_id='server')
        return {call.args[0]: call.args[1]['port']['security_groups']
                for call in neutron.update_port.call_args_list}

    def test_every_port_has_these_and_no_others(self):
        self.assertEqual(
            {'new': ['a', 'b'], 'more': ['a', 'b']}, self.set_groups(
                {'id': 'new', 'security_groups': ['a']},
                {'id': 'more', 'security_groups': ['a', 'b', 'c']},
                {'id': 'same', 'security_groups': ['b', 'a']}))

    def test_not_the_ports_of_others(self):
        self.assertEqual({}, self.set_groups(
            {'id': 'given', 'security_groups': []},
            {'id': 'insecure', 'security_groups': [],
             'port_security_enabled': False}, others={'given'}))
