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

from urllib import parse
import urllib.request

import websocket

from nova_container.runtime import console_font
from tests.cloud import base
from tests.cloud import terminal
from tests import framebuffer


# That of tools/cloud, the default.
_FONT = '/usr/share/consolefonts/Unifont-APL8x16.psf.gz'


class GraphicalConsoleTest(base.CloudTestCase):

    def connect(self, server) -> framebuffer.Framebuffer:
        """Do what noVNC does with the address that Nova gives."""
        url = parse.urlsplit(
            self.user.compute.create_console(server, 'novnc')['url'])
        self.assertEqual('http', url.scheme)
        with urllib.request.urlopen(url.geturl()) as page:
            self.assertIn(b'rfb.js', page.read())
        path, = parse.parse_qs(url.query)['path']
        connection = websocket.create_connection(
            f'ws://{url.netloc}/{path}', timeout=60,
            subprotocols=['binary'], http_no_proxy=[url.hostname],
            origin=f'http://{url.netloc}')
        self.addCleanup(connection.close)

        def receive() -> bytes:
            # The proxy sends an empty message once it has shaken hands.
            while (data := connection.recv()) == b'':
                pass
            return data
        return framebuffer.Framebuffer(
            receive, connection.send_binary,
            console_font.load(_FONT))

    def test_shell(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:stop_signal': 'KILL'}))
        screen = self.connect(server)
        self.assertEqual(server.id, screen.name)
        screen.type('stty size; word=kept; echo $((6*7)).\n')
        self.assertIn('\n25 80\n42.', screen.until('42.'))
        with terminal.of(self.user, server) as other:
            other.type('echo $word $((40+3)) Grüße.\r')
            screen.until('kept 43 Grüße.')
        again = self.connect(server)
        again.until('kept 43')
        self.user.compute.stop_server(server)
        again.until('[the console has ended]')
        self.assertEqual('SHUTOFF', self.settled(server))
        self.assertRaisesRegex(Exception, 'not ready', self.connect, server)


class SerialConsoleTest(base.CloudTestCase):

    def url(self, server) -> str:
        """What Horizon gets for its console tab."""
        found = self.user.compute.create_console(server, 'serial')
        self.assertEqual('ws', parse.urlsplit(found['url']).scheme)
        return found['url']

    def test_shell(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:stop_signal': 'KILL'}))
        url = self.url(server)
        with terminal.Terminal(url, size=(33, 77)) as one:
            one.type('stty size; word=kept; echo $((6*7)).\r')
            self.assertIn(b'33 77', one.read(rb'42\.'))
            with terminal.Terminal(
                    url, origin='http://127.0.0.1:8080') as other:
                other.type('echo $word $((40+3)).\r')
                other.read(rb'kept 43\.')
                one.read(rb'kept 43\.')
        with terminal.Terminal(self.url(server)) as again:
            again.type('echo $word $((40+4)).\r')
            again.read(rb'kept 44\.')
            self.user.compute.stop_server(server)
            self.assertIn(b'the console has ended', again.rest())
        self.assertEqual('SHUTOFF', self.settled(server))
        self.assertRaisesRegex(Exception, 'not ready', self.url, server)
        self.user.compute.start_server(server)
        self.assertEqual('ACTIVE', self.settled(server))
        with terminal.Terminal(self.url(server)) as fresh:
            fresh.type('echo $((40+5)).\r')
            fresh.read(rb'45\.')
        with self.assertRaises((AssertionError,
                                websocket.WebSocketException)):
            terminal.Terminal(url[:-4] + 'beef')
