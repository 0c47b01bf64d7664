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

"""Operations that were under way when the service was killed.

Nova takes up builds, deletes, rebuilds, snapshots and changes of power at its
next start (``nova.compute.manager.ComputeManager._init_instance``). It forgets
all others, whose servers would stay in their task for ever.

An operation is only touched when it is sure that nobody works on it. Nova
writes down when a host begins with one and when it ends
(``InstanceActionEvent``, which users see as "openstack server event show"). At
the start of the service, before it takes messages, an event that this host has
begun and not ended was cut off; without one, the message still waits in the
queue. What is still in its task some time later, and has not been begun since
the start, was lost in between.
"""

import dataclasses
import typing

from nova.compute import instance_actions
from nova.compute import power_state
from nova.compute import task_states
from nova.compute import vm_states
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from oslo_log import log
from oslo_utils import timeutils

from nova_container.compute import courier
from nova_container.compute import interrupted_moves
from nova_container.compute import lifecycle
from nova_container.compute import recovery
from nova_container import exception
from nova_container.runtime import engine
from nova_container.runtime import schedule
from nova_container.runtime import state

LOG = log.getLogger(__name__)

# Seconds from the start until what was in the queue is surely begun.
_DELAY = 30
# Seconds between looks for containers that a move has left behind.
_SWEEP = 60

# What is read of a server's actions, the newest first.
_ACTIONS = 10


@dataclasses.dataclass(frozen=True)
class _Operation:
    """What Nova writes down of a task.

    :ivar actions: what a user asked for
    :ivar events: what a compute service does for it
    :ivar failed_only: Nova sees to it itself, unless the server is in error
    """

    actions: tuple[str, ...]
    events: tuple[str, ...]
    failed_only: bool = False


_REBOOT = _Operation((instance_actions.REBOOT,), ('compute_reboot_instance',),
                     failed_only=True)
_REBUILD = _Operation((instance_actions.REBUILD,),
                      ('compute_rebuild_instance',), failed_only=True)
_SHELVE = _Operation((instance_actions.SHELVE,), ('compute_shelve_instance',))

_OPERATIONS: typing.Final = {
    task_states.PAUSING: _Operation(
        (instance_actions.PAUSE,), ('compute_pause_instance',)),
    task_states.SUSPENDING: _Operation(
        (instance_actions.SUSPEND,), ('compute_suspend_instance',)),
    task_states.RESUMING: _Operation(
        (instance_actions.RESUME,), ('compute_resume_instance',)),
    task_states.RESCUING: _Operation(
        (instance_actions.RESCUE,), ('compute_rescue_instance',)),
    task_states.UNRESCUING: _Operation(
        (instance_actions.UNRESCUE,), ('compute_unrescue_instance',)),
    task_states.UPDATING_PASSWORD: _Operation(
        (instance_actions.CHANGE_PASSWORD,), ('compute_set_admin_password',)),
    task_states.SHELVING: _SHELVE,
    task_states.SHELVING_IMAGE_PENDING_UPLOAD: _SHELVE,
    task_states.SHELVING_IMAGE_UPLOADING: _SHELVE,
    task_states.SHELVING_OFFLOADING: _Operation(
        (instance_actions.SHELVE, instance_actions.SHELVE_OFFLOAD),
        ('compute_shelve_instance', 'compute_shelve_offload_instance')),
    task_states.SOFT_DELETING: _Operation(
        (instance_actions.DELETE,), ('compute_soft_delete_instance',)),
    task_states.RESTORING: _Operation(
        (instance_actions.RESTORE,), ('compute_restore_instance',)),
    task_states.POWERING_OFF: _Operation(
        (instance_actions.STOP,), ('compute_stop_instance',),
        failed_only=True),
    task_states.POWERING_ON: _Operation(
        (instance_actions.START,), ('compute_start_instance',),
        failed_only=True),
    **{task: _REBOOT for task in (*task_states.soft_reboot_states,
                                  *task_states.hard_reboot_states)},
    **{task: _REBUILD for task in (
        task_states.REBUILDING, task_states.REBUILD_BLOCK_DEVICE_MAPPING,
        task_states.REBUILD_SPAWNING)},
}

_VM_STATES = {
    # Held before its start: it is started anew.
    state.Status.CREATED: vm_states.STOPPED,
    state.Status.RUNNING: vm_states.ACTIVE,
    state.Status.HELD: vm_states.ACTIVE,
    state.Status.PAUSED: vm_states.PAUSED,
    state.Status.SUSPENDED: vm_states.SUSPENDED,
    state.Status.STOPPED: vm_states.STOPPED,
}


class Settler:
    """Gives servers that were left in a task a state to go on from.

    :param host: of this service
    :param power_states: Nova's, of each state of a container
    :param transfers: of the servers that move
    """

    def __init__(self, host: str, power_states: dict,
                 transfers: courier.Courier):
        self._host = host
        self._transfers = transfers
        self._power_states = power_states
        # The database keeps whole seconds.
        self._started = timeutils.utcnow(with_timezone=True).replace(
            microsecond=0)
        self._moves = interrupted_moves.Moves(host, self._started)
        self._schedule = schedule.Schedule(lambda action: action(),
                                           'interrupted')

    def stop(self) -> None:
        """End the thread."""
        self._schedule.stop()

    def at_start(self, instances) -> None:
        """Settle what was cut off for certain.

        :param instances: nova.objects.InstanceList of this host; saved
        """
        context = nova_context.get_admin_context()
        for instance in instances:
            self._guarded(self._at_start, context, instance)
        self._schedule.after(_DELAY, self._later)
        self._schedule.after(0, self._sweep)

    def _sweep(self) -> None:
        try:
            recovery.sweep(nova_context.get_admin_context(), self._host,
                           self._transfers)
        finally:
            self._schedule.after(_SWEEP, self._sweep)

    def _at_start(self, context, instance) -> None:
        if instance.task_state in (task_states.RESIZE_PREP,
                                   task_states.RESIZE_MIGRATING):
            self._moves.leaving(context, instance)
        elif self._concerned(instance):
            action, event = self._written(context, instance)
            if event is not None and event.finish_time is None:
                self._settle(instance, action, event)

    def _later(self) -> None:
        context = nova_context.get_admin_context()
        for instance in objects.InstanceList.get_by_host(context, self._host):
            if self._concerned(instance):
                self._guarded(self._lost, context, instance)
        self._moves.go_on(context)

    def _lost(self, context, instance) -> None:
        action, event = self._written(context, instance)
        if action is None or action.start_time > self._started or (
                event is not None and event.start_time > self._started):
            return
        with lifecycle.exclusive(instance.uuid):
            self._settle(instance, action, event)

    def _guarded(self, settle, context, instance) -> None:
        try:
            settle(context, instance)
        except (exception.ContainerError, nova_exception.NovaException):
            LOG.exception('Its task (%s) was cut off by the end of the '
                          'service, and what became of it cannot be told',
                          instance.task_state, instance=instance)

    def _concerned(self, instance) -> bool:
        operation = _OPERATIONS.get(instance.task_state)
        return operation is not None and (
            not operation.failed_only
            or instance.vm_state == vm_states.ERROR)

    def _written(self, context, instance):
        """The action that an instance's task is part of, and what this host
        has last done for it; None each if there is none.
        """
        operation = _OPERATIONS[instance.task_state]
        for action in objects.InstanceActionList.get_by_instance_uuid(
                context, instance.uuid, limit=_ACTIONS):
            if action.action in operation.actions:
                events = [
                    event for event in
                    objects.InstanceActionEventList.get_by_action(context,
                                                                  action.id)
                    if event.event in operation.events
                    and event.host == self._host]
                return action, max(events, default=None,
                                   key=lambda event: event.start_time)
        return None, None

    def _settle(self, instance, action, event) -> None:
        task, before = instance.task_state, instance.vm_state
        status = _repaired(instance, task)
        instance.vm_state = _vm_state(instance, task, status)
        instance.power_state = (power_state.NOSTATE if status is None
                                else self._power_states[status])
        instance.task_state = None
        instance.save(expected_task_state=task)
        message = (f'{task} was cut off by the end of the service: the '
                   f'server, which was {before}, is {instance.vm_state} now')
        LOG.warning(message, instance=instance)
        if event is not None:
            context = nova_context.get_admin_context()
            context.request_id = action.request_id
            objects.InstanceActionEvent.event_finish_with_failure(
                context, instance.uuid, event.event, want_result=False,
                exc_val=nova_exception.NovaException(message))


def _repaired(instance, task: str) -> state.Status | None:
    """State of the container, after what was half done is put right; None if
    there is none.
    """
    try:
        status = state.read(instance.uuid).status
    except exception.ContainerNotFound:
        return None
    if task in (task_states.RESCUING, task_states.UNRESCUING):
        if status in (state.Status.CREATED, state.Status.STOPPED):
            engine.halt(instance.uuid)
            engine.unrescue(instance.uuid)
            return state.Status.STOPPED
    elif task in (task_states.SUSPENDING, task_states.RESUMING):
        if status is state.Status.RUNNING:
            # Marked as suspended, it may be.
            engine.resume(instance.uuid)
    return status


def _vm_state(instance, task: str, status: state.Status | None) -> str:
    if _OPERATIONS[task].failed_only or instance.vm_state == vm_states.SHELVED:
        return instance.vm_state
    if (instance.vm_state == vm_states.SOFT_DELETED
            and status is not state.Status.RUNNING):
        return instance.vm_state
    if status is None:
        return vm_states.ERROR
    if state.rescued(instance.uuid):
        return vm_states.RESCUED
    return _VM_STATES[status]
