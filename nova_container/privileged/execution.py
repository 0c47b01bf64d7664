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

"""Run a command in a container that runs already.

The OCI runtime's ``exec`` joins the container's namespaces and control group
and takes on its capabilities and seccomp profile: a command can do no more
than the container's own process. Its input and output are pipes (or, for an
operator at a terminal, a pseudo-terminal that the runtime makes inside the
container), never a descriptor of the host.

Each command has a file below ``<run_path>/c/<id>/exec``, locked for as long as
whoever started it lives; ``recover`` ends the commands nobody waits for.
"""

import collections.abc
import contextlib
import fcntl
import json
import os
import re
import selectors
import signal
import subprocess
import time
import typing
import uuid

from nova_container import exception
from nova_container.oci.runtime_config import Identity
from nova_container.privileged import cgroup
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import identity
from nova_container.privileged import namespace
from nova_container.privileged import oci_runtime
from nova_container.privileged import place
from nova_container.privileged import process
from nova_container.privileged import recovery
from nova_container.spec import codec
from nova_container.spec import command as command_spec

# What one call may carry and how long it may hold a thread of the daemon.
OUTPUT_MAX = 1 << 20
# A pipe takes it at once (pipe(7)).
INPUT_MAX = 65536
TIMEOUT_MAX = 3600

# What a pipe holds at most, /proc/sys/fs/pipe-max-size by default.
_PIPE_MAX = 1 << 20

# What is left once a command was killed; longer means a hang in the kernel.
_END_TIMEOUT = 10

# Seconds between looks for the process that the runtime starts.
_START_PAUSE = 0.02

# What runc (a Go abort) and crun say when there is no room for a process.
_NO_ROOM = re.compile(r'newosproc|pthread_create failed|fail startup|'
                      r'Resource temporarily unavailable')


@context.entrypoint
def run(container_id: str, command: dict[str, typing.Any], timeout: float,
        limit: int, data: bytes = b'') -> dict[str, typing.Any]:
    """Run a command to its end.

    A process that the command leaves behind with its output still open is
    waited for.

    :param command: an encoded ``spec.command.Command``
    :param timeout: seconds, after which the command and the processes of its
        session are killed
    :param limit: bytes of standard output, and of standard error, to return;
        the rest is read and dropped
    :param data: its standard input, INPUT_MAX bytes at most
    :returns: ``exit_code`` (128+N for signal N; None after the timeout),
        ``stdout``, ``stderr``, ``truncated``
    :raises StateConflict: the container does not run, or is full
    :raises ProcessInvalid: the command cannot be started
    """
    wish = codec.decode(command_spec.Command, command)
    if not isinstance(timeout, (int, float)) or not 0 < timeout <= TIMEOUT_MAX:
        raise exception.InvalidSpec(
            f'timeout {timeout} is not in 1..{TIMEOUT_MAX} seconds')
    if type(limit) is not int or not 0 <= limit <= OUTPUT_MAX:
        raise exception.InvalidSpec(
            f'output limit {limit} is not in 0..{OUTPUT_MAX}')
    if type(data) is not bytes or len(data) > INPUT_MAX:
        raise exception.InvalidSpec(
            f'the input of a command is not {INPUT_MAX} bytes at most')
    with _session(container_id, wish, terminal=False) as session:
        return session.run(timeout, limit, data)


def interactive(container_id: str, command: command_spec.Command,
                terminal: bool) -> int:
    """Run a command on the caller's own standard input and output.

    For a caller that is root itself: descriptors do not cross the channel to
    the daemon.

    :param terminal: give the command a pseudo-terminal. The caller's input
        must be one; it is in raw mode meanwhile, and its size is passed on
    :returns: exit code, 128+N for signal N
    """
    with _session(container_id, command, terminal) as session:
        child = subprocess.Popen(session.argv, env=place.ENV, cwd='/')
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            code = child.wait()
        except BaseException:
            # The runtime gives the terminal back when its command ends.
            session.kill(child)
            child.terminate()
            child.wait()
            raise
        finally:
            signal.signal(signal.SIGINT, before)
        if not session.started(code):
            container.require_process(container_id)
            raise exception.ProcessInvalid(
                f'container {container_id}: {command.args[0]!r} could not be '
                'started')
        return code


class _Session:
    """One command: its files and its processes."""

    def __init__(self, container_id: str, path: str, user: int, group: int):
        self._id = container_id
        self._owner = user, group
        self._path = path
        self._pid_file = f'{path}.pid'
        self.argv = oci_runtime.command(
            'exec', '--process', path, '--pid-file', self._pid_file,
            container_id)

    def started(self, code: int) -> bool:
        """Whether the command was.

        Its files go with the container, which it may have ended: then its
        exit code tells, for the runtime itself has others.

        :param code: of the runtime
        """
        return (os.path.exists(self._pid_file)
                or 128 < code <= 128 + signal.NSIG
                or code == 0 and not os.path.exists(self._path))

    def run(self, timeout: float, limit: int,
            data: bytes) -> dict[str, typing.Any]:
        deadline = time.monotonic() + timeout
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(self._pipe()) for _ in range(2)]
            child = stack.enter_context(subprocess.Popen(
                self.argv, env=place.ENV, cwd='/', bufsize=0,
                stdin=subprocess.PIPE if data else subprocess.DEVNULL,
                stdout=streams[0][1], stderr=streams[1][1]))
            for _, end in streams:
                end.close()
            if data and child.stdin is not None:
                with contextlib.suppress(BrokenPipeError), child.stdin:
                    child.stdin.write(data)
            stack.callback(child.kill)
            ended, output = _collect(
                child, [stream for stream, _ in streams], deadline, limit)
            if not ended:
                self.kill(child)
        if ended and not self.started(child.returncode):
            raise self._failure(output[1][:limit].decode(errors='replace'))
        return {'exit_code': child.returncode if ended else None,
                'stdout': bytes(output[0][:limit]),
                'stderr': bytes(output[1][:limit]),
                'truncated': any(len(part) > limit for part in output)}

    @contextlib.contextmanager
    def _pipe(self) -> collections.abc.Iterator[
            tuple[typing.BinaryIO, typing.BinaryIO]]:
        """Whose user may open it again, as /dev/stdout; crun leaves that to
        its caller.
        """
        read, write = os.pipe()
        with open(read, 'rb', buffering=0) as output, \
                open(write, 'wb', buffering=0) as end:
            os.fchown(write, *self._owner)
            yield output, end

    def _failure(self, words: str) -> exception.ContainerError:
        if _NO_ROOM.search(words):
            return exception.StateConflict(
                f'container {self._id} has as many processes as it may have; '
                'no command can be run in it until some end')
        try:
            container.require_process(self._id)
        except exception.StateConflict as e:
            return e
        return oci_runtime.failure(self._id, oci_runtime.words(words), 'exec')

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        """SIGKILL for the command and every process of its session.

        The runtime tells whom it has started a little later, and what it
        starts goes on if it is killed before.
        """
        deadline = time.monotonic() + _END_TIMEOUT
        while (_leader(self._pid_file) is None and child.poll() is None
               and time.monotonic() < deadline):
            time.sleep(_START_PAUSE)
        _kill_session(self._id, self._pid_file)


def _collect(child: subprocess.Popen[bytes],
             streams: list[typing.BinaryIO], deadline: float,
             limit: int) -> tuple[bool, tuple[bytearray, bytearray]]:
    """Read until the child has ended; False when the time was up before.

    One byte more than ``limit`` is kept, which tells that there was more.
    """
    output = bytearray(), bytearray()
    pidfd = os.pidfd_open(child.pid)
    with selectors.DefaultSelector() as ready:
        for stream, kept in zip(streams, output):
            os.set_blocking(stream.fileno(), False)
            ready.register(stream, selectors.EVENT_READ, (stream, kept))
        ready.register(pidfd, selectors.EVENT_READ)
        try:
            ended = False
            while not ended:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False, output
                events = ready.select(left)
                for key, _ in events:
                    if key.fd == pidfd:
                        ended = True
                    elif not _read(key.data[0], key.data[1], limit):
                        ready.unregister(key.fileobj)
            for stream, kept in zip(streams, output):
                # What the command has left in the pipe, and no more: somebody
                # else may go on writing.
                left = _PIPE_MAX
                while left > 0 and (read := _read(stream, kept, limit)):
                    left -= read
            return True, output
        finally:
            os.close(pidfd)


def _read(stream: typing.BinaryIO, kept: bytearray, limit: int) -> int:
    """Take what is there, some bytes; 0 when there is nothing (more)."""
    chunk = stream.read(65536)
    if not chunk:
        return 0
    kept += chunk[:max(limit + 1 - len(kept), 0)]
    return len(chunk)


@contextlib.contextmanager
def _session(container_id: str, command: command_spec.Command,
             terminal: bool) -> collections.abc.Iterator['_Session']:
    """A command made ready to be run, and nothing left of it afterwards."""
    container.require_process(container_id)
    directory = place.container_run(container_id, 'exec')
    path = os.path.join(directory, uuid.uuid4().hex)
    config = configuration(container_id, command, terminal)
    with contextlib.ExitStack() as undo:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL
                         | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise exception.StateConflict(
                f'container {container_id} is not running')
        undo.callback(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        undo.callback(_remove, path)
        os.write(fd, json.dumps(config).encode())
        base = container.host_ids(container_id)[0]
        yield _Session(container_id, path, base + config['user']['uid'],
                       base + config['user']['gid'])


def _remove(path: str) -> None:
    for name in (path, f'{path}.pid'):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def configuration(container_id: str, command: command_spec.Command,
                  terminal: bool) -> dict[str, typing.Any]:
    """``process`` of the runtime specification, from the container's own.

    :raises StateConflict: the container does not run
    """
    spec = definition.load(container_id)
    whole = command.within(spec.process)
    try:
        with open(place.container_run(container_id, 'config.json')) as file:
            config = json.load(file)['process']
    except FileNotFoundError:
        raise exception.StateConflict(
            f'container {container_id} is not running')
    who = namespace.with_mounts(_resolve, container_id, whole.user)
    env = dict(item.split('=', 1) for item in config['env'])
    if command.user is not None and 'HOME' not in dict(spec.process.env):
        env['HOME'] = who.home
    if terminal:
        env['TERM'] = 'xterm'
    env.update(command.env)
    return {
        **config, 'terminal': terminal, 'args': list(whole.args),
        'cwd': whole.cwd,
        'env': [f'{name}={value}' for name, value in env.items()],
        'user': {'uid': who.uid, 'gid': who.gid,
                 'additionalGids': list(who.groups)},
    }


def _resolve(container_id: str, user: str) -> Identity:
    """By the root file system as we mounted it.

    What the tenant mounts over it inside, a FUSE file system that never
    answers for instance, is not seen here.
    """
    fd = os.open(place.container_run(container_id, 'rootfs'),
                 os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return identity.resolve(fd, user)
    finally:
        os.close(fd)


def _leader(pid_file: str) -> int | None:
    try:
        with open(pid_file) as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return None


def _kill_session(container_id: str, pid_file: str) -> None:
    leader = _leader(pid_file)
    if leader is None:
        return
    ended = session(container_id, leader)
    for found in ended:
        process.send_signal(found, signal.SIGKILL)
    # Together, for in a paused container none of them may end.
    deadline = time.monotonic() + _END_TIMEOUT
    for found in ended:
        process.wait(found, max(deadline - time.monotonic(), 0))


def session(container_id: str, leader: int) -> list[process.Process]:
    """A container's processes of the session that ``leader`` leads."""
    found = map(process.identify, cgroup.members(container_id))
    return [one for one in found
            if one is not None and process.session(one) == leader]


@context.entrypoint
def recover() -> None:
    """End the commands whose caller has died, in every container."""
    for container_id in os.listdir(place.run('c')):
        directory = place.container_run(container_id, 'exec')
        for name in _listed(directory):
            path = os.path.join(directory, name)
            if not name.endswith('.pid') and not _held(path):
                with recovery.of(container_id):
                    _kill_session(container_id, f'{path}.pid')
                    _remove(path)


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _held(path: str) -> bool:
    try:
        with open(path, 'rb') as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False
