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

"""The consoles of all containers, on one TCP port, served by one thread.

A console is shared: whoever is connected sees the same and may type, and who
comes later is shown the last of what was written. It is

* the container's own terminal, if its process has one (a machine, or
  ``tty``), else
* a shell beside its process, which goes on while nobody is connected for a
  while, else, in an image without one,
* what the process writes, without input.

The size of the terminal is that of the viewer who told it last.
"""

import collections.abc
import contextlib
import functools
import hashlib
import hmac
import os
import queue
import secrets
import selectors
import socket
import threading
import time

from oslo_concurrency import lockutils
from oslo_log import log

from nova_container import exception
from nova_container.runtime import attachment
from nova_container.runtime import console as console_log
from nova_container.runtime import console_input
from nova_container.runtime import engine
from nova_container.runtime import schedule
from nova_container.runtime import state

LOG = log.getLogger(__name__)

# Seconds that a shell waits for somebody to come back.
GRACE = 300.0

# What a viewer who comes later is shown, bytes.
_HISTORY = 16384

# Bytes that one console passes on in a tick, seconds, and that a viewer may
# be behind. While a console is not read its container's writes wait, as on a
# serial line.
_TICK = 0.05
_PASS_MAX = 65536
_BEHIND_MAX = 65536

# Seconds until a connection that does not say, or take, anything is closed.
_SILENCE_MAX = 30.0
_REQUEST_MAX = 1024
_VIEWERS_MAX = 16

_NO_SHELL = b'[the image has no shell: this shows what its process writes]\r\n'
_ENDED = b'\r\n[the console has ended]\r\n'


class _Console:
    """The console of one container and its viewers."""

    def __init__(self, container_id: str, whose: str, terminal: bool,
                 attached: attachment.Attachment, history: bytes):
        self.id = container_id
        self.whose = whose
        self.terminal = terminal
        self.attached = attached
        self.viewers: set[_Viewer] = set()
        self.idle_since = time.monotonic()
        self.history = bytearray(history)
        self._passed, self._since = 0, 0.0

    def keep(self, data: bytes) -> None:
        self.history += data
        del self.history[:-_HISTORY]

    def too_much(self, size: int) -> bool:
        """Count what was passed on; whether to rest for a tick."""
        now = time.monotonic()
        if now - self._since >= _TICK:
            self._passed, self._since = 0, now
        self._passed += size
        return self._passed > _PASS_MAX or self.behind()

    def behind(self) -> bool:
        return any(len(viewer.unsent) > _BEHIND_MAX
                   for viewer in self.viewers)


class _Viewer:
    """A connection: a request first, then a terminal."""

    def __init__(self, connection: socket.socket):
        self.socket = connection
        self.console: _Console | None = None
        self.request = b''
        self.input = console_input.ConsoleInput()
        self.unsent = bytearray()
        self.closing = False
        self.deadline = time.monotonic() + _SILENCE_MAX

    def overdue(self, now: float) -> bool:
        """Whether it was asked for something and does not do it."""
        return ((self.console is None or bool(self.unsent))
                and now > self.deadline)


def _open(container_id: str) -> _Console:
    """
    :raises StateConflict: the container does not run
    """
    engine.require(container_id, state.Status.RUNNING)
    if state.policy(container_id).terminal:
        attached = attachment.Attachment(container_id)
        return _Console(container_id, attachment.OWN, True, attached,
                        console_log.text(container_id, _HISTORY))
    try:
        fresh = engine.open_shell(container_id)
    except exception.ProcessInvalid:
        # Attached first: what is written meanwhile is rather shown twice.
        attached = attachment.Attachment(container_id)
        tail = console_log.text(container_id, _HISTORY)
        return _Console(container_id, attachment.OWN, False, attached,
                        _NO_SHELL + tail.replace(b'\n', b'\r\n'))
    attached = attachment.Attachment(container_id, attachment.SHELL)
    if fresh:
        # Its first prompt came before we listened.
        attached.write(b'\n')
    return _Console(container_id, attachment.SHELL, True, attached, b'')


class ConsoleServer:
    """Connects viewers to consoles.

    A connection begins as those of Nova's proxies do where a console has an
    ``internal_access_path`` (nova.console.websocketproxy): ``CONNECT path
    HTTP/1.1`` and an empty line. Whoever can reach the port gets nowhere
    without the path, which has a key that only this process knows.

    :param listener: a listening TCP socket
    """

    def __init__(self, listener: socket.socket):
        self._listener = listener
        self._listener.setblocking(False)
        self._key = secrets.token_bytes(32)
        self._consoles: dict[str, _Console] = {}
        self._viewers: set[_Viewer] = set()
        self._resting: set[_Console] = set()
        self._calls: queue.SimpleQueue[
            collections.abc.Callable[[], None]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ,
                                self._accept)
        self._selector.register(self._wake, selectors.EVENT_READ, self._called)
        self._ends = schedule.Schedule(self._end_idle,
                                       'container-console-ends')
        self._thread = threading.Thread(target=self._run, daemon=True,
                                        name='container-consoles')
        self._thread.start()

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    def path(self, container_id: str) -> str:
        """What a viewer has to name, and nobody else can."""
        key = hmac.new(self._key, container_id.encode(), hashlib.sha256)
        return f'/{container_id}/{key.hexdigest()}'

    def offer(self, container_id: str) -> None:
        """Have the console of a container ready for a viewer.

        :raises StateConflict: the container does not run
        """
        with lockutils.lock(f'nova-container-console-{container_id}'):
            console = self._consoles.get(container_id)
            if console is None:
                console = self._consoles[container_id] = _open(container_id)
                self._call(functools.partial(self._listen_to, console))
            console.idle_since = time.monotonic()
        self._ends.after(GRACE, console)

    def stop(self) -> None:
        """End the threads and close every connection."""
        self._ends.stop()
        self._call(self._shut)
        self._thread.join()

    def _end_idle(self, console: _Console) -> None:
        """Close a console that nobody looks at, in a thread that may wait."""
        with lockutils.lock(f'nova-container-console-{console.id}'):
            if (console.viewers or self._consoles.get(console.id)
                    is not console):
                return
            left = console.idle_since + GRACE - time.monotonic()
            if left > 0:
                self._ends.after(left, console)
                return
            if console.whose == attachment.SHELL:
                engine.close_shell(console.id)
            self._call(functools.partial(self._end, console))

    # All below is the thread's own.

    def _call(self, action: collections.abc.Callable[[], None]) -> None:
        self._calls.put(action)
        os.eventfd_write(self._wake, 1)

    def _called(self, _: int) -> None:
        os.eventfd_read(self._wake)
        while not self._calls.empty():
            self._calls.get()()

    def _run(self) -> None:
        while not self._stopping:
            for key, events in self._selector.select(self._patience()):
                try:
                    key.data(events)
                except Exception:
                    # One console's trouble must not end the others.
                    LOG.exception('A console failed')
            self._tick()

    def _patience(self) -> float | None:
        if self._resting:
            return _TICK
        if any(viewer.console is None or viewer.unsent
               for viewer in self._viewers):
            return 1.0
        return None

    def _tick(self) -> None:
        for console in [c for c in self._resting if not c.behind()]:
            self._resting.discard(console)
            self._selector.register(
                console.attached, selectors.EVENT_READ,
                functools.partial(self._output, console))
        now = time.monotonic()
        for viewer in [v for v in self._viewers if v.overdue(now)]:
            self._drop(viewer)

    def _shut(self) -> None:
        self._stopping = True
        for console in list(self._consoles.values()):
            self._end(console)
        for viewer in list(self._viewers):
            self._drop(viewer)
        self._selector.close()
        self._listener.close()
        os.close(self._wake)

    def _listen_to(self, console: _Console) -> None:
        self._selector.register(console.attached, selectors.EVENT_READ,
                                functools.partial(self._output, console))

    def _output(self, console: _Console, _: int) -> None:
        try:
            piece = console.attached.read()
        except OSError:
            piece = None
        if piece is None:
            self._end(console)
            return
        data = piece[1]
        if not console.terminal:
            data = data.replace(b'\n', b'\r\n')
        console.keep(data)
        for viewer in list(console.viewers):
            self._send(viewer, data)
        if console.too_much(len(data)):
            self._selector.unregister(console.attached)
            self._resting.add(console)

    def _end(self, console: _Console) -> None:
        if self._consoles.get(console.id) is not console:
            return
        del self._consoles[console.id]
        if console in self._resting:
            self._resting.discard(console)
        else:
            self._selector.unregister(console.attached)
        console.attached.close()
        for viewer in list(console.viewers):
            viewer.closing = True
            self._send(viewer, _ENDED)

    def _accept(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            # A proxy that has gone without a word is noticed.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            viewer = _Viewer(connection)
            self._viewers.add(viewer)
            self._selector.register(
                connection, selectors.EVENT_READ,
                functools.partial(self._ready, viewer))

    def _ready(self, viewer: _Viewer, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send(viewer, b'')
        if not events & selectors.EVENT_READ or viewer not in self._viewers:
            return
        try:
            data = viewer.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if not data:
            self._drop(viewer)
        elif viewer.console is None:
            self._requested(viewer, data)
        elif not viewer.closing:
            self._typed(viewer.console, viewer, data)

    def _requested(self, viewer: _Viewer, data: bytes) -> None:
        viewer.request += data
        head, end, rest = viewer.request.partition(b'\r\n\r\n')
        if not end:
            if len(head) > _REQUEST_MAX:
                self._drop(viewer)
            return
        console = self._find(head.split(b'\r\n')[0])
        if console is None or len(console.viewers) >= _VIEWERS_MAX:
            viewer.closing = True
            self._send(viewer, b'HTTP/1.1 404 Not Found\r\n\r\n')
            return
        viewer.console = console
        console.viewers.add(viewer)
        self._send(viewer, b'HTTP/1.1 200 OK\r\n\r\n'
                   + (viewer.input.ask() if console.terminal else b'')
                   + console_input.replay(console.history))
        if rest:
            self._typed(console, viewer, rest)

    def _find(self, request: bytes) -> _Console | None:
        words = request.decode(errors='replace').split(' ')
        if len(words) != 3 or words[0] != 'CONNECT':
            return None
        console = self._consoles.get(words[1].split('/')[1]
                                     if words[1].startswith('/') else '')
        if console is None or not hmac.compare_digest(
                self.path(console.id).encode(), words[1].encode()):
            return None
        return console

    def _typed(self, console: _Console, viewer: _Viewer,
               data: bytes) -> None:
        keys, size = viewer.input.feed(data)
        if not console.terminal:
            return
        if size is not None:
            with contextlib.suppress(exception.StateConflict,
                                     exception.InvalidSpec):
                console.attached.resize(*size)
        if keys:
            console.attached.write_some(keys)

    def _send(self, viewer: _Viewer, data: bytes) -> None:
        if data and not viewer.unsent:
            viewer.deadline = time.monotonic() + _SILENCE_MAX
        viewer.unsent += data
        try:
            sent = viewer.socket.send(viewer.unsent) if viewer.unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(viewer)
            return
        if sent:
            viewer.deadline = time.monotonic() + _SILENCE_MAX
        del viewer.unsent[:sent]
        if viewer.closing and not viewer.unsent:
            self._drop(viewer)
            return
        self._selector.modify(
            viewer.socket, selectors.EVENT_READ
            | (selectors.EVENT_WRITE if viewer.unsent else 0),
            functools.partial(self._ready, viewer))

    def _drop(self, viewer: _Viewer) -> None:
        if viewer not in self._viewers:
            return
        self._viewers.discard(viewer)
        self._selector.unregister(viewer.socket)
        viewer.socket.close()
        console = viewer.console
        if console is not None:
            console.viewers.discard(viewer)
            if not console.viewers:
                console.idle_since = time.monotonic()
                self._ends.after(GRACE, console)
