# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""supervisord, which runs the services: http://supervisord.org/."""

import collections.abc as cabc
import http.client
import os
import pathlib
import signal
import socket
import threading
import time
import typing as ty
import xmlrpc.client

from onenode import command
from onenode import marks
from onenode import network
from onenode import plan
from onenode import services

# Every process of the cloud has this in its environment, or works in
# Layout.work (some overwrite their environment with a title), so that those
# whose supervisor was killed can be told from everybody else's.
MARK = 'NOVA_CONTAINER_CLOUD_SERVICE_OF'

# As often as that a service may end while it is starting.
_MAX_TRIES = 3

_HEAD = """\
[supervisord]
logfile = {log}
pidfile = {run}/supervisord.pid
childlogdir = {logs}
directory = {root}
minfds = 4096
umask = 022

[unix_http_server]
file = {socket}
chmod = 0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = \
supervisor.rpcinterface:make_main_rpcinterface
"""

_PROGRAM = """
[program:{name}]
command = {command}
environment = {environment}
directory = {directory}
autostart = false
autorestart = true
startsecs = 1
startretries = 3
stopwaitsecs = 20
stopasgroup = {group}
killasgroup = true
redirect_stderr = true
stdout_logfile = {log}
stdout_logfile_maxbytes = 20MB
stdout_logfile_backups = 1
"""


def _quote(text: str) -> str:
    """Quote for supervisord.conf, where % expands and ; can comment."""
    escaped = text.replace('\\', '\\\\').replace('"', '\\"')
    return '"' + escaped.replace('%', '%%') + '"'


def _program(layout: plan.Layout, service: services.Service) -> str:
    environment = {
        'PATH': f'{layout.bin}:/usr/sbin:/usr/bin:/sbin:/bin',
        'LC_ALL': 'C.UTF-8',
        'HOME': '/root',
        **({} if service.node else {'TMPDIR': str(layout.tmp)}),
        **dict(service.env),
        MARK: str(layout.root),
        # A change of a file makes the program a changed one.
        'CONFIGURATION': marks.fingerprint(*service.configs)[:16],
    }
    return _PROGRAM.format(
        name=service.name,
        command=' '.join(_quote(word) for word in service.command),
        environment=','.join(f'{name}={_quote(value)}'
                             for name, value in environment.items()),
        directory=layout.work, group=str(service.group_stop).lower(),
        log=layout.log_of(service.name))


def configure(layout: plan.Layout,
              wanted: cabc.Iterable[services.Service]) -> bool:
    """Write supervisord's configuration; False if it did not change."""
    text = _HEAD.format(
        log=layout.log_of('supervisord'), run=layout.run, logs=layout.log,
        root=layout.root, socket=layout.supervisor_socket)
    text += ''.join(_program(layout, service) for service in wanted)
    return marks.write(layout.supervisor_config, text, 0o600)


class _Connection(http.client.HTTPConnection):

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(self.host)


class _Transport(xmlrpc.client.Transport):

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: str) -> http.client.HTTPConnection:
        return _Connection(str(self._path))


class Client:
    """Talks to supervisord, for several threads over one connection.

    One, because of a bug of supervisord 4.3's: when it closes a connection
    and starts a process in the same turn, it may go on polling the number of
    the connection's descriptor, which is now the process's stdin, and burns
    a whole core once the process closes that. See also
    https://github.com/Supervisor/supervisor/issues/807.
    """

    def __init__(self, layout: plan.Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._proxy: ty.Any = xmlrpc.client.ServerProxy(
            'http://localhost/RPC2',
            transport=_Transport(layout.supervisor_socket)).supervisor

    def _call(self, method: str, *arguments: ty.Any) -> ty.Any:
        with self._lock:
            return getattr(self._proxy, method)(*arguments)

    def is_running(self) -> bool:
        try:
            return self._call('getState')['statename'] == 'RUNNING'
        except (OSError, http.client.HTTPException):
            return False

    def programs(self) -> list[dict[str, ty.Any]]:
        return self._call('getAllProcessInfo')

    def state(self, name: str) -> str:
        return self._call('getProcessInfo', name)['statename']

    def reread(self) -> bool:
        """Take over a changed configuration, stopping what changed."""
        (added, changed, removed), = self._call('reloadConfig')
        gone = changed + removed
        # What others need stops last, or they wait for it in vain.
        self.stop([n for n in gone if not services.is_infrastructure(n)])
        self.stop([n for n in gone if services.is_infrastructure(n)])
        for name in changed + removed:
            self._call('removeProcessGroup', name)
        for name in changed + added:
            self._call('addProcessGroup', name)
        return bool(added or changed or removed)

    def start(self, name: str) -> bool:
        """Have the service started; False if it was running.

        :raises Failure: it ended at once, or cannot be started.
        """
        if self.state(name) in ('RUNNING', 'STARTING'):
            return False
        try:
            self._call('startProcess', name, False)
        except xmlrpc.client.Fault as fault:
            if 'ALREADY_STARTED' not in fault.faultString:
                raise plan.Failure(f'start {name}: {fault.faultString}',
                                   self._layout.log_of(name))
        return True

    def wait_started(self, service: services.Service,
                     seconds: float = 120) -> None:
        """Wait until the service serves.

        :raises Failure: it ended, or does not serve in time.
        """
        log = self._layout.log_of(service.name)
        pids = set()

        def ready() -> bool:
            info = self._call('getProcessInfo', service.name)
            state = info['statename']
            pids.update({info['pid']} - {0})
            if len(pids) > _MAX_TRIES or state in (
                    'FATAL', 'EXITED', 'STOPPED'):
                raise plan.Failure(f'{service.name} ended ({state})', log)
            if service.ready is None:
                return state == 'RUNNING'
            return state in ('STARTING', 'RUNNING') and service.ready()
        command.wait_for(ready, f'{service.name} does not serve', seconds,
                         log)

    def stop(self, names: cabc.Sequence[str]) -> None:
        """Stop services, all at once, and wait until they have."""
        left = set(names)
        for name in names:
            try:
                self._call('stopProcess', name, False)
            except xmlrpc.client.Fault as fault:
                if 'NOT_RUNNING' not in fault.faultString:
                    raise plan.Failure(f'stop {name}: {fault.faultString}')

        def stopped() -> bool:
            left.intersection_update(
                p['name'] for p in self.programs() if p['statename'] in
                ('RUNNING', 'STARTING', 'STOPPING', 'BACKOFF'))
            return not left
        if names:
            command.wait_for(stopped, 'services do not stop', 60)

    def shutdown(self) -> None:
        """End supervisord and what it still runs."""
        pid = self._call('getPID')
        self._call('shutdown')
        command.wait_for(lambda: not _alive(pid), 'supervisord does not end',
                         90, self._layout.log_of('supervisord'))


def launch(layout: plan.Layout, client: Client, log: pathlib.Path) -> bool:
    """Start supervisord, or have the running one reread its configuration."""
    if client.is_running():
        return client.reread()
    end_strays(layout)
    network.check_ports()
    (layout.run / 'supervisord.pid').unlink(missing_ok=True)
    layout.supervisor_socket.unlink(missing_ok=True)
    command.run([layout.bin / 'supervisord', '--configuration',
                 layout.supervisor_config], log=log,
                env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin',
                     'LC_ALL': 'C.UTF-8', MARK: str(layout.root)})
    command.wait_for(client.is_running, 'supervisord does not answer', 30,
                     layout.log_of('supervisord'))
    return True


def _alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        status = pathlib.Path(f'/proc/{pid}/stat').read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(')')[2].split()[0] not in 'ZX'


def strays(layout: plan.Layout) -> list[int]:
    """Processes of this cloud, by the mark in their environment.

    One in another PID namespace is of another machine's cloud: a container's.
    """
    own = os.readlink('/proc/self/ns/pid')
    mark = f'{MARK}={layout.root}'.encode()
    found = []
    for directory in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            environment = (directory / 'environ').read_bytes().split(b'\0')
            works_in = os.readlink(directory / 'cwd')
            if os.readlink(directory / 'ns' / 'pid') != own:
                continue
        except OSError:
            continue
        pid = int(directory.name)
        if ((mark in environment or works_in == str(layout.work))
                and _alive(pid)):
            found.append(pid)
    return found


def end_strays(layout: plan.Layout) -> None:
    """End processes of this cloud that nobody supervises any more."""
    for number, seconds in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        deadline = time.monotonic() + seconds
        pids = strays(layout)
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        while any(map(_alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.1)
    if left := strays(layout):
        raise plan.Failure(f'processes that do not end: {left}')
