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

"""Rescue: another system with the instance's root file system in it.

The rescue system boots from an image of its own on a disk of its own, with
the instance's ports and limits; what the instance has on its disks is at
``/rescue`` and ``/rescue/mnt``. What has been changed in the rescue system
itself is gone after unrescue.
"""

import contextlib

from nova import exception as nova_exception
from oslo_config import cfg
from oslo_log import log

from nova_container.compute import fault
from nova_container.compute import intent
from nova_container.compute import password
from nova_container.compute import volumes
from nova_container import exception
from nova_container.runtime import engine

CONF = cfg.CONF
LOG = log.getLogger(__name__)


class RescueMixin:
    """The part of the driver that Nova's rescue and unrescue call."""

    def rescue(self, context, instance, network_info, image_meta,
               rescue_password, block_device_info, share_info):
        with fault.translated(instance), self._decided(instance), \
                contextlib.ExitStack() as undo:
            image_id = instance.image_ref
            if 'id' in image_meta:
                image_id = image_meta.id
            else:
                image_meta = instance.image_meta
            image = self._images.ensure(context, instance, image_meta,
                                        image_id)
            engine.halt(instance.uuid)
            # Nova refuses to unrescue a server in error.
            undo.callback(engine.unrescue, instance.uuid)
            engine.rescue(intent.rescue(
                instance, image, network_info, CONF.container.pids_limit,
                volumes.connect_all(context, instance, block_device_info),
                self._images.properties(context, image_id),
                own=image_id == instance.image_ref))
            self._boot(instance, network_info)
            undo.pop_all()
        try:
            password.set_admin(instance, rescue_password)
        except (exception.ContainerError, nova_exception.NovaException) as e:
            # Most rescue images have no log-in at all.
            LOG.info('The password of the rescue system was not set: %s', e,
                     instance=instance)

    def unrescue(self, context, instance):
        network_info = instance.get_network_info()
        with fault.translated(instance), self._decided(instance):
            self._halt(instance, network_info)
            engine.unrescue(instance.uuid)
            self._boot(instance, network_info)
