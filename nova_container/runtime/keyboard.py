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

"""Keys of a keyboard as X11 numbers them, and what a terminal sends for them.

Source: X11/keysymdef.h; xterm's control sequences, "PC-Style Function Keys".
"""

_PLAIN = {
    0xff08: b'\x7f', 0xff09: b'\t', 0xff0a: b'\n', 0xff0d: b'\r',
    0xff8d: b'\r', 0xff1b: b'\x1b', 0xfe20: b'\x1b[Z',
    0xff55: b'\x1b[5~', 0xff56: b'\x1b[6~', 0xff63: b'\x1b[2~',
    0xffff: b'\x1b[3~', 0xff80: b' ',
    # Of the keypad, without and with NumLock.
    0xff9a: b'\x1b[5~', 0xff9b: b'\x1b[6~', 0xff9e: b'\x1b[2~',
    0xff9f: b'\x1b[3~',
    **{0xffaa + n: b'*+,-./'[n:n + 1] for n in range(6)},
    **{0xffb0 + n: b'%d' % n for n in range(10)},
    **{0xffbe + n: b'\x1bO' + b'PQRS'[n:n + 1] for n in range(4)},
    **{0xffc2 + n: b'\x1b[%d~' % code for n, code in enumerate(
        (15, 17, 18, 19, 20, 21, 23, 24))},
}

# Cursor keys, Home and End: after CSI, or SS3 in application mode.
_CURSOR = {
    0xff50: b'H', 0xff51: b'D', 0xff52: b'A', 0xff53: b'C', 0xff54: b'B',
    0xff57: b'F',
    0xff95: b'H', 0xff96: b'D', 0xff97: b'A', 0xff98: b'C', 0xff99: b'B',
    0xff9c: b'F',
}

_CONTROL = frozenset((0xffe3, 0xffe4))
# Alt and Meta, left and right.
_ALT = frozenset((0xffe7, 0xffe8, 0xffe9, 0xffea))

_UNICODE = 0x01000000


class Keyboard:
    """Knows which modifiers are held down."""

    def __init__(self) -> None:
        self._held: set[int] = set()

    def event(self, key: int, down: bool, application: bool) -> bytes:
        """What the terminal sends when a key goes down or up.

        :param application: the mode of the cursor keys (DECCKM)
        """
        if key in _CONTROL or key in _ALT:
            (self._held.add if down else self._held.discard)(key)
            return b''
        if not down:
            return b''
        sent = self._sent(key, application)
        if sent and self._held & _ALT:
            return b'\x1b' + sent
        return sent

    def _sent(self, key: int, application: bool) -> bytes:
        if key in _PLAIN:
            return _PLAIN[key]
        if key in _CURSOR:
            return (b'\x1bO' if application else b'\x1b[') + _CURSOR[key]
        point = key - _UNICODE if key >= _UNICODE else key
        if not (0x20 <= point < 0x7f or 0xa0 <= point < 0x100
                or key == 0x20ac or _UNICODE < key <= _UNICODE + 0x10ffff):
            return b''
        if self._held & _CONTROL:
            return (bytes((point & 0x1f,))
                    if 0x40 <= point < 0x7f or point == 0x20 else b'')
        return chr(point).encode(errors='ignore')
