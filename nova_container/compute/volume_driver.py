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

"""The volume methods of ComputeDriver; its docstrings are their contract."""

from nova.compute import utils as compute_utils
import nova.conf
from nova import exception as nova_exception
from nova import objects
from nova.volume import cinder

from nova_container.compute import device_metadata
from nova_container.compute import fault
from nova_container.compute import volumes
from nova_container import exception
from nova_container.runtime import state

CONF = nova.conf.CONF

# Nova's own name would be that of an IDE or SCSI disk.
_ROOT_DEVICE = '/dev/vda'


def _tag(context, instance, connection_info) -> str | None:
    try:
        return objects.BlockDeviceMapping.get_by_volume_and_instance(
            context, volumes.volume_id(connection_info), instance.uuid).tag
    except nova_exception.VolumeBDMNotFound:
        return None


class VolumeMixin:
    """Attaches volumes to instances and takes them away."""

    def get_volume_connector(self, instance):
        return volumes.properties()

    def default_root_device_name(self, instance, image_meta, root_bdm):
        return _ROOT_DEVICE

    def attach_volume(self, context, connection_info, instance, mountpoint,
                      disk_bus=None, device_type=None, encryption=None):
        with fault.translated(instance):
            tag = _tag(context, instance, connection_info)
            volumes.attach(context, instance, connection_info, mountpoint,
                           tag)
        if tag:
            device_metadata.save(context, instance)

    def detach_volume(self, context, connection_info, instance, mountpoint,
                      encryption=None):
        with fault.translated(instance):
            volumes.detach(instance, connection_info)

    def extend_volume(self, context, connection_info, instance,
                      requested_size):
        with fault.translated(instance):
            volumes.extend(connection_info, requested_size)

    def swap_volume(self, context, old_connection_info, new_connection_info,
                    instance, mountpoint, resize_to):
        with fault.translated(instance):
            old = cinder.API().get(
                context, volumes.volume_id(old_connection_info))
            # Nova decides by the same sign whether to tell Cinder to go on.
            volumes.swap(context, instance, old_connection_info,
                         new_connection_info,
                         keeps_id=old.get('migration_status') == 'migrating')

    def rebuild(self, context, instance, *args, network_info=None,
                block_device_info=None, preserve_ephemeral=False,
                reimage_boot_volume=False, **kwargs):
        # Nova refuses to preserve, but only after this.
        if reimage_boot_volume and not preserve_ephemeral:
            with fault.translated(instance), self._decided(instance):
                if state.exists(instance.uuid):
                    self._halt(
                        instance, network_info or [],
                        compute_utils.get_value_from_system_metadata(
                            instance, 'image_os_shutdown_timeout', int,
                            CONF.shutdown_timeout))
                volumes.clear_boot(context, instance, block_device_info)
        # Nova's own way does it, with destroy and spawn.
        raise NotImplementedError

    def volume_snapshot_create(self, context, instance, volume_id,
                               create_info):
        # Cinder waits for the status, for ever if need be.
        cinder.API().update_snapshot_status(
            context, create_info['snapshot_id'], 'error')
        with fault.translated(instance):
            raise exception.InvalidSpec(
                f'volume {volume_id} is on a share, where a snapshot needs '
                'the volume detached from the server')

    def volume_snapshot_delete(self, context, instance, volume_id,
                               snapshot_id, delete_info):
        cinder.API().update_snapshot_status(context, snapshot_id,
                                            'error_deleting')
        with fault.translated(instance):
            raise exception.InvalidSpec(
                f'snapshot {snapshot_id} is on a share, where deleting it '
                'needs the volume detached from the server')
