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

from nova_container.compute import wishes
from nova_container import exception
from nova_container.spec import restart


class WishesTest(unittest.TestCase):

    def test_nothing_said(self):
        self.assertEqual(wishes.Wishes(),
                         wishes.parse({'other': 'x', 'containers:x': 'y'}))

    def test_command_line_and_list(self):
        for text in ('sh -c "sleep 5"', ' ["sh", "-c", "sleep 5"] '):
            self.assertEqual(('sh', '-c', 'sleep 5'),
                             wishes.parse({'container:command': text}).command)

    def test_env_keeps_names_and_values_whole(self):
        said = wishes.parse({'container:env:DB_HOST': 'db',
                             'container:env:a.b': 'x=y '})
        self.assertEqual((('DB_HOST', 'db'), ('a.b', 'x=y ')), said.env)

    def test_mounts(self):
        said = wishes.parse({'container:mount:/dev/vdb': '/data',
                             'container:mount:db': '/var/lib/mysql:ro'})
        self.assertEqual((wishes.Mount('vdb', '/data'),
                          wishes.Mount('db', '/var/lib/mysql', True)),
                         said.mounts)
        for value in ('data', '/', '/a/..', '/data:rx', '/proc/1', ''):
            with self.assertRaisesRegex(exception.InvalidSpec,
                                        'container:mount:vdb'):
                wishes.parse({'container:mount:vdb': value})

    def test_unknown_word_lists_the_right_ones(self):
        with self.assertRaises(exception.InvalidSpec) as caught:
            wishes.parse({'container:comand': 'x'})
        for word in ('container:comand', 'command', 'env:NAME', 'workdir'):
            self.assertIn(word, caught.exception.message)

    def test_init_tty_and_restart(self):
        said = wishes.parse({'container:init': 'true', 'container:tty': '0',
                             'container:restart': 'on-failure:3'})
        self.assertEqual(
            (True, False, restart.RestartPolicy('on-failure', 3)),
            (said.init, said.tty, said.restart))

    def test_neither_true_nor_false(self):
        with self.assertRaisesRegex(exception.InvalidSpec, 'container:init'):
            wishes.parse({'container:init': 'perhaps'})

    def test_what_the_driver_itself_writes_is_no_wish(self):
        self.assertEqual(wishes.Wishes(), wishes.parse({
            'container:health': 'healthy', 'container:exit_code': '0',
            'container:exit_reason': 'exited with code 0'}))

    def test_bad_commands(self):
        for text in ('"open', '[1]', '["a"', '[{}]', '[' * 40000,
                     r'["\ud800"]'):
            with self.assertRaisesRegex(exception.InvalidSpec,
                                        'container:command'):
                wishes.parse({'container:command': text})

    def test_times(self):
        for text, seconds in (('90', 90.0), ('1m30s', 90.0), ('500ms', 0.5),
                              ('1h', 3600.0), (' 2.5s ', 2.5)):
            self.assertEqual(seconds, wishes.parse(
                {'container:stop_timeout': text}).stop_timeout, text)
        for text in ('', 'soon', '5x', '-1', '1e3', 's'):
            with self.assertRaisesRegex(exception.InvalidSpec,
                                        'container:stop_timeout'):
                wishes.parse({'container:stop_timeout': text})
