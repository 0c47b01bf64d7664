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

"""The shell on a container's console, where its own process has no terminal.

One for each container, with a terminal and a monitor of its own, like the
container's process: below ``<run_path>/c/<id>/shell``, ``attach`` and ``ctl``
belong to the service's user. It has the rights, the user and the environment
of the container's own process. Halting the container ends it.
"""

import contextlib
import os
import shutil
import signal

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.privileged import creation
from nova_container.privileged import definition
from nova_container.privileged import execution
from nova_container.privileged import linux
from nova_container.privileged import namespace
from nova_container.privileged import oci_runtime
from nova_container.privileged import place
from nova_container.privileged import process
from nova_container.privileged import recovery
from nova_container.spec import command

# The first that the image has.
_SHELLS = ('bin/bash', 'bin/sh')

# A shell that does not take a hangup is killed after so many seconds.
_HANGUP_TIMEOUT = 5
_KILL_TIMEOUT = 10

_DIRECTORY = 'shell'


@context.entrypoint
def open_shell(container_id: str) -> bool:
    """Start a shell in a running container, unless one runs.

    :returns: False if one was there
    :raises ProcessInvalid: the image has no shell
    :raises StateConflict: the container does not run
    """
    with definition.locked(container_id), contextlib.ExitStack() as undo:
        container.require_process(container_id)
        if _leader(container_id) is not None:
            return False
        _close(container_id)
        path = namespace.with_mounts(_find, container_id)
        directory = place.container_run(container_id, _DIRECTORY)
        os.mkdir(directory, 0o711)
        undo.callback(_close, container_id)
        oci_runtime.execute(container_id, directory, execution.configuration(
            container_id, command.Command((path,)), terminal=True))
        creation.give_console(directory)
        undo.pop_all()
        return True


def _find(container_id: str) -> str:
    rootfs = os.open(place.container_run(container_id, 'rootfs'),
                     os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in _SHELLS:
            with contextlib.suppress(OSError):
                os.close(linux.openat2(
                    rootfs, path, os.O_PATH, linux.RESOLVE_IN_ROOT
                    | linux.RESOLVE_NO_MAGICLINKS))
                return f'/{path}'
    finally:
        os.close(rootfs)
    raise exception.ProcessInvalid(
        f'container {container_id}: the image has none of the shells '
        + ' and '.join(f'/{path}' for path in _SHELLS))


def _process(container_id: str, name: str) -> process.Process | None:
    try:
        with open(place.container_run(container_id, _DIRECTORY,
                                      name)) as file:
            return process.identify(int(file.read()))
    except (FileNotFoundError, ValueError):
        return None


def _leader(container_id: str) -> process.Process | None:
    """The shell itself, unless another has got its id."""
    found = _process(container_id, 'pid')
    if found is None or found.pid not in cgroup.members(container_id):
        return None
    return found


def _monitor(container_id: str) -> process.Process | None:
    found = _process(container_id, 'conmon.pid')
    if found is None or found.pid not in cgroup.monitors():
        return None
    return found


@context.entrypoint
def close_shell(container_id: str) -> None:
    """Hang up on a container's shell, if it has one."""
    with contextlib.suppress(exception.ContainerNotFound), \
            definition.locked(container_id):
        _close(container_id)


def _close(container_id: str) -> None:
    directory = place.container_run(container_id, _DIRECTORY)
    if not os.path.isdir(directory):
        return
    leader = _leader(container_id)
    if leader is not None:
        for found in execution.session(container_id, leader.pid):
            process.send_signal(found, signal.SIGHUP)
            process.send_signal(found, signal.SIGCONT)
        if not process.wait(leader, _HANGUP_TIMEOUT):
            process.send_signal(leader, signal.SIGKILL)
            process.wait(leader, _KILL_TIMEOUT)
    monitor = _monitor(container_id)
    if monitor is not None and not process.wait(monitor, _KILL_TIMEOUT):
        process.send_signal(monitor, signal.SIGKILL)
        process.wait(monitor, _KILL_TIMEOUT)
    shutil.rmtree(directory)


@context.entrypoint
def recover() -> None:
    """End the shells of a service that was killed, in every container."""
    for container_id in os.listdir(place.run('c')):
        with recovery.of(container_id), \
                contextlib.suppress(exception.ContainerNotFound), \
                definition.locked(container_id):
            directory = place.container_run(container_id, _DIRECTORY)
            if os.path.isdir(directory) and _monitor(container_id) is None:
                # It may have none yet.
                process.end_all(lambda: oci_runtime.helpers(directory),
                                _KILL_TIMEOUT)
            _close(container_id)
