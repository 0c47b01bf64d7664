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

"""How much a container may write to disk."""

import dataclasses

from nova_container import exception
from nova_container.spec import identifier

_MIN = 16 << 20
_MAX = 1 << 50

# What divides where a file system begins on a volume: more than any device's
# block, and than what the kernel aligns.
ALIGNMENT = 1 << 20


@dataclasses.dataclass(frozen=True)
class BootVolume:
    """A volume that begins with the archive of an image.

    :param volume: UUID
    :param offset: bytes; behind it is the writable layer's file system
    """

    volume: str
    offset: int

    def __post_init__(self) -> None:
        identifier.check_uuid('volume', self.volume)
        if not 0 < self.offset <= _MAX or self.offset % ALIGNMENT:
            raise exception.InvalidSpec(
                f'offset {self.offset} on volume {self.volume} is not a '
                f'multiple of {ALIGNMENT}')


@dataclasses.dataclass(frozen=True)
class Disk:
    """Sizes of a container's disks.

    :param root: bytes of the writable layer; None for no limit
    :param ephemeral: bytes of a second disk, at /mnt; None for none
    :param boot: has the writable layer, and limits it by its own size
    """

    root: int | None = None
    ephemeral: int | None = None
    boot: BootVolume | None = None

    def __post_init__(self) -> None:
        if self.boot is not None and self.root is not None:
            raise exception.InvalidSpec(
                'a disk on a boot volume is as large as the volume, not '
                f'{self.root} bytes')
        for name in ('root', 'ephemeral'):
            size = getattr(self, name)
            if size is not None and not _MIN <= size <= _MAX:
                raise exception.InvalidSpec(
                    f'disk {name}={size} is not in {_MIN}..{_MAX} bytes')

    def at_least(self, other: 'Disk') -> 'Disk':
        """These disks, each as large as the other's if that is larger."""
        root = self.root
        if other.boot is None:
            root = (None if None in (self.root, other.root)
                    else max(self.root or 0, other.root or 0))
        ephemeral = max(self.ephemeral or 0, other.ephemeral or 0) or None
        return dataclasses.replace(self, root=root, ephemeral=ephemeral)
