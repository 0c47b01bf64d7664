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

"""Processes of a container held still for a while.

Who holds them may be killed: a mark in the run directory tells that nobody has
asked for a pause, and ``host.recover`` lets them go.
"""

from collections.abc import Iterator
import contextlib
import os
import time

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import oci_runtime
from nova_container.privileged import place

# Seconds, and what runc says each time that it gives up.
_FREEZE_TIMEOUT = 30
_UNFROZEN = 'unable to freeze'


def _mark(container_id: str) -> str:
    return place.container_run(container_id, 'held')


@contextlib.contextmanager
def held(container_id: str) -> Iterator[None]:
    """Hold the processes of a container, if it has any that run.

    To be entered under the container's lock.
    """
    if not runs(container_id):
        yield
        return
    try:
        hold(container_id)
        yield
    finally:
        let_go(container_id)


def runs(container_id: str) -> bool:
    """Whether a container has processes that nothing holds still."""
    return (os.path.exists(place.container_run(container_id, 'started'))
            and bool(cgroup.members(container_id))
            and not cgroup.frozen(container_id))


def hold(container_id: str) -> None:
    """Hold the processes of a container that ``runs``, until ``let_go``."""
    with open(_mark(container_id), 'w'):
        pass
    try:
        freeze(container_id)
    except exception.RuntimeFailed:
        # What has just ended is still enough.
        if cgroup.members(container_id):
            raise


def freeze(container_id: str) -> None:
    """Hold the processes of a container still until they are resumed.

    With cgroup version 1 runc tries for a fraction of a second, in which a
    process of a loaded host may not have run at all.

    :raises RuntimeFailed: they do not run, or not all could be held
    """
    deadline = time.monotonic() + _FREEZE_TIMEOUT
    while True:
        try:
            oci_runtime.call('pause', container_id)
            return
        except exception.RuntimeFailed as e:
            if (_UNFROZEN not in e.message
                    or time.monotonic() > deadline):
                raise


def let_go(container_id: str) -> bool:
    """Undo ``hold``; False if nothing is held."""
    if not os.path.exists(_mark(container_id)):
        return False
    if cgroup.frozen(container_id):
        oci_runtime.call('resume', container_id)
    return forget(container_id)


def forget(container_id: str) -> bool:
    """Leave what is held to who pauses or thaws it; False if nothing is."""
    try:
        os.unlink(_mark(container_id))
    except FileNotFoundError:
        return False
    return True
