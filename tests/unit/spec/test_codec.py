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

import dataclasses
import json
import unittest

from nova_container import exception
from nova_container.spec import codec
from nova_container.spec import container
from nova_container.spec import limits
from nova_container.spec import network

ID = 'aaaaaaaa-2222-3333-4444-555555555555'
LAYER = 'sha256:' + 'a' * 64
SPEC = container.ContainerSpec(
    id=ID, hostname='web', layers=(LAYER,),
    process=container.Process(('nginx', '-g'), (('A', 'b=c'),)),
    limits=limits.Limits(cpu_quota=50000, memory=64 << 20),
    dns=network.Dns(('10.0.0.2',), ('example.org',)),
    addresses=('10.0.0.5',))


class CodecTest(unittest.TestCase):

    def test_survives_json(self):
        data = json.loads(json.dumps(codec.encode(SPEC)))
        self.assertEqual(SPEC, codec.decode(container.ContainerSpec, data))

    def refused(self, **changes):
        data = json.loads(json.dumps(codec.encode(SPEC)))
        for path, value in changes.items():
            target = data
            *parents, last = path.split('__')
            for name in parents:
                target = target[name]
            target[last] = value
        with self.assertRaises(exception.UserError) as caught:
            codec.decode(container.ContainerSpec, data)
        return caught.exception.message

    def test_wrong_type_names_the_field(self):
        self.assertIn('ContainerSpec.limits.memory',
                      self.refused(limits__memory='64'))
        self.assertIn('ContainerSpec.layers', self.refused(layers=LAYER))
        self.assertIn('hostname', self.refused(hostname=None))

    def test_bool_is_not_a_number(self):
        self.assertIn('pids', self.refused(limits__pids=True))

    def test_unknown_key(self):
        self.assertIn('devices', self.refused(devices=True))

    def test_ids_that_would_leave_their_directory(self):
        for value in ('..', '../../etc', ID.upper(), ID + '/x', ''):
            self.assertIn('container id', self.refused(id=value))

    def test_layers_that_would_leave_their_directory(self):
        for value in ('sha256:../../etc', 'sha256:' + 'A' * 64, 'md5:00'):
            self.assertIn('layer', self.refused(layers=[value]))


class ValuesTest(unittest.TestCase):

    def test_process_without_command_says_what_to_do(self):
        with self.assertRaisesRegex(exception.ProcessInvalid,
                                    'container:command'):
            container.Process(())

    def test_process_refuses(self):
        for changes in ({'cwd': 'relative'}, {'user': 'a\0b'},
                        {'env': (('', 'x'),)}, {'env': (('A=B', 'x'),)},
                        {'args': ('x' * (1 << 21),)},
                        {'stop_signal': 'SIGNOPE'}):
            with self.assertRaises(exception.ProcessInvalid, msg=changes):
                container.Process(**{'args': ('x',), **changes})

    def test_interface_refuses(self):
        good = network.NetworkInterface(
            'eth0', 'tap0', 'fa:16:3e:00:00:01', 1442, ('10.0.0.5/24',))
        for changes in ({'name': 'lo'}, {'name': '../x'}, {'mac': 'x'},
                        {'host_device': 'a' * 16}, {'mtu': 1},
                        {'addresses': ('10.0.0.555/24',)}):
            with self.assertRaises(exception.InvalidSpec, msg=changes):
                dataclasses.replace(good, **changes)

    def test_route_of_two_families(self):
        with self.assertRaises(exception.InvalidSpec):
            network.Route('0.0.0.0/0', 'fd00::1')

    def test_limits_refuse(self):
        for changes in ({'memory': 1}, {'pids': 0}, {'cpu_quota': -1}):
            with self.assertRaises(exception.InvalidSpec, msg=changes):
                limits.Limits(**changes)
