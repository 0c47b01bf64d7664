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

"""Nova's serial console: which port its proxy is to connect to."""

import contextlib
import socket
import threading

from nova.console import type as console_type
from nova import exception as nova_exception
from oslo_config import cfg

from nova_container import exception
from nova_container.runtime import console_server

CONF = cfg.CONF


def _listener() -> socket.socket:
    """A socket at the first free port of [serial_console] port_range.

    :raises SocketPortRangeExhaustedException: there is none
    """
    host = CONF.serial_console.proxyclient_address
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    first, end = map(int, CONF.serial_console.port_range.split(':'))
    for port in range(first, end):
        with contextlib.suppress(OSError):
            return socket.create_server((host, port), family=family)
    raise nova_exception.SocketPortRangeExhaustedException(host=host)


class SerialConsoles:
    """The consoles of this host, on a port taken when the first is wanted.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._server: console_server.ConsoleServer | None = None

    def connection(self, instance) -> console_type.ConsoleSerial:
        """What Nova's proxy needs to know, with the console ready for it.

        :raises InstanceNotReady: it does not run
        """
        with self._lock:
            if self._server is None:
                self._server = console_server.ConsoleServer(_listener())
        try:
            self._server.offer(instance.uuid)
        except exception.StateConflict:
            raise nova_exception.InstanceNotReady(instance_id=instance.uuid)
        return console_type.ConsoleSerial(
            host=CONF.serial_console.proxyclient_address,
            port=self._server.port,
            internal_access_path=self._server.path(instance.uuid))

    def stop(self) -> None:
        """Close every connection."""
        if self._server is not None:
            self._server.stop()
