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

"""The OCI runtime and conmon as commands.

Command lines: runc(8) and crun(1); conmon(8). conmon's start and sync pipes
are those podman uses.
"""

import contextlib
import functools
import json
import os
import re
import select
import shutil
import subprocess
import typing

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import console_log
from nova_container.privileged import definition
from nova_container.privileged import place
from nova_container.privileged import process
from nova_container.privileged import systemd

# A runtime that has not answered by then hangs.
_CREATE_TIMEOUT = 120
_COMMAND_TIMEOUT = 60

# What runc and crun say when the tenant's process cannot be started.
_PROCESS_ERRORS = tuple(re.compile(pattern) for pattern in (
    r'exec: "?[^"]*"?: executable file not found',
    r'executable file `[^`]*` not found',
    r'the path `[^`]*` (exists but it is not executable|is not a (regular file'
    r'|directory))',
    r'exec container process (\([^)]*\) )?`',
    r'chdir to `[^`]*`: ',
    r'exec: "?[^"]*"?: (stat .*)?(no such file or directory|permission denied'
    r'|is a directory)',
    r'open executable: ',
    r'chdir to cwd \("[^"]*"\)[^:]*: .*',
    r'exec format error',
    r'mkdir [^:]*: (not a directory|file exists)',
    r'[Ff]ile name too long',
))

_RUNTIMES = ('runc', 'crun')

# Characters of each end of the runtime's words: what it is about, and why.
_END = 60


@functools.cache
def runtime() -> str:
    """Path of the OCI runtime ([container] oci_runtime)."""
    wish = place.CONF.container.oci_runtime
    if wish == 'auto':
        wish = 'runc'
        if cgroup.unified() and shutil.which('crun', path=place.ENV['PATH']):
            wish = 'crun'
    return place.program(wish, 'oci_runtime', 'runc')


def conmon() -> str:
    """Path of the container monitor ([container] conmon)."""
    return place.program(place.CONF.container.conmon, 'conmon', 'conmon')


def command(*args: str) -> list[str]:
    """The runtime's command line, with our root of its state."""
    return [runtime(), '--root', place.run('oci'), *_manager(), *args]


def _manager() -> list[str]:
    """The option that runc, crun and conmon all have."""
    return ['--systemd-cgroup'] if systemd.manages() else []


def call(*args: str) -> None:
    """Run a command of the runtime to its end.

    :raises RuntimeFailed: with the runtime's own words
    """
    done = subprocess.run(command(*args), capture_output=True, text=True,
                          env=place.ENV, stdin=subprocess.DEVNULL,
                          timeout=_COMMAND_TIMEOUT, errors='replace')
    if done.returncode:
        raise exception.RuntimeFailed(
            f'{os.path.basename(runtime())} {" ".join(args)} failed: '
            f'{words(done.stderr)}')


def words(text: str) -> str:
    """The last message of the runtime's log lines."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return 'no message'
    for line in reversed(lines):
        match = re.search(r'msg="?(.*?)"?$', line)
        if match and 'level=error' in line:
            return match.group(1).replace('\\"', '"')
    return lines[-1]


def failure(container_id: str, words: str,
            verb: str = 'create') -> exception.ContainerError:
    """The error for a process that could not be created or started."""
    if any(pattern.search(words) for pattern in _PROCESS_ERRORS):
        _, _, short = words.rpartition('container process: ')
        if len(short) > 2 * _END:
            short = f'{short[:_END]}...{short[-_END:]}'
        return exception.ProcessInvalid(
            f'cannot start the process: {short}; correct the image or the '
            'server properties container:*')
    return exception.RuntimeFailed(
        f'container {container_id}: {os.path.basename(runtime())} {verb} '
        f'failed: {words}')


def create(container_id: str, config: dict[str, typing.Any],
           terminal: bool) -> tuple[int, int]:
    """Start conmon, and through it the runtime's ``create``.

    The process of the container is held until ``start``. To be called where
    the container's mounts are, which is where conmon stays.

    :param config: what config.json is to have
    :param terminal: whether it asks for one
    :returns: process ids of the container's first process and of conmon
    :raises ProcessInvalid: the tenant's command cannot be started
    :raises RuntimeFailed: anything else that the runtime refuses
    """
    run_dir = place.container_run(container_id)
    args = [
        '-l', 'k8s-file:' + place.container_state(container_id, 'log'),
        '--log-size-max', str(console_log.file_size()),
        '--exit-dir', place.run('exits'),
    ]
    if terminal:
        args += ['-t', '-i', '--leave-stdin-open']
    pid = _monitored(container_id, os.path.join(run_dir, 'config.json'),
                     config, args)
    with open(os.path.join(run_dir, 'conmon.pid')) as file:
        return pid, int(file.read())


def execute(container_id: str, directory: str,
            wish: dict[str, typing.Any]) -> None:
    """Start conmon, and through it a command on a terminal of its own.

    Of the command, ``directory`` gets the process id (``pid``) and the
    sockets of its terminal (``attach``, ``ctl``).

    :param wish: what to start, as ``process`` of config.json
    :raises ProcessInvalid: the command cannot be started
    :raises RuntimeFailed: anything else that the runtime refuses
    """
    path = os.path.join(directory, 'process.json')
    _monitored(container_id, path, wish, [
        '-e', '--exec-process-spec', path,
        '-l', 'none', '-t', '-i', '--leave-stdin-open'], 'exec')


def helpers(directory: str) -> set[process.Process]:
    """Every conmon and runtime at work for what runs from a directory.

    Also where neither has a control group of ours yet, and by name: one may be
    uninstalled.
    """
    below = os.path.join(directory, '')
    names = {os.path.basename(name) for name in (
        *_RUNTIMES, place.CONF.container.oci_runtime,
        place.CONF.container.conmon)}
    found = set()
    # Twice: a look may come too late for who has just made a child, and too
    # early for that.
    for _ in range(2):
        for pid in filter(str.isdigit, os.listdir('/proc')):
            with contextlib.suppress(OSError):
                # The words of a tenant's process may be in memory that takes
                # for ever to read; it has no user id of ours.
                if os.stat(f'/proc/{pid}').st_uid != os.geteuid():
                    continue
                with open(f'/proc/{pid}/cmdline', 'rb') as file:
                    words = os.fsdecode(file.read()).split('\0')
                if os.path.basename(words[0]) in names and any(
                        os.path.join(word, '').startswith(below)
                        for word in words[1:]):
                    found.add(process.identify(int(pid)))
    return {each for each in found if each is not None}


def _monitored(container_id: str, path: str, document: dict[str, typing.Any],
               more: list[str], verb: str = 'create') -> int:
    """Start conmon, which gets a control group of its own and no descriptor
    but its pipes, and outlives us.

    It waits for a byte, or for our end, before it calls the runtime. That
    finds nothing to do until ``path`` is there, and then conmon is where it is
    looked for.

    :param path: of what the runtime is to do; the directory is where conmon
        keeps its sockets and process ids
    :param verb: of the runtime
    :returns: id of the process that was started
    """
    directory = os.path.dirname(path)
    content = json.dumps(document)
    args = [
        conmon(), '--api-version', '1', '-c', container_id, '-u', container_id,
        '-n', container_id, '-r', runtime(),
        '--runtime-arg', '--root', '--runtime-arg', place.run('oci'),
        '-b', directory, '-p', os.path.join(directory, 'pid'),
        '-P', os.path.join(directory, 'conmon.pid'),
        '--socket-dir-path', directory, '--full-attach',
        '--log-level', 'warn', *_manager(), *more,
    ]
    sync_read, sync_write = os.pipe()
    start_read, start_write = os.pipe()
    env = {**place.ENV, '_OCI_SYNCPIPE': str(sync_write),
           '_OCI_STARTPIPE': str(start_read)}
    log_path = os.path.join(directory, 'conmon.log')
    with open(sync_read, 'rb', buffering=0) as sync:
        with contextlib.ExitStack() as start:
            start.callback(os.close, start_write)
            with contextlib.ExitStack() as given:
                given.callback(os.close, sync_write)
                given.callback(os.close, start_read)
                log = given.enter_context(open(log_path, 'wb'))
                monitor = subprocess.Popen(
                    args, env=env, cwd=directory, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True,
                    pass_fds=(sync_write, start_read))
            with contextlib.ExitStack() as undo:
                undo.callback(monitor.wait)
                undo.callback(monitor.kill)
                cgroup.adopt_monitor(monitor.pid)
                definition.write(path, content, 0o600)
                undo.pop_all()
            # What has ended before it began has said why.
            with contextlib.suppress(BrokenPipeError):
                os.write(start_write, b'\n')
        answer = _read_answer(sync, container_id)
        monitor.wait(_COMMAND_TIMEOUT)
    if answer.get('data', -1) < 0:
        with open(log_path, errors='replace') as log_file:
            said = str(answer.get('message') or log_file.read())
        raise failure(container_id, words(said), verb)
    return answer['data']


def _read_answer(sync: typing.BinaryIO,
                 container_id: str) -> dict[str, typing.Any]:
    """conmon's one line: {"data": pid} or {"data": -1, "message": words}."""
    data = b''
    poll = select.poll()
    poll.register(sync, select.POLLIN)
    while not data.endswith(b'\n'):
        if not poll.poll(_CREATE_TIMEOUT * 1000):
            raise exception.RuntimeFailed(
                f'container {container_id}: conmon did not answer within '
                f'{_CREATE_TIMEOUT} s')
        chunk = sync.read(65536)
        if not chunk:
            break
        data += chunk
    try:
        answer = json.loads(data or b'{}')
    except ValueError:
        answer = {'message': data.decode(errors='replace')}
    return answer if isinstance(answer, dict) else {}
