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

import yaml

from heat_plugin import words
from nova_container.compute import wishes
from tests.unit import base


class WordsTest(base.TestCase):

    def test_what_is_not_set_is_not_said(self):
        self.assertEqual(words.Said({}), words.of({
            'command': None, 'environment': None, 'init': None}))

    def test_the_driver_understands_every_word(self):
        said = words.of({
            'entrypoint': ['/bin/sh', '-c'], 'command': 'echo "a b" c',
            'environment': {'A': 1, 'B': True, 'C': 'x', 'D': None},
            'working_dir': '/srv', 'user': '1000:1000',
            'stop_signal': 'SIGQUIT', 'stop_grace_period': '1m30s',
            'init': True, 'tty': False, 'restart_policy': 'on-failure:3',
            'health_check': {'test': ['CMD', 'true'], 'interval': '5s',
                             'timeout': '500ms', 'start_period': 10,
                             'start_interval': '2', 'retries': 4}})
        wanted = wishes.parse(said.metadata)
        self.assertEqual(('/bin/sh', '-c'), wanted.entrypoint)
        self.assertEqual(('echo', 'a b', 'c'), wanted.command)
        self.assertEqual((('A', '1'), ('B', 'true'), ('C', 'x')), wanted.env)
        self.assertEqual(90, wanted.stop_timeout)
        self.assertEqual(('true',), wanted.health_cmd)
        self.assertEqual(0.5, wanted.health_timeout)
        self.assertEqual(4, wanted.health_retries)
        self.assertIs(False, wanted.tty)
        self.assertIsNone(said.user_data)

    def test_what_is_long_goes_to_user_data(self):
        long = 'x' * 300
        said = words.of({'command': ['echo', long],
                         'environment': {'SHORT': 'a', 'LONG': long}})
        self.assertEqual({'container:env:SHORT': 'a'}, said.metadata)
        header, _, body = said.user_data.partition('\n')
        self.assertEqual('#container-config', header)
        self.assertEqual({'command': ['echo', long], 'env': {'LONG': long}},
                         yaml.safe_load(body))

    def test_user_data_has_one_purpose(self):
        properties = {'environment': {'A': 'x' * 256}, 'user_data': 'mine'}
        with self.assertRaises(words.InvalidProperty) as caught:
            words.of(properties)
        self.assertEqual('environment', caught.exception.name)
        self.assertEqual('mine', words.of({'user_data': 'mine'}).user_data)

    def test_mounts(self):
        self.assertEqual(
            {'container:mount:v1': '/data', 'container:mount:v2': '/c:ro'},
            words.of({'volumes': [
                {'volume': 'v1', 'mount_path': '/data'},
                {'volume': 'v2', 'mount_path': '/c', 'read_only': True},
                {'volume': 'v3', 'mount_path': None}]}).metadata)

    def test_refused_with_the_property(self):
        for name, value in (
                ('command', {'a': 'b'}), ('command', 'a "b'),
                ('command', [['a']]), ('environment', {'a b': 'c'}),
                ('environment', {'a': []}),
                ('health_check', {'test': ['CMD-SHELL', 'a', 'b']}),
                ('health_check', {'test': []}),
                ('environment', {'A': 'x' * 60000})):
            with self.subTest(name, value=str(value)[:40]):
                with self.assertRaises(words.InvalidProperty) as caught:
                    words.of({name: value})
                self.assertEqual(name, caught.exception.name)

    def test_an_unknown_word_is_refused_at_creation_alone(self):
        for name, value in (
                ('command', ['echo', None]), ('entrypoint', ['echo', None]),
                ('health_check', {'test': ['CMD', 'test', None]})):
            with self.subTest(name):
                with self.assertRaises(words.InvalidProperty) as caught:
                    words.of({name: value})
                self.assertEqual(name, caught.exception.name)
                self.assertEqual(1, len(
                    words.of(words.supposed({name: value})).metadata))

    def test_known_words_stay(self):
        properties = {'command': 'echo "a b"', 'entrypoint': None,
                      'environment': {'A': 'b'},
                      'health_check': {'test': ['CMD', 'true']}}
        self.assertEqual(words.of(properties),
                         words.of(words.supposed(properties)))
        self.assertEqual(words.Said({}), words.of(words.supposed({})))
