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

"""Operating system and architecture, in the words of images.

OCI image specification, "Platform variants" (image-index.md): the values are
those of Go's GOOS, GOARCH and GOARM.
"""

import dataclasses
from typing import Self

# uname(2) machine -> architecture, variant
_MACHINES = {
    'x86_64': ('amd64', ''),
    'aarch64': ('arm64', 'v8'),
    'armv7l': ('arm', 'v7'),
    'armv6l': ('arm', 'v6'),
    'i686': ('386', ''),
    'ppc64le': ('ppc64le', ''),
    'riscv64': ('riscv64', ''),
    's390x': ('s390x', ''),
    'loongarch64': ('loong64', ''),
}


@dataclasses.dataclass(frozen=True)
class Platform:
    """What an image runs on, or what a host is."""

    os: str
    architecture: str
    variant: str = ''

    def __str__(self) -> str:
        return '/'.join(filter(None, (self.os, self.architecture,
                                      self.variant)))

    @classmethod
    def of_machine(cls, machine: str) -> Self:
        """The Linux platform whose uname(2) machine this is."""
        return cls('linux', *_MACHINES.get(machine, (machine, '')))

    def _level(self, default: int) -> int:
        digits = self.variant.removeprefix('v').split('.')[0]
        return int(digits) if digits.isdecimal() else default

    def suitability(self, image: 'Platform') -> int | None:
        """How well an image suits this host: None not at all, more is better.

        arm is downward compatible; of the levels of amd64 and arm64 only the
        first is taken for granted.
        """
        if (image.os, image.architecture) != (self.os, self.architecture):
            return None
        baseline = {'arm': 5, 'arm64': 8}.get(self.architecture, 1)
        level = image._level(baseline)
        if level > max(self._level(baseline), baseline):
            return None
        return level
