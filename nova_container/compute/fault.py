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

"""Our errors as Nova's, which become the server's fault.

What the tenant caused ends the build; what the host lacks lets Nova try the
next one. Nova cuts a fault after 255 characters, so a build that is aborted
carries our words alone.
"""

import contextlib

from nova.compute import task_states
from nova import exception as nova_exception
from oslo_config import cfg

from nova_container import exception

CONF = cfg.CONF

_REBUILD = (task_states.REBUILDING, task_states.REBUILD_BLOCK_DEVICE_MAPPING,
            task_states.REBUILD_SPAWNING)


def _rebuilt_here(instance) -> bool:
    """Rebuilt on its own host; one that is evacuated still is of another."""
    return instance.task_state in _REBUILD and instance.host == CONF.host


def _translate(error: exception.ContainerError, instance, building: bool):
    # The server says which image it is of.
    message = error.message.removeprefix(f'image {instance.image_ref}: ')
    if isinstance(error, exception.UserError) and building:
        return nova_exception.BuildAbortException(
            instance_uuid=instance.uuid, reason=message)
    if isinstance(error, exception.UserError):
        return nova_exception.InvalidInput(reason=message)
    if isinstance(error, exception.ContainerNotFound):
        return nova_exception.InstanceNotFound(instance_id=instance.uuid)
    if (isinstance(error, exception.OperatorError)
            # Nova would take it that nothing was begun, and call a server
            # ACTIVE whose container is gone.
            and not _rebuilt_here(instance)):
        return nova_exception.ComputeResourcesUnavailable(reason=message)
    if isinstance(error, exception.NetworkFailed):
        return nova_exception.VirtualInterfacePlugException(message)
    if isinstance(error, exception.StateConflict):
        return nova_exception.Invalid(message)
    return nova_exception.NovaException(message)


@contextlib.contextmanager
def translated(instance, building: bool = False):
    """Raise our errors as those that Nova's manager knows.

    :param building: the instance is being spawned
    """
    try:
        yield
    except exception.ContainerError as e:
        raise _translate(e, instance, building) from e
