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

from nova_container.runtime import console_input


class ReplayTest(unittest.TestCase):

    def test_questions_are_left_out(self):
        self.assertEqual(b'/ # \x1b[1mls\x1b[K\r\n', console_input.replay(
            b'/ # \x1b[6n\x1b[1mls\x1b[K\x1b[c\x1b[>0c\x1b[?6n\r\n'))


class ConsoleInputTest(unittest.TestCase):

    def setUp(self):
        super().setUp()
        self.input = console_input.ConsoleInput()

    def feed(self, *pieces: bytes):
        return [self.input.feed(piece) for piece in pieces]

    def test_keys_pass_as_they_are(self):
        keys = (b'ls\r', b'\x1b', b'\x1b[A', b'\x1b[3~', b'\x03', b'\xc3\xa9')
        self.assertEqual([(key, None) for key in keys], self.feed(*keys))

    def test_only_the_answer_to_our_question_is_taken(self):
        self.input.ask()
        self.assertEqual([(b'', (24, 80)), (b'\x1b[5;9R', None)],
                         self.feed(b'\x1b[24;80R', b'\x1b[5;9R'))

    def test_answer_between_keys(self):
        self.input.ask()
        self.assertEqual([(b'ab', (50, 132))], self.feed(b'a\x1b[50;132Rb'))

    def test_answer_in_pieces(self):
        self.input.ask()
        self.assertEqual([(b'x', None), (b'', None), (b'y', (50, 132))],
                         self.feed(b'x\x1b[5', b'0;13', b'2Ry'))

    def test_terminal_that_was_resized(self):
        self.assertEqual([(b'', (30, 90)), (b'', None), (b'z', (3, 4))],
                         self.feed(b'\x1b[8;30;90t', b'\x1b[8;', b'3;4tz'))

    def test_the_last_size_counts(self):
        self.assertEqual([(b'', (3, 4))],
                         self.feed(b'\x1b[8;1;2t\x1b[8;3;4t'))

    def test_what_only_began_like_a_size(self):
        self.assertEqual([(b'', None), (b'\x1b[8~', None)],
                         self.feed(b'\x1b[8', b'~'))
