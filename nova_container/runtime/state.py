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

"""What is known of a container without being root and without a process.

The directories are those of ``privileged.place``. Secrets (command,
environment) are not readable here.
"""

import dataclasses
import enum
import json
import os
import typing

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import health
from nova_container.privileged import place
from nova_container.privileged import process as processes
from nova_container.spec import codec
from nova_container.spec import policy as policies
from nova_container.spec import signals


# More than the files that are read here have, as a rule.
_PIECE = 1 << 14


class Status(enum.Enum):
    """States of the OCI runtime specification, and three of the freezer.

    HELD is for a while, and nobody asked for it: a snapshot is taken.
    """

    CREATED = 'created'
    RUNNING = 'running'
    PAUSED = 'paused'
    SUSPENDED = 'suspended'
    HELD = 'held'
    STOPPED = 'stopped'


@dataclasses.dataclass(frozen=True)
class State:
    """A container as it is now.

    :param process: its first process; None when stopped
    :param monitor: its conmon, while it runs
    :param exit_code: 0..255, 128+N for signal N; None while it runs, before
        its first start, and when the monitor was killed
    :param oom: whether the kernel ended a process for want of memory; not
        told while it runs, see ``stats``
    :param health: ``spec.health``'s words; None without a check, or stopped
    :param restarts: how many starts in a row its restart policy has caused
    """

    status: Status
    process: processes.Process | None = None
    monitor: processes.Process | None = None
    exit_code: int | None = None
    oom: bool = False
    health: str | None = None
    restarts: int = 0

    @property
    def reason(self) -> str:
        """Why the process has ended, in a few words."""
        if self.oom:
            return 'out of memory'
        if self.exit_code is None:
            return 'unknown: the monitor was killed'
        if 128 < self.exit_code <= 128 + 64:
            return f'ended by {signals.name(self.exit_code - 128)}'
        return f'exited with code {self.exit_code}'


def ids() -> list[str]:
    """Ids of the containers defined on this host."""
    try:
        return sorted(os.listdir(place.state('containers')))
    except FileNotFoundError:
        return []


def exists(container_id: str) -> bool:
    """Whether the container is defined on this host."""
    return os.path.isdir(place.container_state(container_id))


def read(container_id: str) -> State:
    """The state of a container, from a few small files.

    :raises ContainerNotFound: it is not defined on this host
    """
    run_dir = place.container_run(container_id)
    running = _json(f'{run_dir}/run.json')
    if running is not None:
        init = processes.Process(running['pid'], running['pid_started'])
        monitor: processes.Process | None = processes.Process(
            running['monitor'], running['monitor_started'])
        restarts = running.get('restarts', 0)
        if processes.alive(init):
            if not os.path.exists(f'{run_dir}/started'):
                status = Status.CREATED
            elif cgroup.frozen(container_id):
                status = _frozen(run_dir)
            else:
                status = Status.RUNNING
            return State(status, init, monitor,
                         health=_health(container_id), restarts=restarts)
        if monitor and not processes.alive(monitor):
            monitor = None
        code = _exit_code(container_id)
        oom = cgroup.oom_kills(container_id) > 0
        # Who halts it meanwhile has moved these to the persistent directory.
        ended = _json(place.container_state(container_id, 'exit.json')) or {}
        return State(Status.STOPPED, None, monitor,
                     ended.get('code') if code is None else code,
                     oom or ended.get('oom', False), restarts=restarts)
    if not exists(container_id):
        raise exception.ContainerNotFound(
            f'container {container_id} is not defined on this host')
    ended = _json(place.container_state(container_id, 'exit.json')) or {}
    return State(Status.STOPPED, exit_code=ended.get('code'),
                 oom=ended.get('oom', False))


def _frozen(run_dir: str) -> Status:
    for name, status in (('suspended', Status.SUSPENDED),
                         ('held', Status.HELD)):
        if os.path.exists(f'{run_dir}/{name}'):
            return status
    return Status.PAUSED


def all_parked() -> list[str]:
    """Ids of the containers that were set aside on this host."""
    try:
        return sorted(os.listdir(place.state('parked')))
    except FileNotFoundError:
        return []


def parked(container_id: str) -> bool:
    """Whether a container was set aside on this host when it moved."""
    return os.path.isdir(place.parked(container_id))


def rescued(container_id: str) -> bool:
    """Whether the container starts a rescue system."""
    return os.path.exists(place.container_state(container_id, 'rescue.json'))


def policy(container_id: str) -> policies.Policy:
    """What its spec says about restarts and health.

    :raises ContainerNotFound: it is not defined on this host
    """
    found = _json(place.container_state(container_id, 'policy.json'))
    if found is None:
        if not exists(container_id):
            raise exception.ContainerNotFound(
                f'container {container_id} is not defined on this host')
        return policies.Policy()
    return codec.decode(policies.Policy, found)


def _health(container_id: str) -> str | None:
    # Not all of the policy is read: most containers have no check.
    found = _json(place.container_state(container_id, 'policy.json')) or {}
    if found.get('health') is None:
        return None
    return health.read(container_id).status


def due(container_id: str) -> int | None:
    """Which start in a row was to follow when the service was killed.

    None while the container has a run directory.
    """
    if os.path.exists(place.container_run(container_id)):
        return None
    ended = _json(place.container_state(container_id, 'exit.json')) or {}
    return ended.get('due')


def _json(path: str) -> dict[str, typing.Any] | None:
    # Without a file object, which takes as long as all the rest: all the
    # containers of a host are listed often.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        text = piece = os.read(fd, _PIECE)
        while len(piece) == _PIECE:
            piece = os.read(fd, _PIECE)
            text += piece
    finally:
        os.close(fd)
    return json.loads(text)


def _exit_code(container_id: str) -> int | None:
    try:
        with open(place.exit_file(container_id)) as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return None


def ended_unattended(container_id: str) -> bool:
    """Whether the process has ended and nobody halts the container."""
    if not os.path.exists(place.container_run(container_id, 'run.json')) or \
            os.path.exists(place.container_run(container_id, 'halting')):
        return False
    try:
        return read(container_id).status is Status.STOPPED
    except exception.ContainerNotFound:
        return False
