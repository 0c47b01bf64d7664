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

import struct
import unittest

from nova_container.runtime import rfb
from nova_container.runtime import screen
from tests import framebuffer

FONT = framebuffer.SHAPES


class SessionTest(unittest.TestCase):

    def setUp(self):
        super().setUp()
        self.screen = screen.Screen()
        self.typed = b''

    def view(self, **options) -> framebuffer.Framebuffer:
        session = rfb.Session(self.screen, FONT, 'web')
        sent = [session.greeting()]

        def send(data: bytes) -> None:
            # A byte at a time.
            for place in range(len(data)):
                keys, answer = session.feed(data[place:place + 1])
                self.typed += keys
                sent.append(answer)

        def receive() -> bytes:
            while sent:
                if piece := sent.pop(0):
                    return piece
            return session.update()
        return framebuffer.Framebuffer(receive, send, FONT, **options)

    def test_what_the_screen_shows(self):
        self.screen.feed(b'one \x1b[41;32mtwo\x1b[m three\r\n\x1b[7mfour')
        for encodings in ((framebuffer.HEXTILE,), (framebuffer.RAW,), ()):
            viewer = self.view(encodings=encodings)
            self.assertEqual((640, 400, 'web'),
                             (viewer.width, viewer.height, viewer.name))
            self.assertIn('one two three\nfour\n', viewer.until('four'))
            self.assertEqual(bytes((0, 0, 0xcd, 0)), viewer.pixels[0][
                4 * 8] if FONT.glyph('t')[0] < 0x80 else viewer.pixels[0][
                    next(32 + n for n in range(8)
                         if not FONT.glyph('t')[0] & 0x80 >> n)])

    def test_changes_alone_are_sent(self):
        viewer = self.view()
        viewer.update()
        with self.assertRaises(EOFError):
            viewer.update()
        self.screen.feed(b'x')
        self.assertIn('x', viewer.until('x'))

    def test_two_viewers_of_one_screen(self):
        viewers = [self.view(), self.view()]
        for word in ('first', 'second'):
            self.screen.feed(word.encode())
            for viewer in viewers:
                viewer.until(word)

    def test_keys(self):
        viewer = self.view()
        viewer.type('Az~\n')
        for keys in ((0xffe3, ord('c')), (0xffe9, ord('b')), (0xff52,),
                     (0xffbe,), (0xe4,), (0x01000416,), (0xffe1, ord('X'))):
            viewer.press(*keys)
        self.screen.feed(b'\x1b[?1h')
        viewer.press(0xff52)
        self.assertEqual(
            b'Az~\r\x03\x1bb\x1b[A\x1bOP' + 'äЖ'.encode() + b'X\x1bOA',
            self.typed)

    def test_pixels_of_another_format(self):
        session = rfb.Session(self.screen, FONT, 'web')
        session.feed(b'RFB 003.008\n\1\1')
        session.feed(b'\0\0\0\0' + struct.pack(
            '>4B3H3B3x', 16, 16, 1, 1, 31, 63, 31, 11, 5, 0))
        session.feed(struct.pack('>BB4H', 3, 0, 0, 0, 640, 400))
        update = session.update()
        # A rectangle for each row, in the encoding that all know.
        self.assertEqual(4 + 25 * (12 + 640 * 16 * 2), len(update))
        # The cursor, 0xe5e5e5.
        self.assertEqual(struct.pack('>H', 27 << 11 | 56 << 5 | 27),
                         update[16:18])

    def test_what_is_no_viewer_is_turned_away(self):
        begun = b'RFB 003.008\n\1\1'
        for data in (b'RFB 003.003\n', b'GET / HTTP/1.', begun[:12] + b'\2',
                     begun + b'\x63', begun + b'\0\0\0\0' + bytes(16),
                     begun + b'\6\0\0\0\x7f\xff\xff\xff' + bytes(1 << 20)):
            session = rfb.Session(self.screen, FONT, 'web')
            with self.assertRaises(rfb.ProtocolError):
                session.feed(data)
