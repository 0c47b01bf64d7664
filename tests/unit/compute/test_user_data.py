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
import unittest
from unittest import mock

import hypothesis
from hypothesis import strategies
import yaml

from nova_container.compute import user_data
from nova_container.compute import wishes
from nova_container import exception
from tests import cases


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class UserDataTest(unittest.TestCase):

    def words(self, text: str):
        return user_data.words(encoded('#container-config\n' + text))

    def test_the_guests_own_is_left_alone(self):
        for text in ('', '#cloud-config\ncommand: x\n', '#!/bin/sh\n',
                     'container-config: [', '\x00\xff', '#container-configs'):
            self.assertEqual({}, user_data.words(encoded(text)), text)
        self.assertEqual({}, user_data.words(None))

    def test_nothing_said(self):
        for text in ('', '\n# nothing\n', '---\n'):
            self.assertEqual({}, self.words(text))

    def test_words_mean_what_metadata_means(self):
        said = wishes.parse(self.words('''
            command: [sh, -c, "sleep 5", 0755]
            entrypoint: env "A B"
            env:
              LONG: "{}"
              PORT: 0755
              FLAG: on
              EMPTY:
            init: true
            restart: on-failure:3
            stop_timeout: 1m30s
            health_cmd: curl -f localhost
            '''.format('x' * 3000)))
        self.assertEqual(('sh', '-c', 'sleep 5', '0755'), said.command)
        self.assertEqual(('env', 'A B'), said.entrypoint)
        self.assertEqual(
            {'LONG': 'x' * 3000, 'PORT': '0755', 'FLAG': 'on', 'EMPTY': ''},
            dict(said.env))
        self.assertEqual((True, 90.0), (said.init, said.stop_timeout))
        self.assertEqual(('/bin/sh', '-c', 'curl -f localhost'),
                         said.health_cmd)

    def test_wrong_shapes_name_the_line(self):
        for text, line in (('a: &x [b]\nc: *x', 3),
                           ('command: [[a]]', 2),
                           ('a: {b: {c: {d: {}}}}', 2),
                           ('- a', 2), ('word', 2),
                           ('a: b\na: c', 3),
                           ('env:\n  A: [b]', 3),
                           ('a: "x', 2), ('a: b\n---\nc: d', 3),
                           ('[' * 20000, 2)):
            with self.assertRaisesRegex(exception.InvalidSpec,
                                        f'line {line}', msg=text[:40]):
                self.words(text)

    def test_what_is_no_base64_is_refused(self):
        with self.assertRaisesRegex(exception.InvalidSpec, 'Base64'):
            user_data.words('\u00fc')

    def test_numbers_and_characters_that_there_are_not(self):
        for text in ('%YAML 1.' + '1' * 5000 + '\n---\na: b',
                     r'user: "\UFFFFFFFF"', r'user: "\U00110000"',
                     r'user: "\ud800"', r'env: {A: ["\ud800"]}',
                     r'command: ["\ud800"]', r'env: {"\ud800": a}'):
            with self.assertRaises(exception.InvalidSpec, msg=text[:40]):
                self.words(text)

    def test_what_is_asked_for_again_is_not_read_again(self):
        with mock.patch.object(yaml, 'parse', autospec=True,
                               side_effect=yaml.parse) as parse:
            for _ in range(3):
                self.assertEqual({'container:user': 'again'},
                                 self.words('user: again'))
        self.assertEqual(1, parse.call_count)

    def test_unknown_word_lists_the_right_ones(self):
        with self.assertRaises(exception.InvalidSpec) as caught:
            wishes.parse(self.words('comand: x'))
        for word in ('comand', 'command', 'env:NAME'):
            self.assertIn(word, caught.exception.message)

    @hypothesis.given(strategies.binary(max_size=200))
    @cases.cases(100)
    def test_any_bytes_are_read_or_refused(self, content):
        try:
            user_data.words(base64.b64encode(
                b'#container-config\n' + content).decode())
        except exception.InvalidSpec as e:
            self.assertLess(len(e.message), 255)
