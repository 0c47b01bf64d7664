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

"""What a server's container has changed, for its user.

Nova's API has no call for that. So the user asks for a snapshot whose image
has the property ``thin.CHANGES_OF``, and its data is the list of the changes.
"""

from nova.compute import task_states
from nova.image import glance
from oslo_log import log as logging

from nova_container.compute import images as images_
from nova_container.compute import upload as upload_
from nova_container.image import thin
from nova_container.layer import stream
from nova_container.runtime import engine

LOG = logging.getLogger(__name__)


def asked(images: images_.Images, context, instance, image_id: str) -> bool:
    """Whether a snapshot is to be the list of changes."""
    properties = images.properties(context, image_id)
    return properties.get(thin.CHANGES_OF) == instance.uuid


def upload(images: images_.Images, context, instance, image_id: str,
           update_task_state) -> None:
    """Upload the list of changes; see nova.virt.driver.ComputeDriver.snapshot.

    :raises ContainerNotFound: the container is gone
    :raises StateConflict: its directories are nested too deeply
    :raises NoSpace: the host has no room for the list
    """
    update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
    with images.store.spool.file(f'changes-{image_id}') as file:
        size = engine.changes(instance.uuid, file.name)
        LOG.info('The list of its changes has %d bytes', size,
                 instance=instance)
        update_task_state(task_state=task_states.IMAGE_UPLOADING,
                          expected_state=task_states.IMAGE_PENDING_UPLOAD)
        data = upload_.Counted(stream.Slice(file.fileno(), 0, size))
        upload_.require_whole(glance.API().update(
            context, image_id, {
                'container_format': thin.CONTAINER_FORMAT,
                'disk_format': thin.DISK_FORMAT,
                'properties': {thin.PROPERTY: thin.CHANGES}},
            data=data, purge_props=False), data)
