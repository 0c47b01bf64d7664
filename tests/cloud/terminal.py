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

"""A terminal emulator on the web socket of nova-serialproxy."""

import re
import typing
from urllib import parse
import uuid

import websocket

from nova_container.runtime import console_input

_TIMEOUT = 60


class Terminal:
    """What the dashboard's console tab is to a user."""

    def __init__(self, url: str, size=(24, 80), **options):
        self.seen = b''
        self.socket = websocket.create_connection(
            url, timeout=_TIMEOUT, subprotocols=['binary'],
            http_no_proxy=[parse.urlsplit(url).hostname], **options)
        self.read(re.escape(console_input.ASK_SIZE))
        self.type('\x1b[{};{}R'.format(*size))

    def __enter__(self) -> typing.Self:
        return self

    def __exit__(self, *exc_info):
        self.socket.close()

    def type(self, text: str) -> None:
        self.socket.send_binary(text.encode())

    def read(self, wanted: bytes) -> bytes:
        """What was shown until the pattern came, and not after."""
        while not (found := re.search(wanted, self.seen)):
            chunk = self.socket.recv()
            if not chunk:
                raise AssertionError(f'{wanted} is not in {self.seen}')
            self.seen += chunk
        text, self.seen = self.seen[:found.end()], self.seen[found.end():]
        return text

    def run(self, command: str) -> str:
        """What a command of the shell wrote, which has to succeed."""
        # What is typed is shown, too, and so is what was run before; neither
        # must be taken for the answer.
        mark = uuid.uuid4().hex
        self.type(f'echo "{mark}="; {command}; echo "{mark}=$?."\r')
        self.read(mark.encode() + rb'=\r\n')
        text = self.read(mark.encode() + rb'=\d+\.')
        output, _, code = text.rpartition(mark.encode() + b'=')
        if code != b'0.':
            raise AssertionError(f'{command}: {text}')
        return output.decode().replace('\r\n', '\n')

    def rest(self) -> bytes:
        while chunk := self.socket.recv():
            self.seen += chunk
        return self.seen


def of(user, server) -> Terminal:
    """The console of a server.

    :param user: openstack.connection.Connection
    """
    return Terminal(user.compute.create_console(server, 'serial')['url'])
