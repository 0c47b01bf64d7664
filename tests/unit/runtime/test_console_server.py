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

import contextlib
import errno
import os
import re
import resource
import socket
import struct
import threading
import time
from unittest import mock
import uuid

from nova_container.runtime import attachment
from nova_container.runtime import console_server
from tests import framebuffer
from tests.unit import base

_TIMEOUT = 20
_PACKET = 8192


class Monitor:
    """What conmon does, without a container."""

    def __init__(self):
        self._ours, self.theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.typed = b''

    def fileno(self):
        return self._ours.fileno()

    def close(self):
        self._ours.close()

    def read(self):
        packet = self._ours.recv(_PACKET + 1)
        return (packet[0], packet[1:]) if packet else None

    def write_some(self, data):
        if self._ours.fileno() < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self.typed += data

    def resize(self, rows, columns):
        pass

    def says(self, data: bytes) -> None:
        for place in range(0, len(data), _PACKET):
            self.theirs.sendall(bytes((attachment.STDOUT,))
                                + data[place:place + _PACKET])


class ServerTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.server = console_server.ConsoleServer(
            socket.create_server(('127.0.0.1', 0)))
        self.addCleanup(self.server.stop)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(
            ('127.0.0.1', self.server.port), timeout=_TIMEOUT)
        self.addCleanup(connection.close)
        return connection

    def console(self, history=b'') -> tuple[str, Monitor]:
        container_id = str(uuid.uuid4())
        monitor = Monitor()
        self.addCleanup(monitor.theirs.close)
        with mock.patch.object(
                console_server, '_open', lambda _: console_server._Console(
                    container_id, attachment.OWN, True, monitor, history)):
            self.server.offer(container_id)
        return container_id, monitor

    def view(self, path: str) -> socket.socket:
        viewer = self.connect()
        viewer.sendall(f'CONNECT {path} HTTP/1.1\r\n\r\n'.encode())
        self.until(viewer, rb'200 OK\r\n\r\n')
        return viewer

    def screen(self, container_id: str) -> socket.socket:
        viewer = self.view(self.server.path(container_id,
                                            framebuffer.SHAPES))
        viewer.sendall(b'RFB 003.008\n\1\1')
        self.until(viewer, container_id.encode())
        return viewer

    @staticmethod
    def ask(viewer: socket.socket, times: int = 1) -> None:
        viewer.sendall(times * struct.pack('>BB4H', 3, 0, 0, 0, 640, 400))

    @staticmethod
    def until(viewer: socket.socket, wanted: bytes) -> None:
        seen = b''
        while not re.search(wanted, seen):
            piece = viewer.recv(65536)
            assert piece, seen
            seen += piece

    def quiet(self):
        """How long another console takes to show a word."""
        container_id, monitor = self.console()
        viewer = self.view(self.server.path(container_id))
        began = time.monotonic()
        monitor.says(b'word')
        self.until(viewer, b'word')
        return time.monotonic() - began

    def test_output_that_is_much_work_to_draw_holds_up_nobody(self):
        hostile = b'\x1b#8' * (_PACKET // 3)
        container_id, monitor = self.console(history=hostile)
        self.ask(self.screen(container_id))
        monitor.says(hostile)
        monitor.says(hostile)
        for _ in range(3):
            self.assertLess(self.quiet(), 2)

    def test_question_of_a_console_that_has_ended(self):
        # The emulator passes over the control character, and answers.
        container_id, monitor = self.console(
            history=b'\x1b#8' * 100 + b'\x1b[6\0n')
        viewer = self.view(self.server.path(container_id,
                                            framebuffer.SHAPES))
        monitor.theirs.close()
        viewer.sendall(b'RFB 003.008\n\1\1')
        self.until(viewer, container_id.encode())
        self.ask(viewer)
        with contextlib.suppress(ConnectionError):
            while viewer.recv(65536):
                self.ask(viewer)
        self.assertLess(self.quiet(), 2)
        self.assertNotIn('failed', self.log.output)

    def test_screen_is_drawn_to_the_end(self):
        container_id, monitor = self.console()
        connection = self.screen(container_id)
        shown = framebuffer.Framebuffer(
            self._begun(connection), lambda _: None, framebuffer.SHAPES)
        shown._send = connection.sendall
        shown.ask(incremental=False)
        monitor.says(b'\x1b#8' * 60 + b'\x1b[2J\x1b[6n\x1b[Hlast')
        shown.until('last')
        self.assertIn(b'R', monitor.typed)
        monitor.says(b'\x1b#8' * 60 + b'\x1b[2J\x1b[Hwords')
        monitor.theirs.close()
        self.assertIn('words', shown.until('[the console has ended]'))

    @staticmethod
    def _begun(connection):
        """The beginning, which was read already, and what follows."""
        begun = [b'RFB 003.008\n' b'\1\1' + bytes(4)
                 + struct.pack('>HH', 640, 400) + bytes(16) + bytes(4)]
        return lambda: begun.pop() if begun else connection.recv(65536)

    def test_viewer_that_asks_and_does_not_look(self):
        container_id, _ = self.console()
        viewer = self.screen(container_id)
        self.ask(viewer, times=40000)
        for _ in range(20):
            self.assertLess(self.quiet(), 2)
        self.assertLess(sum(len(viewer.unsent)
                            for viewer in set(self.server._viewers)), 2 << 20)

    def test_flood_rests(self):
        container_id, monitor = self.console()
        viewer = self.view(self.server.path(container_id))
        began = time.monotonic()
        writer = threading.Thread(target=monitor.says, args=(
            8 * console_server._PASS_MAX * b'y' + b'end',))
        writer.start()
        self.addCleanup(writer.join)
        self.until(viewer, b'end')
        self.assertGreater(time.monotonic() - began,
                           4 * console_server._TICK)

    def test_connections_that_say_nothing_give_way(self):
        silent = [self.connect() for _ in range(200)]
        self.assertEqual(b'', silent[0].recv(1))
        self.assertLess(self.quiet(), 2)

    def test_no_file_left_for_a_connection(self):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as client, socket.socket() as highest:
            client.settimeout(_TIMEOUT)
            resource.setrlimit(resource.RLIMIT_NOFILE,
                               (highest.fileno() + 1, limits[1]))
            try:
                client.connect(('127.0.0.1', self.server.port))
                deadline = time.monotonic() + _TIMEOUT
                while (self.log.output.count('Too many open files') < 1
                       and time.monotonic() < deadline):
                    pass
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            client.sendall(b'\r\n\r\n')
            self.until(client, b'404')
        self.assertEqual(1, self.log.output.count('Too many open files'))
