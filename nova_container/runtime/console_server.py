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

The size of the terminal is that of the viewer who told it last. A viewer of
the remote framebuffer protocol is shown a screen, whose size does not change
as long as it is connected.
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
import typing as ty

from oslo_concurrency import lockutils
from oslo_log import log

from nova_container import exception
from nova_container.runtime import attachment
from nova_container.runtime import console as console_log
from nova_container.runtime import console_font
from nova_container.runtime import console_input
from nova_container.runtime import engine
from nova_container.runtime import rfb
from nova_container.runtime import schedule
from nova_container.runtime import screen
from nova_container.runtime import state

LOG = log.getLogger(__name__)

# Seconds that a shell waits for somebody to come back.
GRACE = 300.0

# What a viewer who comes later is shown, bytes.
_HISTORY = 16384

# Bytes that one console passes on in a tick, seconds, and that a viewer may be
# behind. While a console is not read its container's writes wait, as on a
# serial line.
_TICK = 0.05
_PASS_MAX = 65536
_BEHIND_MAX = 65536

# Three bytes can be milliseconds of work for the terminal emulator, so drawing
# is counted in time: seconds without a look at other consoles, and one
# console's share of the thread. Bytes that are drawn without looking at time.
_DRAW_MAX = 0.01
_DRAW_SHARE = 0.2
_PIECE = 64

# Seconds until a connection that does not say, or take, anything is closed.
_SILENCE_MAX = 30.0
_REQUEST_MAX = 1024

# Connections that have not said yet what they want: who may reach the port is
# not known to be anybody's viewer, and the service's files are limited.
_STRANGERS_MAX = 64

# Seconds without accepting any, when the service has no file left for one.
_DEAF = 1.0
_VIEWERS_MAX = 16

_NO_SHELL = b'[the image has no shell: this shows what its process writes]\r\n'
_ENDED = b'\r\n[the console has ended]\r\n'

# What a viewer wants, in the path that it names.
_TERMINAL, _SCREEN = 'terminal', 'screen'


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
        self.screen: screen.Screen | None = None
        self.undrawn = bytearray()
        # Whether there is more to draw than there was time for.
        self.unfinished = False
        # Seconds by which pictures took longer than what came between them:
        # where they take long, a flood would never end.
        self.pictured = 0.0
        self.heard = False
        self.ended = False
        self._passed, self._since = 0, 0.0
        self._paid = 0.0

    def keep(self, data: bytes) -> None:
        self.history += data
        del self.history[:-_HISTORY]

    def passed(self, size: int) -> None:
        """Count what was passed on."""
        now = time.monotonic()
        if now - self._since >= _TICK:
            self._passed, self._since = 0, now
        self._passed += size

    def drew(self, seconds: float) -> None:
        """Count the time that drawing took."""
        self._paid = (max(self._paid, time.monotonic())
                      + seconds / _DRAW_SHARE)

    def waits(self) -> bool:
        """Whether it has had its share, or a viewer does not keep up."""
        now = time.monotonic()
        return (self._passed > _PASS_MAX and now - self._since < _TICK
                or self._paid > now + _TICK or self.behind())

    def behind(self) -> bool:
        # A viewer of a screen has one picture at a time.
        return any(len(viewer.unsent) > _BEHIND_MAX and not viewer.session
                   for viewer in self.viewers)


class _Viewer:
    """A connection: a request first, then a terminal, or a screen."""

    def __init__(self, connection: socket.socket):
        self.socket = connection
        self.console: _Console | None = None
        self.request = b''
        self.input = console_input.ConsoleInput()
        self.session: rfb.Session | None = None
        self.unsent = bytearray()
        self.drawn = 0.0
        self.closing = False
        self.deadline = time.monotonic() + _SILENCE_MAX

    def owes(self) -> bool:
        """Whether it is to say or take something, or to ask for the end."""
        return (self.console is None or bool(self.unsent)
                or self.console.ended)

    def overdue(self, now: float) -> bool:
        """Whether it was asked for something and does not do it."""
        return self.owes() and now > self.deadline


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
        self._listeners: list[socket.socket] = []
        self._deaf: dict[socket.socket, float] = {}
        self._key = secrets.token_bytes(32)
        self._font: console_font.Font | None = None
        self._consoles: dict[str, _Console] = {}
        self._viewers: set[_Viewer] = set()
        self._resting: set[_Console] = set()
        self._calls: queue.SimpleQueue[
            collections.abc.Callable[[], None]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._add(listener)
        self._selector.register(self._wake, selectors.EVENT_READ, self._called)
        self._ends = schedule.Schedule(self._end_idle,
                                       'container-console-ends')
        self._thread = threading.Thread(target=self._run, daemon=True,
                                        name='container-consoles')
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens since its beginning."""
        return self._listeners[0].getsockname()[1]

    def listen(self, listener: socket.socket) -> None:
        """Listen to another socket, too."""
        self._call(functools.partial(self._add, listener))

    def path(self, container_id: str,
             font: console_font.Font | None = None) -> str:
        """What a viewer has to name, and nobody else can.

        :param font: for a viewer of the remote framebuffer protocol
        """
        kind = _TERMINAL if font is None else _SCREEN
        if font is not None:
            self._font = font
        return self._path(container_id, kind)

    def _path(self, container_id: str, kind: str) -> str:
        key = hmac.new(self._key, f'{container_id}/{kind}'.encode(),
                       hashlib.sha256)
        return f'/{container_id}/{kind}/{key.hexdigest()}'

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
                self._attempt(key.data, events)
            self._tick()

    @staticmethod
    def _attempt(work: collections.abc.Callable[..., None], *args: ty.Any
                 ) -> None:
        try:
            work(*args)
        except Exception:
            # One console's trouble must not end the others.
            LOG.exception('A console failed')

    def _patience(self) -> float | None:
        if self._resting:
            return _TICK
        if self._deaf or any(viewer.owes() for viewer in self._viewers):
            return 1.0
        return None

    def _tick(self) -> None:
        for console in [c for c in self._resting if not c.waits()]:
            self._attempt(self._rested, console)
        now = time.monotonic()
        for viewer in [v for v in self._viewers if v.overdue(now)]:
            self._attempt(self._drop, viewer)
        for listener in [one for one, until in self._deaf.items()
                         if now >= until]:
            del self._deaf[listener]
            self._listen(listener)

    def _rested(self, console: _Console) -> None:
        self._draw(console)
        if not (console.unfinished or console.waits()):
            self._resting.discard(console)
            self._hear(console, not console.ended)

    def _shut(self) -> None:
        self._stopping = True
        for console in list(self._consoles.values()):
            self._end(console)
        for viewer in list(self._viewers):
            self._drop(viewer)
        self._selector.close()
        for listener in self._listeners:
            listener.close()
        os.close(self._wake)

    def _add(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listeners.append(listener)
        self._listen(listener)

    def _listen(self, listener: socket.socket) -> None:
        self._selector.register(listener, selectors.EVENT_READ,
                                functools.partial(self._accept, listener))

    def _listen_to(self, console: _Console) -> None:
        self._hear(console, console not in self._resting)

    def _hear(self, console: _Console, wanted: bool) -> None:
        if wanted and not console.heard:
            self._selector.register(
                console.attached, selectors.EVENT_READ,
                functools.partial(self._output, console))
        elif console.heard and not wanted:
            self._selector.unregister(console.attached)
        console.heard = wanted

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
        console.passed(len(data))
        self._show(console, data)

    def _show(self, console: _Console, data: bytes) -> None:
        if console.screen:
            console.undrawn += data
        for viewer in [v for v in console.viewers if not v.session]:
            self._send(viewer, data)
        self._refresh(console)

    def _refresh(self, console: _Console) -> None:
        """Draw what is new, unless the console is at rest."""
        if console in self._resting:
            return
        self._draw(console)
        if console.unfinished or console.waits():
            self._resting.add(console)
            self._hear(console, False)

    def _draw(self, console: _Console) -> None:
        began = time.monotonic()
        answer = b''
        while (console.screen and console.undrawn
               and time.monotonic() - began < _DRAW_MAX):
            piece = bytes(console.undrawn[:_PIECE])
            del console.undrawn[:_PIECE]
            answer += console.screen.feed(piece)
        if answer and all(viewer.session for viewer in console.viewers):
            self._typed(console, answer)
        drawn = time.monotonic()
        console.pictured -= drawn - began
        left = []
        if not console.undrawn or console.pictured <= 0:
            left = sorted((viewer for viewer in console.viewers
                           if viewer.session and not viewer.unsent),
                          key=lambda viewer: viewer.drawn)
        # One at least, or a flood would never be seen.
        while left:
            viewer = left.pop(0)
            viewer.drawn = time.monotonic()
            assert viewer.session is not None
            picture = viewer.session.update()
            viewer.closing = (console.ended and not console.undrawn
                              and viewer.session.current())
            self._send(viewer, picture)
            console.pictured = time.monotonic() - drawn
            if time.monotonic() - began >= _DRAW_MAX:
                break
        console.unfinished = bool(left or console.undrawn)
        console.drew(time.monotonic() - began)

    def _end(self, console: _Console) -> None:
        if self._consoles.get(console.id) is not console:
            return
        del self._consoles[console.id]
        self._hear(console, False)
        console.attached.close()
        console.ended = True
        for viewer in console.viewers:
            viewer.closing = not viewer.session
            viewer.deadline = time.monotonic() + _SILENCE_MAX
        self._show(console, _ENDED)

    def _accept(self, listener: socket.socket, _: int) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as e:
            LOG.error('A console connection cannot be accepted: %s; trying '
                      'again in %d s', e, _DEAF)
            self._selector.unregister(listener)
            self._deaf[listener] = time.monotonic() + _DEAF
            return
        connection.setblocking(False)
        # A proxy that has gone without a word is noticed.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        strangers = [v for v in self._viewers if v.console is None]
        if len(strangers) >= _STRANGERS_MAX:
            self._drop(min(strangers, key=lambda v: v.deadline))
        viewer = _Viewer(connection)
        self._viewers.add(viewer)
        self._selector.register(
            connection, selectors.EVENT_READ,
            functools.partial(self._ready, viewer))

    def _ready(self, viewer: _Viewer, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send(viewer, b'')
            if viewer.session and viewer.console and not viewer.unsent:
                self._refresh(viewer.console)
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
            self._received(viewer.console, viewer, data)

    def _requested(self, viewer: _Viewer, data: bytes) -> None:
        viewer.request += data
        head, end, rest = viewer.request.partition(b'\r\n\r\n')
        if not end:
            if len(head) > _REQUEST_MAX:
                self._drop(viewer)
            return
        found = self._find(head.split(b'\r\n')[0])
        if found is None or len(found[0].viewers) >= _VIEWERS_MAX:
            viewer.closing = True
            self._send(viewer, b'HTTP/1.1 404 Not Found\r\n\r\n')
            return
        console, kind = found
        viewer.console = console
        console.viewers.add(viewer)
        self._send(viewer, b'HTTP/1.1 200 OK\r\n\r\n' + (
            self._screen(console, viewer) if kind == _SCREEN else
            (viewer.input.ask() if console.terminal else b'')
            + console_input.replay(console.history)))
        if rest:
            self._received(console, viewer, rest)

    def _screen(self, console: _Console, viewer: _Viewer) -> bytes:
        """Begin to show a screen; how the protocol begins."""
        if console.screen is None:
            console.screen = screen.Screen()
            console.undrawn += console_input.replay(console.history)
            self._resize(console, screen.ROWS, screen.COLUMNS)
        assert self._font is not None
        viewer.session = rfb.Session(console.screen, self._font, console.id)
        return viewer.session.greeting()

    def _find(self, request: bytes) -> tuple[_Console, str] | None:
        words = request.decode(errors='replace').split(' ')
        if len(words) != 3 or words[0] != 'CONNECT':
            return None
        console = self._consoles.get(words[1].split('/')[1]
                                     if words[1].startswith('/') else '')
        if console is None:
            return None
        for kind in _TERMINAL, _SCREEN:
            if hmac.compare_digest(self._path(console.id, kind).encode(),
                                   words[1].encode()):
                return console, kind
        return None

    def _received(self, console: _Console, viewer: _Viewer,
                  data: bytes) -> None:
        if viewer.session is None:
            keys, size = viewer.input.feed(data)
            if size is not None and console.screen is None:
                self._resize(console, *size)
            self._typed(console, keys)
            return
        try:
            keys, answer = viewer.session.feed(data)
        except rfb.ProtocolError as e:
            LOG.info('A viewer of the console of %s is turned away: %s',
                     console.id, e)
            self._drop(viewer)
            return
        self._typed(console, keys)
        self._send(viewer, answer)
        self._refresh(console)

    def _resize(self, console: _Console, rows: int, columns: int) -> None:
        if console.terminal:
            with contextlib.suppress(exception.StateConflict,
                                     exception.InvalidSpec):
                console.attached.resize(rows, columns)

    def _typed(self, console: _Console, keys: bytes) -> None:
        if keys and console.terminal and not console.ended:
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
            if not any(other.session for other in console.viewers):
                console.screen = None
                console.undrawn.clear()
            if not console.viewers:
                console.idle_since = time.monotonic()
                self._ends.after(GRACE, console)
