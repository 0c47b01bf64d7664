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

"""Host user and group ids of containers and layers."""

import dataclasses

# Ids of one container: 0..65535, as user_namespaces(7) tools give out.
RANGE_SIZE = 65536

# The first range owns the layers on disk.
LAYER_SLOT = 0


@dataclasses.dataclass(frozen=True)
class IdMap:
    """``count`` ids from ``inside`` on appear as ``outside`` on the host."""

    inside: int
    outside: int
    count: int = RANGE_SIZE


@dataclasses.dataclass(frozen=True)
class IdRanges:
    """The host's id ranges, numbered by slot.

    :param start: first host id of slot 0
    :param count: number of slots
    """

    start: int
    count: int

    def base(self, slot: int) -> int:
        """First host id of ``slot``.

        :raises ValueError: no such slot
        """
        if not 0 <= slot < self.count:
            raise ValueError(f'id slot {slot} is not in 0..{self.count - 1}')
        return self.start + slot * RANGE_SIZE

    def container(self, slot: int) -> IdMap:
        """Map of a container's user namespace."""
        return IdMap(0, self.base(slot))

    def layers(self) -> IdMap:
        """Map of the user namespace in which layers are unpacked."""
        return IdMap(0, self.base(LAYER_SLOT))

    def shift(self, slot: int) -> IdMap:
        """Map of an id-mapped mount: layers on disk, as ``slot`` sees them."""
        return IdMap(self.base(LAYER_SLOT), self.base(slot))
