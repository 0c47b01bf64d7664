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

"""A viewer of the remote framebuffer protocol that reads what it is shown.

Source: RFC 6143. The text is found again by comparing pixels with a font.
"""

import collections.abc
import struct
import time
import typing

from nova_container.runtime import console_font

WIDTH, HEIGHT = console_font.WIDTH, console_font.HEIGHT
RAW, HEXTILE = 0, 5

ENTER, CONTROL = 0xff0d, 0xffe3

_TIMEOUT = 200

# A font in which each character of ASCII has a shape of its own.
SHAPES = console_font.Font({' ': bytes(HEIGHT)} | {
    chr(code): bytes((code ^ row * 37) & 0xff for row in range(HEIGHT))
    for code in range(0x21, 0x7f)})


class Framebuffer:
    """What a viewer sees and does.

    :param receive: gives the next bytes, b'' at the end
    :param send: takes bytes
    """

    def __init__(self, receive: collections.abc.Callable[[], bytes],
                 send: collections.abc.Callable[[bytes], typing.Any],
                 font: console_font.Font, encodings=(HEXTILE, RAW)):
        self._receive, self._send = receive, send
        self._buffer = bytearray()
        self._characters = {rows: character for character, rows
                            in reversed(font.glyphs.items())}
        self._characters[bytes(HEIGHT)] = ' '
        self._send(self._read(12))
        kinds = self._read(self._read(1)[0])
        assert 1 in kinds, kinds
        self._send(b'\1')
        assert self._read(4) == bytes(4)
        self._send(b'\1')
        self.width, self.height = struct.unpack('>HH', self._read(4))
        self.format = self._read(16)
        self.name = self._read(int.from_bytes(self._read(4), 'big')).decode()
        self.pixels = [[b''] * self.width for _ in range(self.height)]
        self._send(struct.pack(f'>BxH{len(encodings)}i', 2, len(encodings),
                               *encodings))
        self.ask(incremental=False)

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not (piece := self._receive()):
                raise EOFError
            self._buffer += piece
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def ask(self, incremental: bool) -> None:
        self._send(struct.pack('>BB4H', 3, incremental, 0, 0, self.width,
                               self.height))

    def press(self, *keys: int) -> None:
        """Hold all but the last, and strike that."""
        for down, key in [*((1, key) for key in keys),
                          *((0, key) for key in reversed(keys))]:
            self._send(struct.pack('>BBxxI', 4, down, key))

    def type(self, text: str) -> None:
        for character in text:
            self.press(ENTER if character == '\n' else ord(character))

    def update(self) -> None:
        """Take one update, and ask for the next."""
        assert self._read(2)[0] == 0
        for _ in range(int.from_bytes(self._read(2), 'big')):
            x, y, width, height, encoding = struct.unpack(
                '>4Hi', self._read(12))
            if encoding == RAW:
                for row in range(y, y + height):
                    for column in range(x, x + width):
                        self.pixels[row][column] = self._read(4)
                continue
            assert encoding == HEXTILE
            for top in range(y, y + height, 16):
                for left in range(x, x + width, 16):
                    self._tile(left, top, min(16, x + width - left),
                               min(16, y + height - top))
        self.ask(incremental=True)

    def _tile(self, x: int, y: int, width: int, height: int) -> None:
        kind = self._read(1)[0]
        if kind & 2:
            self._background = self._read(4)
        if kind & 4:
            self._foreground = self._read(4)
        self._fill(x, y, width, height, self._background)
        for _ in range(self._read(1)[0] if kind & 8 else 0):
            colour = self._read(4) if kind & 16 else self._foreground
            place, size = self._read(2)
            self._fill(x + (place >> 4), y + (place & 15), (size >> 4) + 1,
                       (size & 15) + 1, colour)

    def _fill(self, x: int, y: int, width: int, height: int,
              colour: bytes) -> None:
        for row in range(y, y + height):
            self.pixels[row][x:x + width] = [colour] * width

    def text(self) -> str:
        """Rows of characters; U+FFFD for what the font has not."""
        return '\n'.join(
            ''.join(self._character(x, y)
                    for x in range(0, self.width, WIDTH)).rstrip()
            for y in range(0, self.height, HEIGHT))

    def _character(self, x: int, y: int) -> str:
        cell = [row[x:x + WIDTH] for row in self.pixels[y:y + HEIGHT]]
        if all(row.count(cell[0][0]) == WIDTH for row in cell):
            return ' '
        colours = {pixel for row in cell for pixel in row}
        for back in colours:
            rows = bytes(sum((pixel != back) << 7 - n
                             for n, pixel in enumerate(row)) for row in cell)
            if rows in self._characters:
                return self._characters[rows]
        return '\ufffd'

    def until(self, wanted: str) -> str:
        """Take updates until the screen has a text; all of it then."""
        deadline = time.monotonic() + _TIMEOUT
        while wanted not in (shown := self.text()):
            if time.monotonic() > deadline:
                raise AssertionError(f'{wanted!r} is not in {shown!r}')
            self.update()
        return shown
