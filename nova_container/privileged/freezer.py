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

Who holds them may be killed: a mark in the run directory tells ``recover``
to let them go, as nobody has asked for a pause.
"""

from collections.abc import Iterator
import contextlib
import os

from nova_container.privileged import cgroup
from nova_container.privileged import oci_runtime
from nova_container.privileged import place


def _mark(container_id: str) -> str:
    return place.container_run(container_id, 'held')


@contextlib.contextmanager
def held(container_id: str) -> Iterator[None]:
    """Hold the processes of a container, if it has any that run.

    To be entered under the container's lock.
    """
    if (not os.path.exists(place.container_run(container_id, 'started'))
            or not cgroup.members(container_id)
            or cgroup.frozen(container_id)):
        yield
        return
    with open(_mark(container_id), 'w'):
        pass
    try:
        oci_runtime.call('pause', container_id)
        yield
    finally:
        let_go(container_id)


def let_go(container_id: str) -> None:
    """Undo ``held``."""
    if cgroup.frozen(container_id):
        oci_runtime.call('resume', container_id)
    os.unlink(_mark(container_id))


def recover(container_id: str) -> None:
    """Let go what a killed service held."""
    if os.path.exists(_mark(container_id)):
        let_go(container_id)
