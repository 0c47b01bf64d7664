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

"""What a terminal emulator sends: keys, and how large it is.

A serial console has no channel for the size of the terminal, so it travels
with the keys (ECMA-48 control sequences, as xterm has them). Asked where the
cursor is after having been sent to the far corner, every emulator answers
``CSI rows ; columns R``; one that is resized may send ``CSI 8 ; rows ; columns
t`` of its own accord.
"""

import re

# Save the cursor, go to the corner, report where that is, go back.
ASK_SIZE = b'\x1b7\x1b[999;999H\x1b[6n\x1b8'

_SIZE = re.compile(rb'\x1b\[8;(\d{1,5});(\d{1,5})t')
_CURSOR = re.compile(rb'\x1b\[(\d{1,5});(\d{1,5})R')

# Device status and device attributes: a shell asks where its prompt ends.
_QUESTION = re.compile(rb'\x1b\[[>=?]?[\d;]*[ -/]*[cn]')

# The beginning of either, at the end of what has come so far.
_PART = re.compile(rb'\x1b\[\d{1,5}(;\d{0,5}){0,2}\Z')


def replay(history: bytes | bytearray) -> bytes:
    """What was written, without questions: nobody waits for an answer now."""
    return _QUESTION.sub(b'', history)


class ConsoleInput:
    """Takes the sizes out of one viewer's input."""

    def __init__(self) -> None:
        self._rest = b''
        self._asked = False

    def ask(self) -> bytes:
        """What to send to the viewer; the next cursor report is its size.

        To be sent first, for a program may ask for the cursor, too.
        """
        self._asked = True
        return ASK_SIZE

    def feed(self, data: bytes) -> tuple[bytes, tuple[int, int] | None]:
        """Keys, and rows and columns if the terminal has told its size."""
        data = self._rest + data
        size = None
        if self._asked and (found := _CURSOR.search(data)):
            self._asked = False
            size = int(found[1]), int(found[2])
            data = data[:found.start()] + data[found.end():]
        for found in _SIZE.finditer(data):
            size = int(found[1]), int(found[2])
        data = _SIZE.sub(b'', data)
        part = _PART.search(data)
        if part and (self._asked or part[0].startswith(b'\x1b[8')):
            self._rest, data = part[0], data[:part.start()]
        else:
            self._rest = b''
        return data, size
