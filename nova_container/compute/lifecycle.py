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

"""Tell Nova that a container's process has ended.

Nova drops a lifecycle event while a task is under way on the instance, and
would then only notice at its next power state synchronisation, ten minutes
later. A process that ends right after it was started falls into that gap, so
the event is sent again for as long as Nova has not reacted: it reacts by
powering the instance off, which halts the container.
"""

import collections.abc

from nova.compute import vm_states
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from oslo_concurrency import lockutils

from nova_container import exception
from nova_container.runtime import schedule
from nova_container.runtime import state

# Seconds until the event is sent again, and again.
_PAUSES = (1, 2, 4, 8, 15, 30, 60, 120, 240)


class ExitReporter:
    """Sends one event per end of a process, until it was heard.

    :param emit: called with the container's id
    """

    def __init__(self, emit: collections.abc.Callable[[str], None]):
        self._emit = emit
        self._schedule = schedule.Schedule(self._due, 'container-exit-events')

    def report(self, container_id: str) -> None:
        """A process has ended."""
        self._schedule.after(0, (container_id, 0))

    def stop(self) -> None:
        """End the thread."""
        self._schedule.stop()

    def _due(self, item: tuple[str, int]) -> None:
        container_id, attempt = item
        if not state.ended_unattended(container_id):
            return
        if attempt < len(_PAUSES):
            self._schedule.after(_PAUSES[attempt],
                                 (container_id, attempt + 1))
        # The message bus may be away; the next attempt tells.
        self._emit(container_id)


def exclusive(container_id: str):
    """One decision about a container at a time.

    Nova's own locks do not cover starting an instance.
    """
    return lockutils.lock(f'nova-container-{container_id}')


def instance_to_restart(container_id: str) -> 'objects.Instance | None':
    """The server of a container that is to be started again.

    :returns: None if it shall not run any more
    :raises ServerBusy: Nova is at work on it
    :raises ContainerNotFound: Nova does not know it
    """
    try:
        instance = objects.Instance.get_by_uuid(
            nova_context.get_admin_context(), container_id,
            expected_attrs=['flavor', 'info_cache', 'metadata',
                            'system_metadata'])
    except nova_exception.InstanceNotFound:
        raise exception.ContainerNotFound(
            f'container {container_id} has no server any more')
    if instance.vm_state not in (vm_states.ACTIVE, vm_states.BUILDING):
        return None
    if instance.vm_state == vm_states.BUILDING or instance.task_state:
        raise exception.ServerBusy(
            f'container {container_id}: not started again while its server '
            f'is {instance.task_state or instance.vm_state}')
    return instance
