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
import os
import pathlib
import re
import socket

from nova_container import exception
from nova_container.privileged import place
from nova_container.privileged import process
from nova_container.privileged import shell
from nova_container.runtime import console_input
from nova_container.runtime import console_server
from nova_container.runtime import engine
from tests import archives
from tests import framebuffer
from tests.functional import base

FOREVER = ('/bin/sleep', '1000000')
_TIMEOUT = 30


class Viewer:
    """What Nova's proxy and a terminal emulator do together."""

    def __init__(self, server, container_id, path=None, size=(24, 80)):
        self.socket = socket.create_connection(('127.0.0.1', server.port),
                                               timeout=_TIMEOUT)
        self.seen = b''
        self.type(f'CONNECT {path or server.path(container_id)} '
                  'HTTP/1.1\r\n\r\n')
        if path is None:
            self.read(rb'HTTP/1.1 200 OK\r\n\r\n')
            if size is not None:
                self.read(re.escape(console_input.ASK_SIZE))
                self.type('\x1b[{};{}R'.format(*size))

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.socket.close()

    def type(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def read(self, wanted: bytes) -> bytes:
        """What was shown until the pattern came, and not after."""
        while not (found := re.search(wanted, self.seen)):
            chunk = self.socket.recv(65536)
            if not chunk:
                raise AssertionError(f'{wanted} is not in {self.seen}')
            self.seen += chunk
        text, self.seen = self.seen[:found.end()], self.seen[found.end():]
        return text

    def rest(self) -> bytes:
        with contextlib.suppress(ConnectionError):
            while chunk := self.socket.recv(65536):
                self.seen += chunk
        return self.seen


class ConsoleTestCase(base.RuntimeTestCase):

    def setUp(self):
        super().setUp()
        self.server = console_server.ConsoleServer(
            socket.create_server(('127.0.0.1', 0)))
        self.addCleanup(self.server.stop)

    def view(self, container_id, **options) -> Viewer:
        self.server.offer(container_id)
        return self.enterContext(Viewer(self.server, container_id, **options))

    def shell_process(self, container_id):
        path = place.container_run(container_id, 'shell', 'pid')
        return process.identify(int(pathlib.Path(path).read_text()))


class ShellTest(ConsoleTestCase):

    def test_shell_beside_the_process(self):
        container_id = self.run_container(
            *FOREVER, user='web', cwd='/srv', env=(('WORD', 'said'),))
        viewer = self.view(container_id, size=(33, 77))
        viewer.type('echo $(id -u) $WORD $(pwd) $(tty) $((40+2)).\n')
        viewer.read(rb'33 said /srv /dev/pts/\d+ 42\.')
        viewer.type('stty size; echo $((1+1)).\n')
        self.assertIn(b'33 77', viewer.read(rb'2\.'))
        viewer.type('\x1b[8;50;132tstty size; echo $((2+1)).\n')
        self.assertIn(b'50 132', viewer.read(rb'3\.'))

    def test_viewers_share_and_come_back(self):
        container_id = self.run_container(*FOREVER)
        with self.view(container_id) as one:
            one.type('word=kept\n')
            one.type('echo first $((10+1)).\n')
            one.read(rb'first 11\.')
            with self.view(container_id) as other:
                # Who comes later sees what was there.
                other.type('echo $word $((20+2)).\n')
                other.read(rb'kept 22\.')
                one.read(rb'kept 22\.')
        with self.view(container_id) as again:
            again.type('echo $word $((30+3)).\n')
            again.read(rb'kept 33\.')

    def test_history_is_shown(self):
        container_id = self.run_container(*FOREVER)
        viewer = self.view(container_id)
        viewer.type('echo $((50+1))shown\n')
        viewer.read(rb'51shown')
        self.server.offer(container_id)
        with Viewer(self.server, container_id, size=None) as other:
            text = other.read(rb'51shown')
        # Another question before it would be answered for it.
        question, _, history = text.partition(console_input.ASK_SIZE)
        self.assertEqual(b'', question)
        self.assertNotIn(b'\x1b[6n', history)

    def test_shell_that_is_left_is_followed_by_another(self):
        container_id = self.run_container(*FOREVER)
        viewer = self.view(container_id)
        viewer.type('exit\n')
        self.assertIn(b'the console has ended', viewer.rest())
        again = self.view(container_id)
        again.type('echo $((60+1)).\n')
        again.read(rb'61\.')

    def test_halt_ends_the_console(self):
        container_id = self.run_container(*FOREVER)
        viewer = self.view(container_id)
        viewer.type('echo $((70+1)).\n')
        viewer.read(rb'71\.')
        engine.halt(container_id)
        self.assertIn(b'the console has ended', viewer.rest())
        with self.assertRaises(exception.StateConflict):
            self.server.offer(container_id)

    def test_hangup_takes_the_shell_and_leaves_the_container(self):
        container_id = self.run_container(*FOREVER)
        viewer = self.view(container_id)
        viewer.type('trap "" HUP; sleep 1000 & echo $((80+1)).\n')
        viewer.read(rb'81\.')
        found = self.shell_process(container_id)
        engine.close_shell(container_id)
        self.assertFalse(process.alive(found))
        self.assertFalse(os.path.exists(
            place.container_run(container_id, 'shell')))
        self.assertIn(b'the console has ended', viewer.rest())
        self.assertEqual(0, engine.execute(
            container_id, engine.command.Command(('/bin/true',))).exit_code)

    def test_shells_of_a_killed_service_are_ended(self):
        container_id = self.run_container(*FOREVER)
        self.view(container_id)
        found = self.shell_process(container_id)
        shell.recover()
        self.assertFalse(process.alive(found))

    def test_flood_reaches_a_slow_viewer_and_can_be_stopped(self):
        container_id = self.run_container(*FOREVER)
        viewer = self.view(container_id)
        viewer.type('yes $((90+1))flood\n')
        viewer.read(rb'91flood')
        other = self.run_container(*FOREVER)
        with self.view(other) as quiet:
            quiet.type('echo $((10+3)).\n')
            quiet.read(rb'13\.')
        viewer.type('\x03')
        viewer.type('echo $((10+4))stopped\n')
        viewer.read(rb'14stopped')


class ScreenTest(ConsoleTestCase):

    def screen(self, container_id) -> framebuffer.Framebuffer:
        viewer = self.view(container_id, path=self.server.path(
            container_id, framebuffer.SHAPES))
        viewer.read(rb'HTTP/1.1 200 OK\r\n\r\n')
        seen = [viewer.seen]
        return framebuffer.Framebuffer(
            lambda: seen.pop() if any(seen) else viewer.socket.recv(65536),
            viewer.socket.sendall, framebuffer.SHAPES)

    def test_shell_on_a_screen(self):
        container_id = self.run_container(*FOREVER)
        screen = self.screen(container_id)
        screen.type('stty size; echo $((6*7)).\n')
        self.assertIn('\n25 80\n42.', screen.until('42.'))
        screen.type('echo $((6*8)).; sleep 1000\n')
        screen.until('48.')
        screen.press(framebuffer.CONTROL, ord('c'))
        screen.type('echo $((6*9)).\n')
        screen.until('54.')

    def test_shared_with_a_terminal(self):
        container_id = self.run_container(*FOREVER)
        viewer = self.view(container_id, size=(33, 77))
        viewer.type('echo $((100+1)).\n')
        viewer.read(rb'101\.')
        screen = self.screen(container_id)
        screen.until('101.')
        screen.type('stty size; echo $((100+2)).\n')
        # As large as the screen, for everyone.
        self.assertIn(b'25 80', viewer.read(rb'102\.'))
        viewer.type('clear; echo $((100+3)).\n')
        self.assertNotIn('102', screen.until('103.'))

    def test_flood_can_be_stopped(self):
        container_id = self.run_container(*FOREVER)
        screen = self.screen(container_id)
        screen.type('yes $((90+1))flood\n')
        screen.until('91flood\n91flood')
        other = self.run_container(*FOREVER)
        with self.view(other) as quiet:
            quiet.type('echo $((10+3)).\n')
            quiet.read(rb'13\.')
        screen.press(framebuffer.CONTROL, ord('c'))
        screen.type('echo $((10+4))stopped\n')
        screen.until('14stopped')

    def test_end_is_shown(self):
        container_id = self.run_container(*FOREVER)
        screen = self.screen(container_id)
        terminal = self.view(container_id)
        screen.type('echo $((70+1)).\n')
        screen.until('71.')
        engine.halt(container_id)
        # Nor does it pass by who asks for a picture only later.
        self.assertIn(b'the console has ended', terminal.rest())
        screen.until('[the console has ended]')


class OtherConsolesTest(ConsoleTestCase):

    def test_terminal_of_the_process(self):
        container_id = self.run_container('/bin/cat', terminal=True)
        viewer = self.view(container_id, size=(20, 60))
        viewer.type('hello\n')
        viewer.read(rb'hello\r\nhello')

    def test_image_without_a_shell_shows_the_output(self):
        image = self.add_image(archives.docker_archive(archives.tar(
            archives.directory('bin'),
            archives.entry('bin/busybox',
                           pathlib.Path(base._BUSYBOX).read_bytes(),
                           mode=0o755),
            archives.symlink('bin/cat', 'busybox'),
            archives.symlink('bin/sleep', 'busybox'),
            archives.directory('etc'),
            archives.entry('etc/words', b'what it says\n'))))
        container_id = self.run_container(
            '/bin/busybox', 'tail', '-f', '/etc/words', image=image)
        viewer = self.view(container_id, size=None)
        viewer.read(rb'no shell.*\r\n')
        viewer.read(rb'what it says\r\n')
        self.assertFalse(os.path.exists(
            place.container_run(container_id, 'shell')))

    def test_who_does_not_know_the_path_is_refused(self):
        container_id = self.run_container(*FOREVER)
        other = self.run_container(*FOREVER)
        for one in (container_id, other):
            self.server.offer(one)
        _, _, kind, key = self.server.path(other).split('/')
        for path in ('/', 'x', f'/{container_id}', f'/{other}/screen/{key}',
                     f'/{container_id}/{kind}/{key}',
                     f'/{container_id}/{kind}/' + 64 * '0', '/\xff'):
            with Viewer(self.server, container_id, path=path) as viewer:
                self.assertEqual(b'HTTP/1.1 404 Not Found\r\n\r\n',
                                 viewer.rest())
        for request in (b'\r\n\r\n', 2000 * b'x', b'SSH-2.0-x\r\n\r\n'):
            with socket.create_connection(
                    ('127.0.0.1', self.server.port), _TIMEOUT) as stranger:
                stranger.sendall(request)
                with contextlib.suppress(ConnectionError):
                    self.assertIn(stranger.recv(100)[:12],
                                  (b'', b'HTTP/1.1 404'))
