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

"""Fonts of text consoles: glyphs of 8 by 16 pixels in a PSF file.

Source: "The PC Screen Font" (kbd, doc/font-formats): a header, glyphs as rows
of bits, and a table of the characters that each glyph stands for.
"""

import dataclasses
import functools
import gzip
import struct

from nova_container import exception

WIDTH, HEIGHT = 8, 16

_FIRST = b'\x36\x04'
_SECOND = b'\x72\xb5\x4a\x86'


@dataclasses.dataclass(frozen=True)
class Font:
    """:ivar glyphs: character to its rows, a byte each, leftmost bit first"""

    glyphs: dict[str, bytes]

    def glyph(self, character: str) -> bytes:
        """Rows of the character, or of what stands for a missing one."""
        found = self.glyphs.get(character)
        if found is None:
            found = self.glyphs.get('\ufffd') or self.glyphs.get('?')
        return found or bytes(HEIGHT)


@functools.lru_cache(maxsize=1)
def load(path: str) -> Font:
    """Read a font, compressed or not.

    :raises HostUnsupported: the file is not there or is no such font
    """
    try:
        with open(path, 'rb') as file:
            data = file.read()
        if data[:2] == b'\x1f\x8b':
            data = gzip.decompress(data)
        return _parse(data)
    except (OSError, EOFError, ValueError, struct.error) as e:
        raise exception.HostUnsupported(
            f'cannot read the font {path}: {e}; set [container] console_font '
            'to a PSF font of 8 by 16 pixels with a table of characters (the '
            'package psf-unifont has one)')


def _parse(data: bytes) -> Font:
    if data.startswith(_FIRST):
        mode, size = struct.unpack_from('BB', data, 2)
        count, width, height, start = 512 if mode & 1 else 256, 8, size, 4
        tabled = bool(mode & 2)
    elif data.startswith(_SECOND):
        (_, start, flags, count, size, height,
         width) = struct.unpack_from('<7I', data, 4)
        tabled = bool(flags & 1)
    else:
        raise ValueError('it is no PSF font')
    if (width, height, size) != (WIDTH, HEIGHT, HEIGHT):
        raise ValueError(f'its glyphs have {width} by {height} pixels')
    end = start + count * size
    if not tabled or end > len(data):
        raise ValueError('it is cut off or has no table of characters')
    table = (_second_table if data.startswith(_SECOND) else _first_table)(
        data[end:])
    return Font({character: data[start + number * size:][:size]
                 for number, characters in enumerate(table[:count])
                 for character in characters})


# What follows a mark of its own in an entry are sequences of characters.

def _first_table(data: bytes) -> list[str]:
    text = data[:len(data) & ~1].decode('utf-16-le', 'surrogatepass')
    return [entry.split('\ufffe')[0] for entry in text.split('\uffff')]


def _second_table(data: bytes) -> list[str]:
    return [entry.split(b'\xfe')[0].decode() for entry in data.split(b'\xff')]
