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

"""Nova's consoles: which address and port its proxies are to connect to."""

import errno
import socket
import threading

from nova.console import type as console_type
from nova import exception as nova_exception
from oslo_config import cfg
from oslo_log import log

from nova_container import exception
from nova_container.runtime import console_font
from nova_container.runtime import console_server

CONF = cfg.CONF
LOG = log.getLogger(__name__)


def _listener(host: str, kind: str) -> socket.socket:
    """A socket at the first free port of [serial_console] port_range.

    :param kind: of console, by Nova's name
    :raises SocketPortRangeExhaustedException: there is none
    :raises ConsoleTypeUnavailable: the address is none of this host
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    first, end = map(int, CONF.serial_console.port_range.split(':'))
    for port in range(first, end):
        try:
            return socket.create_server((host, port), family=family)
        except OSError as e:
            if e.errno not in (errno.EADDRINUSE, errno.EACCES):
                LOG.error('No %s consoles: %s; give an address of this host '
                          'as [serial_console] proxyclient_address and [vnc] '
                          'server_proxyclient_address', kind, e)
                raise nova_exception.ConsoleTypeUnavailable(console_type=kind)
    raise nova_exception.SocketPortRangeExhaustedException(host=host)


def _offer(server: console_server.ConsoleServer, instance) -> None:
    try:
        server.offer(instance.uuid)
    except exception.StateConflict:
        raise nova_exception.InstanceNotReady(instance_id=instance.uuid)


class Consoles:
    """The consoles of this host, on a port taken when the first is wanted.

    Serial and graphical ones share it where the options give them the same
    address.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._server: console_server.ConsoleServer | None = None
        self._ports: dict[str, int] = {}

    def serial(self, instance) -> console_type.ConsoleSerial:
        """What Nova's proxy needs to know, with the console ready for it.

        :raises InstanceNotReady: it does not run
        :raises ConsoleTypeUnavailable: the host has not the address for it
        """
        host = CONF.serial_console.proxyclient_address
        server, port = self._serving(host, 'serial')
        _offer(server, instance)
        return console_type.ConsoleSerial(
            host=host, port=port,
            internal_access_path=server.path(instance.uuid))

    def graphical(self, instance) -> console_type.ConsoleVNC:
        """The same console, for viewers of the remote framebuffer protocol.

        :raises InstanceNotReady: it does not run
        :raises ConsoleTypeUnavailable: the host has not the font or the
            address for it
        """
        host = CONF.vnc.server_proxyclient_address
        try:
            font = console_font.load(CONF.container.console_font)
        except exception.HostUnsupported as e:
            LOG.error('No graphical consoles: %s', e)
            raise nova_exception.ConsoleTypeUnavailable(console_type='vnc')
        server, port = self._serving(host, 'vnc')
        _offer(server, instance)
        return console_type.ConsoleVNC(
            host=host, port=port,
            internal_access_path=server.path(instance.uuid, font))

    def _serving(self, host: str, kind: str
                 ) -> tuple[console_server.ConsoleServer, int]:
        """The server, and the port at which it listens on an address."""
        with self._lock:
            server = self._server
            if server is None or host not in self._ports:
                listener = _listener(host, kind)
                if server is None:
                    server = console_server.ConsoleServer(listener)
                    self._server = server
                else:
                    server.listen(listener)
                self._ports[host] = listener.getsockname()[1]
            return server, self._ports[host]

    def stop(self) -> None:
        """Close every connection."""
        if self._server is not None:
            self._server.stop()
