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

"""A defined container, as root: whose ids it has, and its processes.

A container is *defined* (``defining``: its directory, ids and writable layer
exist, also over a reboot) or not, and a defined one may *run* (``creation``):
then it has a run directory, a mounted root file system, a monitor and a
process, held until ``start``. ``ending`` goes the way back.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import time
import typing

from nova_container import exception
from nova_container.oci import runtime_config
from nova_container.privileged import block
from nova_container.privileged import cgroup
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import freezer
from nova_container.privileged import namespace
from nova_container.privileged import oci_runtime
from nova_container.privileged import place
from nova_container.privileged import process
from nova_container.spec import codec
from nova_container.spec import container as container_spec
from nova_container.spec import idmap
from nova_container.spec import limits as limits_
from nova_container.spec import signals


def limits(container_id: str) -> limits_.Limits:
    """What a container may use at most.

    :raises ContainerNotFound: it is not defined
    """
    return definition.load(container_id).limits


def host_ids(container_id: str) -> tuple[int, int]:
    """First and last host user and group id of a defined container."""
    first = place.ids().base(definition.slot(container_id))
    return first, first + idmap.RANGE_SIZE - 1


def id_map(container_id: str) -> idmap.IdMap:
    """The user namespace of a defined container."""
    return place.ids().container(definition.slot(container_id))


def require_halted(container_id: str) -> None:
    """
    :raises StateConflict: it runs
    """
    if os.path.exists(place.container_run(container_id)):
        raise exception.StateConflict(
            f'container {container_id} runs; halt it first')


def _running(container_id: str) -> dict[str, int] | None:
    try:
        with open(place.container_run(container_id, 'run.json')) as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def find_process(container_id: str,
                 kind: str = 'pid') -> process.Process | None:
    """The first process, or the ``monitor``; it may have ended."""
    running = _running(container_id)
    if running is None:
        return None
    return process.Process(running[kind], running[f'{kind}_started'])


def init(container_id: str) -> process.Process | None:
    """The container's first process, be it held or running; None if none is.
    """
    found = find_process(container_id)
    return found if found is not None and process.alive(found) else None


def runs(container_id: str) -> bool:
    """Whether its first process is there, be it held or running."""
    return init(container_id) is not None


def monitor(container_id: str) -> process.Process | None:
    """The container's monitor; None if none runs."""
    found = find_process(container_id, 'monitor')
    return found if found is not None and process.alive(found) else None


def require_process(container_id: str) -> process.Process:
    """The first process of a container that is created or runs.

    :raises StateConflict: it does not run
    """
    found = init(container_id)
    if found is None:
        raise exception.StateConflict(f'container {container_id} is not '
                                      'running')
    return found


def check_allowed(spec: container_spec.ContainerSpec) -> None:
    """
    :raises HostUnsupported: the operator does not want it on this host
    """
    for name in ('privileged', 'nesting'):
        if getattr(spec, name) and not getattr(place.CONF.container,
                                               f'{name}_allowed'):
            raise exception.HostUnsupported(
                f'container {spec.id}: the flavor asks for container:{name}, '
                f'which this host does not allow; set [container] '
                f'{name}_allowed there, or choose another flavor')


@context.entrypoint
def start(container_id: str) -> None:
    """Let the created process go.

    :raises StateConflict: it is not created
    :raises ProcessInvalid: the tenant's command cannot be started
    """
    with definition.locked(container_id):
        require_process(container_id)
        try:
            oci_runtime.call('start', container_id)
        except exception.RuntimeFailed as e:
            raise oci_runtime.failure(container_id, e.message)
        definition.write(place.container_run(container_id, 'started'),
                         str(time.clock_gettime(time.CLOCK_BOOTTIME)), 0o644)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.container_state(container_id, 'exit.json'))


def uptime(container_id: str) -> float:
    """Seconds since its process was let go, however the clock was set since.

    :raises FileNotFoundError: it was not
    """
    path = place.container_run(container_id, 'started')
    with open(path) as file:
        started = file.read()
    if not started:
        # By a version that notes nothing in it.
        return time.time() - os.stat(path).st_mtime
    return time.clock_gettime(time.CLOCK_BOOTTIME) - float(started)


@context.entrypoint
def kill(container_id: str, signal: int) -> bool:
    """Send ``signal`` to the first process; False when it is gone."""
    if not 1 <= signal <= 64:
        raise exception.InvalidSpec(f'signal {signal} is not in 1..64')
    found = find_process(container_id)
    return found is not None and process.send_signal(found, signal)


def mark_halting(container_id: str, due: int | None = None) -> None:
    """So that its end is not taken for one of its own accord."""
    definition.write(place.container_run(container_id, 'halting'),
                     str(due or ''), 0o644)


@context.entrypoint
def terminate(container_id: str) -> bool:
    """Send the container's own stop signal; False when it is gone.

    What ends from now on was asked to, and ``recover`` takes it down.
    """
    with definition.locked(container_id):
        if os.path.exists(place.container_run(container_id)):
            mark_halting(container_id)
    name = definition.load(container_id).process.stop_signal
    return kill(container_id, signals.number(name))


@context.entrypoint
def update(container_id: str, wish: dict[str, typing.Any]) -> None:
    """Give a container other limits, at once if it runs.

    The number of open files holds from the next start. Bandwidth is
    ``link.shape``'s.

    :param wish: encoded Limits
    :raises RuntimeFailed: the kernel refused; the limits are as before
    """
    checked = codec.decode(limits_.Limits, wish)
    with definition.locked(container_id), contextlib.ExitStack() as undo:
        before = definition.load_own(container_id)
        after = dataclasses.replace(before, limits=checked)
        found = find_process(container_id)
        if found is not None and process.alive(found):
            undo.callback(_apply_limits, before)
            _apply_limits(after)
        definition.write(place.container_state(container_id, 'spec.json'),
                         json.dumps(codec.encode(after)), 0o600)
        undo.pop_all()


def _apply_limits(spec: container_spec.ContainerSpec) -> None:
    path = place.container_run(spec.id, 'resources.json')
    with open('/sys/devices/system/cpu/online') as online:
        processors = online.read().strip()
    definition.write(path, json.dumps(runtime_config.changed_resources(
        spec.limits, processors)), 0o600)
    oci_runtime.call('update', '--resources', path, spec.id)
    namespace.with_mounts(
        lambda: block.throttle(spec.id, disk.places(spec.id), spec.limits))


@context.entrypoint
def pause(container_id: str) -> None:
    """Freeze every process (cgroup freezer)."""
    with definition.locked(container_id):
        require_process(container_id)
        _freeze(container_id)


def _freeze(container_id: str) -> None:
    """What is held still stays so, from now on because somebody asked."""
    if not (freezer.forget(container_id) and cgroup.frozen(container_id)):
        freezer.freeze(container_id)


@context.entrypoint
def suspend(container_id: str) -> None:
    """Freeze every process, and give back what memory the kernel takes."""
    with definition.locked(container_id):
        require_process(container_id)
        # First, so that what is frozen is never taken for paused.
        pathlib.Path(place.container_run(container_id, 'suspended')).touch()
        _freeze(container_id)
        cgroup.reclaim(container_id)


@context.entrypoint
def resume(container_id: str) -> None:
    """Thaw a container; succeeds if it is not frozen."""
    with definition.locked(container_id):
        require_process(container_id)
        if cgroup.frozen(container_id):
            oci_runtime.call('resume', container_id)
        freezer.forget(container_id)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.container_run(container_id, 'suspended'))
