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

"""Servers that a killed service left in the middle of something.

Nova sees to builds, deletes and changes of power itself. Of what else was
under way it forgets the end: the server would stay in its task for ever, and
only an administrator could reset it. What is on this host tells how far it
came.
"""

from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova import exception as nova_exception
from nova import objects
from oslo_log import log

from nova_container import exception
from nova_container.runtime import engine
from nova_container.runtime import state

LOG = log.getLogger(__name__)

# Nothing to be told from them: the server is what it was.
_FORGOTTEN = (
    task_states.UPDATING_PASSWORD, task_states.SHELVING,
    task_states.SHELVING_IMAGE_PENDING_UPLOAD,
    task_states.SHELVING_IMAGE_UPLOADING, task_states.SHELVING_OFFLOADING)

_FREEZING = (task_states.SUSPENDING, task_states.RESUMING)
_RESCUE = (task_states.RESCUING, task_states.UNRESCUING)
_ARRIVING = (task_states.RESIZE_MIGRATED, task_states.RESIZE_FINISH)


def settle(context, host: str, instances) -> None:
    """Give every server of this host a state that its user can go on from.

    :param instances: nova.objects.InstanceList; changed, and saved
    """
    for instance in instances:
        try:
            _settle(context, host, instance)
        except (exception.ContainerError, nova_exception.NovaException):
            LOG.exception('What was under way could not be told',
                          instance=instance)
    for migration in objects.MigrationList.get_by_filters(
            context, {'source_compute': host, 'status': 'confirming'}):
        # To be confirmed once more.
        migration.status = 'finished'
        migration.save()


def _settle(context, host: str, instance) -> None:
    task = instance.task_state
    before = instance.vm_state
    if task in _FORGOTTEN:
        pass
    elif task in _FREEZING:
        status = state.read(instance.uuid).status
        instance.vm_state = (
            vm_states.SUSPENDED if status is state.Status.SUSPENDED
            or (status is state.Status.STOPPED
                and task == task_states.RESUMING) else vm_states.ACTIVE)
    elif task in _RESCUE:
        if state.rescued(instance.uuid):
            instance.vm_state = vm_states.RESCUED
        elif task == task_states.UNRESCUING:
            instance.vm_state = vm_states.ACTIVE
    elif task in _ARRIVING:
        _fail(context, instance, 'the move to this host was cut off')
    elif task == task_states.RESIZE_REVERTING:
        _reverting(context, host, instance)
    else:
        return
    instance.task_state = None
    instance.save()
    LOG.warning('The service was ended while it was at %s; it is %s now, '
                'after %s', task, instance.vm_state, before,
                instance=instance)


def _fail(context, instance, what: str) -> None:
    instance.vm_state = vm_states.ERROR
    compute_utils.add_instance_fault_from_exc(
        context, instance, nova_exception.NovaException(
            f'{what} when the service ended; a hard reboot goes on with it'))


def _reverting(context, host: str, instance) -> None:
    migration = objects.Migration.get_by_id_and_instance(
        context, instance.migration_context.migration_id, instance.uuid)
    if migration.source_compute == host and not (
            migration.dest_compute == host and state.parked(instance.uuid)):
        _fail(context, instance, 'the way back to this host was cut off')
        return
    # The new container is here or half gone; the old one is safe.
    migration.status = 'finished'
    migration.save()


def sweep(context) -> list[str]:
    """Remove the containers set aside that nobody will ask for any more.

    :returns: their ids
    """
    removed = []
    for container_id in state.all_parked():
        try:
            instance = objects.Instance.get_by_uuid(context, container_id)
        except nova_exception.InstanceNotFound:
            wanted = False
        else:
            wanted = (instance.task_state is not None
                      or instance.vm_state in (vm_states.RESIZED,
                                               vm_states.ERROR))
        if not wanted:
            engine.discard(container_id)
            removed.append(container_id)
    return removed
