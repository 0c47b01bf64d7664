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

"""Halt and undefine, as root.

Both are idempotent in the direction of less: halting what does not run and
undefining what is not there succeed.
"""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import time
import typing
import uuid

from nova_container import exception
from nova_container.privileged import block
from nova_container.privileged import cgroup
from nova_container.privileged import console_log
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import linux
from nova_container.privileged import namespace
from nova_container.privileged import oci_runtime
from nova_container.privileged import place
from nova_container.privileged import process

# A killed process that is still there by then sits in the kernel.
_KILL_TIMEOUT = 30
_MONITOR_TIMEOUT = 10


@context.entrypoint
def halt(container_id: str, restarts: int | None = None) -> None:
    """End what runs and remove everything that exists only while it runs.

    The definition and the writable layer stay. Succeeds when nothing runs.

    :param restarts: the start in a row that is to follow at once; should it
        not come to that, ``exit.json`` tells that it is due
    """
    if restarts is not None and (type(restarts) is not int or restarts < 1):
        raise exception.InvalidSpec(f'restarts {restarts!r} is not a number '
                                    'of starts')
    try:
        with definition.locked(container_id):
            end(container_id, restarts)
            if restarts is None:
                _forget_due(container_id)
    except exception.ContainerNotFound:
        end(container_id)


def end(container_id: str, due: int | None = None) -> None:
    """What ``halt`` does, for who has the container locked."""
    run_dir = place.container_run(container_id)
    if not os.path.exists(run_dir):
        return
    container.mark_halting(container_id, due)
    namespace.with_mounts(
        lambda: block.release(container_id, disk.places(container_id)))
    for kind, timeout in (('pid', _KILL_TIMEOUT),
                          ('monitor', _MONITOR_TIMEOUT)):
        found = container.find_process(container_id, kind)
        if kind == 'pid' and found is not None:
            process.send_signal(found, 9)
            _thaw(container_id)
        if found is not None and not process.wait(found, timeout):
            if kind == 'pid':
                raise exception.StateConflict(
                    f'container {container_id}: process {found.pid} did not '
                    f'end within {timeout} s of SIGKILL; look for a file '
                    'system that hangs')
            process.send_signal(found, 9)
            process.wait(found, timeout)
    _record_exit(container_id, due)
    console_log.keep(container_id)
    block.lift(container_id)
    if not os.path.exists(place.container_run(container_id, 'run.json')):
        # The runtime may be about to write its state.
        process.end_all(lambda: _unknown(container_id)
                        | oci_runtime.helpers(run_dir), _KILL_TIMEOUT)
    if os.path.exists(place.run('oci', container_id)):
        oci_runtime.call('delete', '--force', container_id)
    _empty_cgroup(container_id)
    namespace.with_mounts(_unmount_below, run_dir)
    # A command that begins or ends meanwhile shall neither have a file to
    # remove nor a place to make one.
    with contextlib.suppress(FileNotFoundError):
        os.rename(os.path.join(run_dir, 'exec'),
                  os.path.join(run_dir, 'exec.gone'))
    # The mounts are not visible here, so this cannot reach into them; and
    # no tenant can make anything here, deep directories least of all.
    shutil.rmtree(run_dir)


def _thaw(container_id: str) -> None:
    """A frozen process does not take even SIGKILL on cgroup v1."""
    cgroup.write(f'{cgroup.ROOT}/freezer{place.cgroup(container_id)}'
                 '/freezer.state', 'THAWED')


def _empty_cgroup(container_id: str) -> None:
    """End whatever is left in the control group and remove it.

    A command that was being started in the container may arrive late.
    """
    deadline = time.monotonic() + _KILL_TIMEOUT
    while True:
        process.end_all(lambda: _unknown(container_id), _KILL_TIMEOUT)
        try:
            cgroup.remove(container_id)
            return
        except OSError as e:
            if e.errno != errno.EBUSY or time.monotonic() > deadline:
                raise


def _unknown(container_id: str) -> set[process.Process]:
    """The helpers and the monitor of a start that was killed half way.

    No run.json names them. One that is not ended yet may start another.
    """
    pids = cgroup.members(container_id)
    for pid in cgroup.monitors():
        with contextlib.suppress(OSError):
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                words = file.read().split(b'\0')
            if container_id.encode() in words:
                pids.add(pid)
    return {found for found in map(process.identify, pids)
            if found is not None}


def _unmount_below(run_dir: str) -> None:
    targets = [line.split()[4] for line in open('/proc/thread-self/mountinfo')]
    for target in reversed(targets):
        if f'{target}/'.startswith(f'{run_dir}/'):
            linux.umount(target)


def _record_exit(container_id: str, due: int | None) -> None:
    """Keep how the process ended beyond the run directory.

    Of a start that came to nothing, nothing is kept.
    """
    path = place.exit_file(container_id)
    if os.path.exists(place.container_run(container_id, 'started')) and \
            os.path.isdir(place.container_state(container_id)):
        kills = cgroup.oom_kills(container_id)
        ended: dict[str, typing.Any] = {
            'time': time.time(), 'oom_kills': kills, 'oom': kills > 0}
        if due is not None:
            ended['due'] = due
        try:
            with open(path) as file:
                ended['code'] = int(file.read())
        except (FileNotFoundError, ValueError):
            ended['code'] = None
        definition.write(place.container_state(container_id, 'exit.json'),
                         json.dumps(ended), 0o644)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _forget_due(container_id: str) -> None:
    """No start is to follow any more."""
    path = place.container_state(container_id, 'exit.json')
    try:
        with open(path) as file:
            ended = json.load(file)
    except FileNotFoundError:
        return
    if ended.pop('due', None) is not None:
        definition.write(path, json.dumps(ended), 0o644)


@context.entrypoint
def undefine(container_id: str) -> None:
    """Halt a container and remove all of it. Succeeds when it is not there."""
    try:
        with definition.locked(container_id):
            end(container_id)
            remove(container_id)
    except exception.ContainerNotFound:
        end(container_id)


def remove(container_id: str) -> None:
    """Drop the definition of a halted container, its disks and its ids."""
    path = place.container_state(container_id)
    trash = place.state('trash', f'{container_id}.{uuid.uuid4().hex}')
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, trash)
        empty_trash(os.path.basename(trash))


def empty_trash(name: str) -> None:
    """Remove a container's files, then give its ids back.

    No file of one container may be there when another gets the ids.
    """
    path = place.state('trash', name)
    try:
        slot = os.readlink(os.path.join(path, 'slot'))
    except FileNotFoundError:
        slot = None
    # The link goes last, with the directory.
    _remove_trees(*(entry.path for entry in os.scandir(path)
                    if entry.name != 'slot'))
    if slot is not None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.state('ids', slot))
    shutil.rmtree(path)


def _remove_trees(*paths: str) -> None:
    """Remove directories, however deep a tenant has made them.

    :raises StateConflict: with rm's own words
    """
    done = subprocess.run(['rm', '-rf', '--one-file-system', '--', *paths],
                          env=place.ENV, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, errors='replace')
    if done.returncode:
        raise exception.StateConflict(
            f'removing files failed: {oci_runtime.words(done.stderr)}')
