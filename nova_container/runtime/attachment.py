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

"""A container's console: what it writes as it writes it, and its input.

conmon listens at ``attach`` in the container's run directory (SOCK_SEQPACKET,
several clients at once): each packet from it is one byte, 2 or 3 for standard
output or error, and text; what is sent to it is input. ``ctl`` takes the
size of the terminal. Both belong to the service's user.

A container has an input and a terminal only if its spec says ``terminal``. The
shell that ``privileged.shell`` starts beside its process always has them.
"""

import collections.abc
import contextlib
import fcntl
import os
import selectors
import signal
import socket
import struct
import termios
import time
import tty
import typing

from nova_container import exception
from nova_container.privileged import place
from nova_container.runtime import state

STDOUT = 2
STDERR = 3

# conmon's buffer (STDIO_BUF_SIZE) and the byte before it.
_PACKET = 8192 + 1

# Whose console: that of the container's own process, or of the shell.
OWN = ''
SHELL = 'shell'

# Seconds that conmon, which does little else, is given to accept.
_ACCEPT_MAX = 5.0
_ACCEPT_POLL = 0.002

# Ctrl-P Ctrl-Q, as docker and podman have it.
DETACH_KEYS = b'\x10\x11'


class Attachment:
    """A connection to the console of a container that is created or runs.

    A context manager; ``fileno`` makes it fit for a selector.

    :param whose: OWN or SHELL
    :raises StateConflict: it does not run, or its monitor was killed
    """

    def __init__(self, container_id: str, whose: str = OWN):
        self._id = container_id
        self._whose = whose
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo:
            undo.callback(self._socket.close)
            state.read(container_id)
            try:
                _connect(self._socket,
                         place.container_run(container_id, whose))
            except (FileNotFoundError, ConnectionRefusedError):
                raise exception.StateConflict(
                    f'container {container_id} has no console: it does not '
                    'run, or its monitor was killed; start it again')
            undo.pop_all()

    def __enter__(self) -> typing.Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> tuple[int, bytes] | None:
        """The next piece and its stream; None once the container has ended.
        """
        try:
            packet = self._socket.recv(_PACKET)
        except ConnectionResetError:
            return None
        return (packet[0], packet[1:]) if packet else None

    def write(self, data: bytes) -> None:
        """Input for the container's process."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def write_some(self, data: bytes) -> None:
        """Input that is lost, as on a serial line, where there is no room."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError,
                                 BlockingIOError):
            self._socket.send(data, socket.MSG_DONTWAIT)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the size of the terminal."""
        resize(self._id, rows, columns, self._whose)


def _connect(connection: socket.socket, run_dir: str) -> None:
    # The whole path may be longer than that of a socket may be.
    directory = os.open(run_dir, os.O_PATH | os.O_CLOEXEC)
    try:
        connection.connect(f'/proc/self/fd/{directory}/attach')
    finally:
        os.close(directory)
    # What conmon passes on before it has accepted would be missed.
    deadline = time.monotonic() + _ACCEPT_MAX
    while _waits(connection.getpeername()) and time.monotonic() < deadline:
        time.sleep(_ACCEPT_POLL)


def _waits(name: str) -> bool:
    """Whether a connection to a listening socket is not accepted yet.

    The kernel's list has no inode for it until it is (proc_pid_net(5)).
    """
    # Anybody on the host may give a socket a name of any bytes.
    with open('/proc/thread-self/net/unix',
              errors='surrogateescape') as file:
        return any(line.split()[6:] == ['0', name] for line in file)


def resize(container_id: str, rows: int, columns: int,
           whose: str = OWN) -> None:
    """Set the size of a container's terminal.

    :param whose: OWN or SHELL
    :raises StateConflict: it does not run, or its monitor was killed
    """
    for name, value in (('rows', rows), ('columns', columns)):
        if not 0 < value < 1 << 16:
            raise exception.InvalidSpec(f'{name} {value} is not in 1..65535')
    try:
        fd = os.open(place.container_run(container_id, whose, 'ctl'),
                     os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise exception.StateConflict(
            f'container {container_id} has no console: it does not run, or '
            'its monitor was killed')
    with open(fd, 'wb') as control:
        control.write(f'1 {rows} {columns}\n'.encode())


def interact(container_id: str, stdin: int, stdout: int, stderr: int,
             begin: collections.abc.Callable[[], None] | None = None) -> bool:
    """Connect descriptors to the console until one side ends.

    When ``stdin`` is a terminal and the container has one, too, ours is in raw
    mode meanwhile, its size is passed on, and DETACH_KEYS end the connection.
    To be called in the main thread.

    :param begin: called once connected; to start the container, so that
        nothing it writes is missed
    :returns: True if the user detached, False if the container ended
    """
    with contextlib.ExitStack() as undo:
        attached = undo.enter_context(Attachment(container_id))
        keys = None
        if os.isatty(stdin) and state.policy(container_id).terminal:
            keys = _DetachKeys()
            undo.enter_context(_raw(stdin))
            undo.enter_context(_follow_size(stdin, attached))
        # Unlike epoll, poll takes files and /dev/null.
        ready = undo.enter_context(selectors.PollSelector())
        ready.register(attached, selectors.EVENT_READ)
        ready.register(stdin, selectors.EVENT_READ)
        if begin is not None:
            begin()
        while True:
            for key, _ in ready.select():
                if key.fd == attached.fileno():
                    piece = attached.read()
                    if piece is None:
                        return False
                    _write_all(stderr if piece[0] == STDERR else stdout,
                               piece[1])
                    continue
                data = os.read(stdin, 4096)
                if not data:
                    ready.unregister(stdin)
                elif keys is not None and keys.seen(data):
                    return True
                attached.write(data)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data):]


class _DetachKeys:
    """Looks for the keys, also when they come one by one."""

    def __init__(self) -> None:
        self._last = b''

    def seen(self, data: bytes) -> bool:
        text = self._last + data
        self._last = text[-(len(DETACH_KEYS) - 1):]
        return DETACH_KEYS in text


@contextlib.contextmanager
def _raw(terminal: int) -> collections.abc.Iterator[None]:
    before = termios.tcgetattr(terminal)
    # What was typed ahead is kept.
    tty.setraw(terminal, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _follow_size(terminal: int,
                 attached: Attachment) -> collections.abc.Iterator[None]:
    def tell(*_: object) -> None:
        rows, columns, _, _ = struct.unpack('HHHH', fcntl.ioctl(
            terminal, termios.TIOCGWINSZ, b'\0' * 8))
        if rows and columns:
            attached.resize(rows, columns)

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        tell()
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
