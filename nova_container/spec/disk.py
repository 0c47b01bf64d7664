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

_MIN = 16 << 20
_MAX = 1 << 50


@dataclasses.dataclass(frozen=True)
class Disk:
    """Sizes of a container's disks.

    :param root: bytes of the writable layer; None for no limit
    :param ephemeral: bytes of a second disk, at /mnt; None for none
    """

    root: int | None = None
    ephemeral: int | None = None

    def __post_init__(self) -> None:
        for name in ('root', 'ephemeral'):
            size = getattr(self, name)
            if size is not None and not _MIN <= size <= _MAX:
                raise exception.InvalidSpec(
                    f'disk {name}={size} is not in {_MIN}..{_MAX} bytes')
