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

"""Resizes and migrations that were cut off by the end of a service.

A move is a relay between two hosts. Whoever was to take the next step, and
was killed, does so some time after its next start, by sending the message
that is lost to itself once more; Nova's part of each step and the driver's
may be repeated. A server that had not left its old host stays there, with its
resources in placement.
"""

import datetime

from nova.compute import instance_actions
from nova.compute import rpcapi
from nova.compute import task_states
from nova import exception as nova_exception
from nova import objects
from nova.scheduler.client import report
from nova import utils as nova_utils
from oslo_log import log

LOG = log.getLogger(__name__)

_ACTIONS = (instance_actions.RESIZE, instance_actions.MIGRATE,
            instance_actions.REVERT_RESIZE, instance_actions.CONFIRM_RESIZE)

_ATTRIBUTES = ['flavor', 'info_cache', 'metadata', 'migration_context',
               'system_metadata']

# What a migration is until the container is ready to leave.
_BEFORE = ('accepted', 'pre-migrating', 'migrating')

_PREPARE = 'compute_prep_resize'
_LEAVE = 'compute_resize_instance'
_ARRIVE = 'compute_finish_resize'
_GO_BACK = 'compute_revert_resize'
_BE_BACK = 'compute_finish_revert_resize'
_CONFIRM = 'compute_confirm_resize'


class Moves:
    """The moves that this host takes part in.

    :param host: of this service
    :param started: when it did
    """

    def __init__(self, host: str, started: datetime.datetime):
        self._host = host
        self._started = started

    def leaving(self, context, instance) -> None:
        """A server that was leaving this host stays here.

        Nova itself puts the container back and ends the task, even one that
        the new host still prepares for; of the migration and its resources it
        does not think.
        """
        events = self._events(context, instance)
        if events is None or self._ended(events, _LEAVE) or (
                _LEAVE not in events
                and instance.task_state != task_states.RESIZE_PREP):
            return
        for migration in self._under_way(context):
            if migration.instance_uuid == instance.uuid:
                self._take_back(context, instance, migration)

    def go_on(self, context) -> None:
        """Take the steps that this host was to take before its start."""
        for migration in (*self._under_way(context),
                          *self._reverting(context)):
            try:
                self._go_on(context, migration)
            except nova_exception.NovaException:
                LOG.exception('Migration %s of server %s was cut off, and '
                              'going on with it failed', migration.uuid,
                              migration.instance_uuid)

    def _under_way(self, context):
        return [
            migration for migration in
            objects.MigrationList.get_in_progress_by_host_and_node(
                context, self._host, self._host)
            if migration.migration_type in ('migration', 'resize')]

    def _reverting(self, context):
        """Moves that Nova calls reverted before the old host has the server
        back.
        """
        for instance in objects.InstanceList.get_by_filters(
                context, {'task_state': task_states.RESIZE_REVERTING,
                          'deleted': False}):
            yield from (
                migration for migration in
                objects.MigrationList.get_by_filters(
                    context, {'instance_uuid': instance.uuid,
                              'status': 'reverted'},
                    sort_keys=['id'], sort_dirs=['desc'], limit=1)
                if self._host in (migration.source_compute,
                                  migration.dest_compute))

    def _go_on(self, context, migration) -> None:
        instance = objects.Instance.get_by_uuid(
            context, migration.instance_uuid, expected_attrs=_ATTRIBUTES)
        events = self._events(context, instance)
        if events is None:
            return
        source = migration.source_compute == self._host
        target = migration.dest_compute == self._host
        task = instance.task_state
        if (task in (task_states.RESIZE_PREP, None)
                and migration.status in _BEFORE):
            # At the start of the old host Nova ends this task by itself.
            ended = self._ended(events, _PREPARE)
            if (source if ended else target) and self._lost(
                    events, _LEAVE if ended else _PREPARE):
                self._give_up_leaving(context, instance, migration)
        elif task == task_states.RESIZE_MIGRATED:
            if target and self._lost(events, _ARRIVE) or (
                    source and _ARRIVE not in events
                    and not self._ended(events, _LEAVE)
                    and self._lost(events, _LEAVE)):
                self._arrive(context, instance, migration)
        elif task == task_states.RESIZE_FINISH:
            if target and self._lost(events, _ARRIVE):
                _as_it_came(instance)
                self._arrive(context, instance, migration)
        elif task == task_states.RESIZE_REVERTING:
            if not self._ended(events, _GO_BACK):
                if target and self._lost(events, _GO_BACK):
                    self._say(instance, 'going back')
                    rpcapi.ComputeAPI().revert_resize(
                        context, instance, migration, self._host, None)
            elif source and self._lost(events, _BE_BACK):
                self._say(instance, 'coming back')
                rpcapi.ComputeAPI().finish_revert_resize(
                    context, instance, migration, self._host, None)
        elif migration.status == 'confirming':
            if source and self._lost(events, _CONFIRM):
                self._say(instance, 'confirming')
                rpcapi.ComputeAPI().confirm_resize(context, instance,
                                                   migration, self._host)

    def _events(self, context, instance):
        """The newest event of each name of the move under way; None if it
        was asked for since the start.
        """
        for action in objects.InstanceActionList.get_by_instance_uuid(
                context, instance.uuid, limit=10):
            if action.action in _ACTIONS:
                if action.start_time > self._started:
                    return None
                found = objects.InstanceActionEventList.get_by_action(
                    context, action.id)
                return {event.event: event for event in sorted(
                    found, key=lambda event: event.start_time)}
        return None

    def _lost(self, events, name: str) -> bool:
        return (name not in events
                or events[name].start_time < self._started)

    @staticmethod
    def _ended(events, name: str) -> bool:
        return name in events and events[name].finish_time is not None

    @staticmethod
    def _say(instance, step: str) -> None:
        LOG.warning('Its move was cut off by the end of a service while it '
                    'was %s; that is done once more', step, instance=instance)

    def _arrive(self, context, instance, migration) -> None:
        self._say(instance, 'arriving')
        rpcapi.ComputeAPI().finish_resize(
            context, instance, migration,
            nova_utils.get_image_from_system_metadata(
                instance.system_metadata), '{}', migration.dest_compute, None)

    def _take_back(self, context, instance, migration) -> None:
        migration.status = 'error'
        migration.save()
        client = report.report_client_singleton()
        if client.get_allocations_for_consumer(context, migration.uuid):
            client.move_allocations(context, migration.uuid, instance.uuid)

    def _give_up_leaving(self, context, instance, migration) -> None:
        LOG.warning('Its move was cut off before it began; it stays where it '
                    'is', instance=instance)
        task = instance.task_state
        instance.task_state = None
        instance.save(expected_task_state=task)
        self._take_back(context, instance, migration)


def _as_it_came(instance) -> None:
    """What Nova takes for granted when a server arrives."""
    flavor = instance.old_flavor
    if flavor.id != instance.instance_type_id:
        instance.instance_type_id = flavor.id
        instance.memory_mb = flavor.memory_mb
        instance.vcpus = flavor.vcpus
        instance.root_gb = flavor.root_gb
        instance.ephemeral_gb = flavor.ephemeral_gb
        instance.flavor = flavor
    instance.task_state = task_states.RESIZE_MIGRATED
    instance.save(expected_task_state=task_states.RESIZE_FINISH)
