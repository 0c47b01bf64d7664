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

"""The server's side of the remote framebuffer protocol, for one viewer.

Source: RFC 6143. Version 3.8 and no authentication, which is what Nova's
proxy asks of a compute host. The framebuffer is a terminal's screen; updates
are sent when the viewer asks, so a slow viewer sees less of them.
"""

import collections.abc
import dataclasses
import functools
import struct

from nova_container.runtime import console_font
from nova_container.runtime import keyboard
from nova_container.runtime import screen

_VERSION = b'RFB 003.008\n'
_NO_AUTHENTICATION = 1
_RAW, _HEXTILE = 0, 5

# Bits of a tile's first byte (7.7.4).
_BACKGROUND, _FOREGROUND, _SUBRECTANGLES, _COLOURED = 2, 4, 8, 16
_TILE = 16

# Text that is pasted, for instance; we do not take it.
_MESSAGE_MAX = 1 << 20

_Cells = tuple[screen.Cell, ...]


class ProtocolError(Exception):
    """The viewer does not keep to the protocol, or wants what we lack."""


@dataclasses.dataclass(frozen=True)
class PixelFormat:
    """How a viewer wants its pixels (7.4)."""

    bits: int = 32
    depth: int = 24
    big_endian: int = 0
    true_colour: int = 1
    maxima: tuple[int, int, int] = (255, 255, 255)
    shifts: tuple[int, int, int] = (16, 8, 0)

    _LAYOUT = struct.Struct('>4B3H3B3x')

    @classmethod
    def parse(cls, data: bytes) -> 'PixelFormat':
        (bits, depth, big_endian, true_colour,
         *each) = cls._LAYOUT.unpack(data)
        found = cls(bits, depth, big_endian, true_colour,
                    (each[0], each[1], each[2]), (each[3], each[4], each[5]))
        if found.bits not in (8, 16, 32) or not found.true_colour:
            raise ProtocolError('pixels have to be true colours of 8, 16 or '
                                '32 bits')
        return found

    def packed(self) -> bytes:
        return self._LAYOUT.pack(
            self.bits, self.depth, self.big_endian, self.true_colour,
            *self.maxima, *self.shifts)

    def pixel(self, rgb: int) -> bytes:
        """A colour, 0xRRGGBB."""
        value = 0
        for number in range(3):
            part = rgb >> (16 - 8 * number) & 0xff
            value |= part * self.maxima[number] // 255 << self.shifts[number]
        value &= (1 << self.bits) - 1
        return value.to_bytes(self.bits // 8,
                              'big' if self.big_endian else 'little')


@functools.lru_cache(maxsize=1024)
def _rectangles(rows: bytes) -> tuple[tuple[int, int, int, int], ...]:
    """What is set in a glyph: x, y, width and height of its parts."""
    open_: dict[tuple[int, int], int] = {}
    found = []
    for y, row in enumerate((*rows, 0)):
        runs, x = set(), 0
        while x < console_font.WIDTH:
            start = x
            while x < console_font.WIDTH and row & 0x80 >> x:
                x += 1
            if x > start:
                runs.add((start, x - start))
            x += 1
        for run in [run for run in open_ if run not in runs]:
            top = open_.pop(run)
            found.append((run[0], top, run[1], y - top))
        for run in runs:
            open_.setdefault(run, y)
    return tuple(found)


class Session:
    """What is sent to a viewer, and what its messages mean.

    :param shown: the screen of the console
    """

    def __init__(self, shown: screen.Screen, font: console_font.Font,
                 name: str):
        self._screen = shown
        self._font = font
        self._name = name.encode()
        self._keyboard = keyboard.Keyboard()
        self._format = PixelFormat()
        self._hextile = False
        self._wanted = False
        self._sent: list[_Cells | None] = [None] * screen.ROWS
        self._received = b''
        self._answers = b''
        self._next: collections.abc.Callable[[], bytes | None] = self._version

    def greeting(self) -> bytes:
        return _VERSION

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take what the viewer has sent; what was typed, and the answer.

        What is to be drawn now, ``update`` tells.

        :raises ProtocolError: nothing more is to be taken from it
        """
        self._received += data
        if len(self._received) > _MESSAGE_MAX:
            raise ProtocolError('the message is too long')
        keys, self._answers = b'', b''
        while (typed := self._next()) is not None:
            keys += typed
        return keys, self._answers

    # Each takes one message off the front, or is None if it is not all there.

    def _take(self, size: int) -> bytes | None:
        if len(self._received) < size:
            return None
        data, self._received = self._received[:size], self._received[size:]
        return data

    def _version(self) -> bytes | None:
        if (version := self._take(len(_VERSION))) is None:
            return None
        if version != _VERSION:
            raise ProtocolError(f'not version 3.8: {version!r}')
        self._answers += bytes((1, _NO_AUTHENTICATION))
        self._next = self._security
        return b''

    def _security(self) -> bytes | None:
        if (kind := self._take(1)) is None:
            return None
        if kind[0] != _NO_AUTHENTICATION:
            raise ProtocolError(f'authentication of type {kind[0]}')
        self._answers += bytes(4)
        self._next = self._initialization
        return b''

    def _initialization(self) -> bytes | None:
        if self._take(1) is None:
            return None
        self._answers += (
            struct.pack('>HH', screen.COLUMNS * console_font.WIDTH,
                        screen.ROWS * console_font.HEIGHT)
            + self._format.packed()
            + struct.pack('>I', len(self._name)) + self._name)
        self._next = self._message
        return b''

    def _message(self) -> bytes | None:
        head = self._received[:8]
        if not head:
            return None
        kind = head[0]
        if kind in (2, 6) and len(head) < (4 if kind == 2 else 8):
            return None
        if kind == 2:
            size = 4 + 4 * int.from_bytes(head[2:4], 'big')
        elif kind == 6:
            size = 8 + abs(int.from_bytes(head[4:8], 'big', signed=True))
        else:
            size = {0: 20, 3: 10, 4: 8, 5: 6}.get(kind, 0)
        if not size:
            raise ProtocolError(f'a message of type {kind}')
        if (message := self._take(size)) is None:
            return None
        if kind == 0:
            self._format = PixelFormat.parse(message[4:])
            self._sent = [None] * screen.ROWS
        elif kind == 2:
            self._hextile = _HEXTILE in struct.unpack(
                f'>{(size - 4) // 4}i', message[4:])
        elif kind == 3:
            self._wanted = True
            if not message[1]:
                self._sent = [None] * screen.ROWS
        elif kind == 4:
            return self._keyboard.event(
                int.from_bytes(message[4:], 'big'), bool(message[1]),
                self._screen.application_keys)
        return b''

    def update(self) -> bytes:
        """What has changed on the screen, if the viewer waits for it."""
        if not self._wanted:
            return b''
        lines = self._screen.lines()
        parts = []
        for row, cells in enumerate(lines):
            before = self._sent[row]
            if before is cells:
                continue
            changed = [
                column for column in range(0, screen.COLUMNS, 2)
                if before is None
                or before[column:column + 2] != cells[column:column + 2]]
            if changed:
                first, end = changed[0], changed[-1] + 2
                parts.append(self._rectangle(row, first, cells[first:end]))
        self._sent = [*lines]
        if not parts:
            return b''
        self._wanted = False
        return struct.pack('>BxH', 0, len(parts)) + b''.join(parts)

    def current(self) -> bool:
        """Whether the viewer was sent all that is on the screen."""
        return self._sent == [*self._screen.lines()]

    def _rectangle(self, row: int, column: int, cells: _Cells) -> bytes:
        head = struct.pack(
            '>4Hi', column * console_font.WIDTH, row * console_font.HEIGHT,
            len(cells) * console_font.WIDTH, console_font.HEIGHT,
            _HEXTILE if self._hextile else _RAW)
        pixel = functools.cache(self._format.pixel)
        if not self._hextile:
            return head + self._raw(cells, pixel)
        return head + b''.join(
            self._tile(cells[number:number + 2], pixel)
            for number in range(0, len(cells), 2))

    def _glyph(self, cell: screen.Cell) -> bytes:
        rows = (self._font.glyph(cell.character) if cell.character
                else bytes(console_font.HEIGHT))
        return rows[:-2] + b'\xff' + rows[-1:] if cell.underlined else rows

    def _raw(self, cells: _Cells,
             pixel: collections.abc.Callable[[int], bytes]) -> bytes:
        drawn = [(self._glyph(cell), pixel(cell.foreground),
                  pixel(cell.background)) for cell in cells]
        return b''.join(
            front if rows[y] & 0x80 >> x else back
            for y in range(console_font.HEIGHT)
            for rows, front, back in drawn
            for x in range(console_font.WIDTH))

    def _tile(self, cells: _Cells,
              pixel: collections.abc.Callable[[int], bytes]) -> bytes:
        """Two cells: a background, and rectangles of other colours on it."""
        background = cells[0].background
        found = []
        for number, cell in enumerate(cells):
            left = number * console_font.WIDTH
            if cell.background != background:
                found.append((cell.background, left, 0, console_font.WIDTH,
                              console_font.HEIGHT))
            if cell.foreground != cell.background:
                found += [(cell.foreground, left + x, y, width, height)
                          for x, y, width, height in _rectangles(
                              self._glyph(cell))]
        colours = {colour for colour, *_ in found}
        places = [bytes((x << 4 | y, width - 1 << 4 | height - 1))
                  for _, x, y, width, height in found]
        if not found:
            return bytes((_BACKGROUND,)) + pixel(background)
        if len(colours) == 1:
            return (bytes((_BACKGROUND | _FOREGROUND | _SUBRECTANGLES,))
                    + pixel(background) + pixel(colours.pop())
                    + bytes((len(found),)) + b''.join(places))
        return (bytes((_BACKGROUND | _SUBRECTANGLES | _COLOURED,))
                + pixel(background) + bytes((len(found),))
                + b''.join(pixel(colour) + place for (colour, *_), place
                           in zip(found, places)))
