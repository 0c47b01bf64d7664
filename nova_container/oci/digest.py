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

"""Content digests: the names of blobs and layers.

OCI image specification, "Digests" (descriptor.md). Only sha256 is accepted:
every tool writes it, and the directory of a layer is named after it.
"""

import hashlib
import re
from typing import Self

from nova_container import exception

_SHA256 = re.compile(r'^sha256:[0-9a-f]{64}\Z')


class Digest(str):
    """``sha256:`` and 64 lower-case hexadecimal digits."""

    __slots__ = ()

    def __new__(cls, value: object) -> Self:
        """Check ``value``.

        :raises ImageInvalid: not such a string
        """
        if not isinstance(value, str) or not _SHA256.match(value):
            shown = repr(value)
            raise exception.ImageInvalid(
                f'{shown[:100]} is not a sha256 digest')
        return super().__new__(cls, value)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The digest of ``data``."""
        return cls('sha256:' + hashlib.sha256(data).hexdigest())

    @property
    def hex(self) -> str:
        """The 64 digits alone, as used in file names."""
        return self[len('sha256:'):]

    @property
    def short(self) -> str:
        """The first twelve digits, as docker and podman show it."""
        return self.hex[:12]
