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

"""What a terminal shows: an emulator for viewers that know pixels alone.

What the container writes is hostile. The emulator is given complete control
sequences of bounded length only, and nothing it would keep without limit.
"""

import codecs
import re
import typing

from oslo_log import log
import pyte
import wcwidth

LOG = log.getLogger(__name__)

ROWS, COLUMNS = 25, 80

# Control sequences, control strings (titles and the like, not shown), and
# other escape sequences (ECMA-48 5.4, 5.6; ECMA-35 13.2.1).
_SEQUENCE = re.compile(
    r'\x1b(?:\[[0-?]{0,32}[ -/]{0,2}[@-~]'
    r'|(?P<string>[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\))'
    r'|(?![]P[X^_])[ -/]{0,2}[0-~])')
# The beginning of any of them, at the end of what has come so far.
_UNFINISHED = re.compile(
    r'\x1b(?:\[[0-?]{0,32}[ -/]{0,2}|[]PX^_][^\x07\x1b]*\x1b?'
    r'|[ -/]{0,2})\Z')
_UNFINISHED_MAX = 4096
# Controls that do nothing here; the emulator would drop what follows them.
_SILENT = dict.fromkeys((*range(0x07), *range(0x10, 0x1b),
                         *range(0x1c, 0x20), *range(0x7f, 0xa0)))
_SAVED_MAX = 16

# Colours of xterm, as 0xRRGGBB.
_NORMAL = {
    'black': 0x000000, 'red': 0xcd0000, 'green': 0x00cd00, 'brown': 0xcdcd00,
    'blue': 0x3465e4, 'magenta': 0xcd00cd, 'cyan': 0x00cdcd,
    'white': 0xe5e5e5}
_BRIGHT = {
    'black': 0x7f7f7f, 'red': 0xff0000, 'green': 0x00ff00, 'brown': 0xffff00,
    'blue': 0x5c8cff, 'magenta': 0xff00ff, 'cyan': 0x00ffff,
    'white': 0xffffff}
_COLOURS = _NORMAL | {f'bright{name}': rgb for name, rgb in _BRIGHT.items()}
_FOREGROUND, _BACKGROUND = _NORMAL['white'], _NORMAL['black']


class Cell(typing.NamedTuple):
    """A character and its colours, 0xRRGGBB; ``''``: part of a wide one."""

    character: str
    foreground: int
    background: int
    underlined: bool


class _Emulator(pyte.Screen):
    """Keeps the answers to what a program asks its terminal."""

    def __init__(self) -> None:
        self.answers = ''
        super().__init__(COLUMNS, ROWS)

    def draw(self, data: str) -> None:
        # It would drop what follows a character that has no width.
        super().draw(data if data.isascii() else ''.join(
            c for c in data if wcwidth.wcwidth(c) > 0))

    def write_process_input(self, data: str) -> None:
        self.answers += data

    def resize(self, lines: int | None = None,
               columns: int | None = None) -> None:
        """Not for a program to decide."""

    def save_cursor(self) -> None:
        super().save_cursor()
        del self.savepoints[:-_SAVED_MAX]


def _colour(name: str, default: int, bold: bool) -> int:
    if bold and name in _BRIGHT:
        return _BRIGHT[name]
    if name in _COLOURS:
        return _COLOURS[name]
    try:
        return int(name, 16)
    except ValueError:
        return default


class Screen:
    """A screen of ROWS and COLUMNS."""

    def __init__(self) -> None:
        self._emulator = _Emulator()
        self._stream = pyte.Stream(self._emulator)
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')
        self._rest = ''
        self._cursor = (0, 0)
        self._lines: dict[int, tuple[Cell, ...]] = {}

    @property
    def application_keys(self) -> bool:
        """Whether cursor keys are to send SS3 sequences (DECCKM)."""
        # The emulator shifts the numbers of private modes.
        return 1 << 5 in self._emulator.mode

    def feed(self, data: bytes) -> bytes:
        """Show what was written; what the terminal answers to it."""
        text = self._rest + self._decoder.decode(data).translate(_SILENT)
        self._rest = ''
        place = 0
        while (escape := text.find('\x1b', place)) >= 0:
            self._show(text[place:escape])
            found = _SEQUENCE.match(text, escape)
            if found:
                if not found['string']:
                    self._show(found[0])
                place = found.end()
            elif (len(text) - escape < _UNFINISHED_MAX
                  and _UNFINISHED.match(text, escape)):
                self._rest, text, place = text[escape:], '', 0
            else:
                place = escape + 1
        self._show(text[place:])
        answers, self._emulator.answers = self._emulator.answers, ''
        return answers.encode()

    def _show(self, text: str) -> None:
        if not text:
            return
        try:
            self._stream.feed(text)
        except Exception:
            # It stumbles over parameters that a sequence does not have.
            LOG.debug('The terminal cannot show %r', text[:80], exc_info=True)
            self._stream = pyte.Stream(self._emulator)

    def lines(self) -> list[tuple[Cell, ...]]:
        """The cells of all rows; those of a row that is as it was before are
        the same object.
        """
        emulator = self._emulator
        cursor = emulator.cursor.y, emulator.cursor.x
        changed = emulator.dirty | {self._cursor[0], cursor[0]}
        for row in range(ROWS):
            if row in changed or row not in self._lines:
                self._lines[row] = self._line(row)
        self._cursor = cursor
        emulator.dirty.clear()
        return [self._lines[row] for row in range(ROWS)]

    def _line(self, row: int) -> tuple[Cell, ...]:
        emulator = self._emulator
        line = emulator.buffer[row]
        cells = []
        for column in range(COLUMNS):
            char = line[column]
            front = _colour(char.fg, _FOREGROUND, char.bold)
            back = _colour(char.bg, _BACKGROUND, False)
            at_cursor = (not emulator.cursor.hidden
                         and row == emulator.cursor.y
                         and column == min(emulator.cursor.x, COLUMNS - 1))
            if char.reverse != at_cursor:
                front, back = back, front
            cells.append(Cell(char.data, front, back, char.underscore))
        return tuple(cells)
