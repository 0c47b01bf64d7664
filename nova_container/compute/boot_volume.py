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

"""Servers that boot from a volume.

Cinder makes the volume of an image of Glance: the archive lies at its
beginning, as it is. Behind it is the writable layer (``privileged.
boot_volume``). The image is read from the volume, not from Glance: what a
tenant says of it in Cinder proves nothing, and a copy of the volume needs no
image any more.
"""

import dataclasses

from nova.volume import cinder

from nova_container import exception
from nova_container.image import spool
from nova_container.image import thin
from nova_container.runtime import volume
from nova_container.spec import disk

_MADE = 'openstack volume create --image IMAGE --size GIB NAME'


@dataclasses.dataclass(frozen=True)
class Archive:
    """The archive at the beginning of a volume.

    :param size: bytes
    """

    volume: str
    size: int

    @property
    def disk(self) -> disk.BootVolume:
        """Where the writable layer is."""
        blocks = -(-self.size // disk.ALIGNMENT)
        return disk.BootVolume(self.volume, blocks * disk.ALIGNMENT)

    def read(self, file: spool.File) -> None:
        """Append it to a spool file."""
        volume.read(self.volume, self.size, file.name)
        file.size += self.size

    def room(self) -> int:
        """Bytes of the whole volume."""
        return volume.take_size(self.volume)


def find(context, volume_id: str) -> Archive:
    """What Cinder says of a volume.

    :raises InvalidSpec: it was not made of an image for containers
    """
    said = cinder.API().get(context, volume_id).get(
        'volume_image_metadata') or {}
    given = (said.get('container_format'), said.get('disk_format'))
    if given != (thin.CONTAINER_FORMAT, thin.DISK_FORMAT):
        raise exception.InvalidSpec(
            f'volume {volume_id} was not made of an image for containers '
            f'(container format {given[0]!r}, disk format {given[1]!r}); '
            f'{_MADE}')
    size = str(said.get('size'))
    if not size.isdecimal() or not int(size):
        raise exception.InvalidSpec(
            f'volume {volume_id}: Cinder does not know the size of its image '
            f'({size[:20]!r}); {_MADE}')
    return Archive(volume_id, int(size))
