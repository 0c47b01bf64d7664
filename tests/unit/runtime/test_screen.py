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

import tracemalloc
import unittest

import hypothesis
from hypothesis import strategies

from nova_container.runtime import screen


class ScreenTest(unittest.TestCase):

    def setUp(self):
        super().setUp()
        self.screen = screen.Screen()

    def row(self, number: int) -> str:
        return ''.join(cell.character for cell in
                       self.screen.lines()[number]).rstrip()

    def test_text_colours_and_cursor(self):
        self.screen.feed('a\x1b[1;31mß\x1b[0;7m€\x1b[m\r\nx'.encode())
        self.assertEqual('aß€', self.row(0))
        first, second, third = self.screen.lines()[0][:3]
        self.assertEqual((0xe5e5e5, 0), first[1:3])
        self.assertEqual((0xff0000, 0), second[1:3])
        self.assertEqual((0, 0xe5e5e5), third[1:3])
        cursor = self.screen.lines()[1][1]
        self.assertEqual((0, 0xe5e5e5), cursor[1:3])

    def test_pieces_of_anything(self):
        whole = 'ä\x1b]0;title\x07b\x1b[2;3Hc\x1b(Bd'.encode()
        for size in range(1, len(whole)):
            shown = screen.Screen()
            for place in range(0, len(whole), size):
                shown.feed(whole[place:place + size])
            self.assertEqual(['äb', '  cd'], [
                ''.join(cell.character for cell in line).rstrip()
                for line in shown.lines()[:2]])

    def test_what_is_not_shown_hides_nothing_after_it(self):
        for hidden in ('\u200b', '\ufe0f', '\u0301', '\x01', '\x7f'):
            self.screen.feed(f'\x1bc\u4e2d{hidden}after'.encode())
            self.assertEqual('\u4e2dafter', self.row(0), repr(hidden))

    def test_sequence_that_is_broken_off_holds_nothing_up(self):
        for broken in ('\x1b', '\x1b[3', '\x1b]0;title', '\x1b('):
            self.screen.feed(f'\x1bc{broken}\x1b[2;3Hafter'.encode())
            self.assertEqual('  after', self.row(1), repr(broken))

    def test_row_that_is_as_it_was_is_the_same(self):
        self.screen.feed(b'one\r\ntwo')
        before = self.screen.lines()
        self.screen.feed(b'!')
        after = self.screen.lines()
        self.assertIs(before[0], after[0])
        self.assertIsNot(before[1], after[1])

    def test_questions_are_answered(self):
        self.assertEqual(b'\x1b[2;3R', self.screen.feed(b'\x1b[2;3H\x1b[6n'))

    def test_application_keys(self):
        for data, wanted in ((b'\x1b[?1h', True), (b'\x1b[?1l', False)):
            self.screen.feed(data)
            self.assertEqual(wanted, self.screen.application_keys)

    def test_parameters_that_do_not_fit(self):
        self.screen.feed(b'\x1b[1;2;3;4A\x1b[?5A\x1b[?3hafter')
        self.assertIn('after', self.row(0))
        self.assertEqual(80, len(self.screen.lines()[0]))

    def test_what_never_ends_is_not_kept(self):
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for data in (b'\x1b]0;', b'\x1b[1', b'e', b'\xcc\x81', b'\x1b7',
                     b'\x1bP', b'\x9b1'):
            self.screen.feed(data)
            sizes = []
            for _ in range(16):
                self.screen.feed(data[-2:] * 2048)
                sizes.append(tracemalloc.get_traced_memory()[0])
            self.assertLess(sizes[-1] - sizes[3], 20_000, data)

    @hypothesis.settings(deadline=None)
    @hypothesis.given(strategies.lists(strategies.one_of(
        strategies.binary(max_size=64),
        strategies.from_regex(rb'\A\x1b[\[\]()#%P^_X]?[ -~]{0,9}\Z'))))
    def test_anything_is_shown_somehow(self, pieces):
        shown = screen.Screen()
        for piece in pieces:
            shown.feed(piece)
        shown.feed(b'\x18\x1b\\\x1bc')
        lines = shown.lines()
        self.assertEqual({80}, {len(line) for line in lines})
