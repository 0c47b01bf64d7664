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

"""What a killed service left of attaching and detaching volumes.

Nova answers the user before it begins, and nobody asks it again: a volume
whose nova-compute is killed meanwhile stays ``detaching`` or ``reserved``. So
some time after a start, when what was still in the queue has been worked off,
such volumes of this host's servers are looked for, and the detaching is
finished, the attaching taken back.

A volume that comes with a server to its new host is ``attaching``, too, and
stays so if the server does not start there. It is the server's, and once that
runs with it, after a hard reboot, Cinder is told; or at the next start, should
it run by then.

While Cinder has a volume moved to another back end, its server is without it,
and has it again after a start; the move is for an administrator to end.
"""

import datetime

from keystoneauth1 import exceptions as keystone_exception
from nova.compute import instance_actions
from nova.compute import vm_states
import nova.conf
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova import utils as nova_utils
from nova.virt import block_device as driver_block_device
from nova.volume import cinder
from oslo_log import log
from oslo_serialization import jsonutils
from oslo_utils import timeutils

from nova_container.compute import volumes
from nova_container.runtime import schedule
from nova_container.runtime import state
from nova_container.runtime import volume as volume_runtime

CONF = nova.conf.CONF
LOG = log.getLogger(__name__)

# Seconds after the start, and between attempts when Cinder is away.
_DELAY = 20
_AGAIN = 60
_ATTEMPTS = 10

_DETACHING = ('detaching',)
_ATTACHING = ('reserved', 'attaching')
_ATTACHED = ('in-use', 'retyping', 'maintenance')

# What is read of a server's actions, the newest first.
_ACTIONS = 10


def complete(context, instance, volume_id: str, attachment_id: str | None,
             api: cinder.API) -> None:
    """Tell Cinder that a server has a volume, if it was not told.

    :param api: of Cinder, as ``context`` may use it
    """
    if (not attachment_id or instance.uuid not in
            volume_runtime.attached().get(volume_id, ())):
        return
    found = api.attachment_get(context, attachment_id)
    # Nova moves the status there if there is a connection.
    if found['connection_info'].get('status') == 'attaching':
        LOG.warning('The server has volume %s, of which Cinder was not told; '
                    'it is now', volume_id, instance=instance)
        api.attachment_complete(context, attachment_id)


def complete_all(context, instance, block_device_info) -> None:
    """``complete`` for the volumes of a server that has come to run.

    What fails is tried again after the next start of the service.
    """
    api = cinder.API()
    for mapping in volumes.mappings(block_device_info):
        name = volumes.volume_id(mapping['connection_info'])
        try:
            complete(context, instance, name, mapping['attachment_id'], api)
        # The server runs.
        except Exception:
            LOG.exception('Telling Cinder that the server has volume %s '
                          'failed', name, instance=instance)


def _lacks(server: str, mapping, attached: dict[str, list[str]]) -> bool:
    """Whether a server has given a volume away that Nova says it has.

    :param attached: servers with each volume, on this host
    """
    return (not mapping.is_root
            and bool(jsonutils.loads(mapping.connection_info or 'null'))
            and server not in attached.get(mapping.volume_id, ()))


def _is_attached(volume: dict, server: str, mapping) -> bool:
    """Whether Cinder, too, says that a server has a volume."""
    found = (volume.get('attachments') or {}).get(server) or {}
    return (volume['status'] in _ATTACHED and mapping.attachment_id is not None
            and found.get('attachment_id') == mapping.attachment_id)


class Finisher:
    """Looks once after each start of the service.

    :param driver: what Nova detaches volumes with
    """

    def __init__(self, driver):
        self._driver = driver
        self._started = timeutils.utcnow()
        self._cinder = cinder.API()
        self._schedule = schedule.Schedule(self._due, 'volume-recovery')
        self._schedule.after(_DELAY, _ATTEMPTS)

    def stop(self) -> None:
        """End the thread."""
        self._schedule.stop()

    def _due(self, attempts: int) -> None:
        try:
            settled = self._finish(nova_context.get_admin_context())
        except keystone_exception.EndpointNotFound:
            LOG.debug('This cloud has no volumes')
            return
        except Exception:
            if attempts <= 1:
                raise
            LOG.warning('Looking for volumes that are half attached failed; '
                        'it is tried again', exc_info=True)
            settled = False
        if not settled and attempts > 1:
            self._schedule.after(_AGAIN, attempts - 1)

    def _finish(self, context) -> bool:
        """False if one of the volumes made trouble."""
        stuck = {}
        for status in (*_DETACHING, *_ATTACHING):
            for volume in self._cinder.get_all(context, search_opts={
                    'all_tenants': True, 'status': status}):
                stuck[volume['id']] = volume
        ids = state.ids()
        if not ids:
            return True
        found = objects.BlockDeviceMappingList.bdms_by_instance_uuid(context,
                                                                     ids)
        attached = volume_runtime.attached()
        settled = True
        for server, mappings in found.items():
            for mapping in mappings:
                if mapping.is_volume and (mapping.volume_id in stuck
                                          or _lacks(server, mapping,
                                                    attached)):
                    settled &= self._finish_one(context, server,
                                                mapping.volume_id)
        return settled

    def _finish_one(self, context, server: str, volume_id: str) -> bool:
        @nova_utils.synchronized(server)
        def alone() -> None:
            # Nova's own work on the instance's volumes holds the lock, too.
            mapping = objects.BlockDeviceMapping.get_by_volume_and_instance(
                context, volume_id, server)
            volume = self._cinder.get(context, volume_id)
            instance = objects.Instance.get_by_uuid(context, server)
            if (self._since(context, volume_id)
                    or instance.task_state is not None
                    or instance.vm_state == vm_states.BUILDING
                    # It was evacuated from here, which Nova sees to.
                    or instance.host != CONF.host):
                return
            if volume['status'] in _DETACHING:
                if not mapping.is_root and self._leaves(context, instance,
                                                        volume):
                    self._detach(context, instance, mapping)
            elif volume['status'] in _ATTACHING:
                # Nova writes that down once the server has the volume.
                if jsonutils.loads(mapping.connection_info or 'null'):
                    complete(context, instance, volume_id,
                             mapping.attachment_id, self._cinder)
                elif not mapping.is_root:
                    self._take_back(context, instance, mapping)
            elif (_is_attached(volume, server, mapping)
                  and _lacks(server, mapping, volume_runtime.attached())):
                self._give_back(context, instance, mapping)
        try:
            alone()
        except nova_exception.VolumeBDMNotFound:
            LOG.debug('Volume %s is no longer of server %s', volume_id, server)
        # That of one volume is not to hinder those of others.
        except Exception:
            LOG.exception('Volume %s is half attached to server %s, and '
                          'setting that right failed', volume_id, server)
            return False
        return True

    def _since(self, context, volume_id: str) -> bool:
        """Whether it was asked for after this service had started."""
        # What Nova makes of a volume has no such time.
        volume = cinder.cinderclient(context).volumes.get(volume_id)
        changed = datetime.datetime.fromisoformat(
            volume.updated_at or volume.created_at)
        return timeutils.normalize_time(changed) > self._started

    @staticmethod
    def _leaves(context, instance, volume: dict) -> bool:
        """Whether it is this server, of all that have a volume which is
        ``detaching``, from which it goes.
        """
        if len(volume.get('attachments') or ()) < 2:
            return True
        return any(
            action.action == instance_actions.DETACH_VOLUME
            and not any(
                event.event == 'compute_detach_volume' and event.finish_time
                for event in objects.InstanceActionEventList.get_by_action(
                    context, action.id))
            for action in objects.InstanceActionList.get_by_instance_uuid(
                context, instance.uuid, limit=_ACTIONS))

    def _detach(self, context, instance, mapping) -> None:
        LOG.warning('Detaching volume %s was interrupted; it is finished now',
                    mapping.volume_id, instance=instance)
        driver_block_device.convert_volume(mapping).detach(
            context, instance, self._cinder, self._driver, destroy_bdm=True)
        mapping.destroy()

    def _give_back(self, context, instance, mapping) -> None:
        LOG.warning('The server was without volume %s, as it is while that is '
                    'moved to another back end; it has it again',
                    mapping.volume_id, instance=instance)
        self._driver.attach_volume(
            context, jsonutils.loads(mapping.connection_info), instance,
            mapping.device_name)

    def _take_back(self, context, instance, mapping) -> None:
        LOG.warning('Attaching volume %s was interrupted; it is taken back '
                    'now', mapping.volume_id, instance=instance)
        volumes.forget(instance, mapping.volume_id)
        if mapping.attachment_id:
            self._cinder.attachment_delete(context, mapping.attachment_id)
        mapping.destroy()
