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


"""``logs``: what a container's processes wrote."""

import argparse
import os
import select
import sys

from nova_container.cli import owner
from nova_container.privileged import place
from nova_container.privileged import process
from nova_container.runtime import console
from nova_container.runtime import state

_BYTES = 16 << 20
_POLL = 0.2


def _logs(args: argparse.Namespace) -> None:
    container_id = owner.find(args.container)
    follower = Follower(container_id) if args.follow else None
    text = console.text(container_id, _BYTES)
    if args.tail is not None:
        lines = text.splitlines(keepends=True)
        text = b''.join(lines[max(0, len(lines) - args.tail):])
    _write(text)
    if follower is not None:
        follower.run()


def _write(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


class Follower:
    """Prints what is added to the log, until the container has ended.

    The monitor begins another file at its largest size, and writes no more
    to the one before.

    :param from_start: not only what is added from now on
    """

    def __init__(self, container_id: str, from_start: bool = False):
        self._id = container_id
        self._path = place.container_state(container_id, 'log')
        self._file = self._open()
        if self._file is not None and not from_start:
            self._file.seek(0, os.SEEK_END)

    def _open(self):
        try:
            return open(self._path, 'rb')
        except FileNotFoundError:
            return None

    def run(self) -> None:
        """Follow to the end."""
        monitor = state.read(self._id).monitor
        fd = process.open_pidfd(monitor) if monitor else None
        waited = [] if fd is None else [fd]
        rest = b''
        try:
            ended = not waited
            while True:
                rest = self._print(rest)
                if ended:
                    return
                # The monitor has written everything when it ends.
                ended = bool(select.select(waited, [], [], _POLL)[0])
        finally:
            if fd is not None:
                os.close(fd)

    def _print(self, rest: bytes) -> bytes:
        """Print the whole lines; what is left of the last one."""
        while True:
            if self._file is None:
                self._file = self._open()
                if self._file is None:
                    return rest
            replaced = self._replaced()
            data = rest + self._file.read()
            whole, newline, rest = data.rpartition(b'\n')
            if newline:
                _write(console.plain(whole, len(whole) + 1))
            if not replaced:
                return rest
            self._file.close()
            self._file = None

    def _replaced(self) -> bool:
        try:
            return not os.path.samestat(os.stat(self._path),
                                        os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False


def add_commands(command) -> None:
    """Add the group to the parser."""
    logs = command('logs', _logs, 'Print what a container wrote.',
                   'nova-container logs --follow --tail 20 web')
    logs.add_argument('-f', '--follow', action='store_true',
                      help='go on until the container ends')
    logs.add_argument('-n', '--tail', type=int, metavar='LINES',
                      help='the last lines only')
    logs.add_argument('container', metavar='CONTAINER')
