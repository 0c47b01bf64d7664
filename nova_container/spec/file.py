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

"""A file that a container is given."""

import base64
import binascii
import dataclasses
import re

from nova_container import exception

_PART = re.compile(r'[A-Za-z0-9_.-]{1,255}')
_DEPTH_MAX = 8
_SIZE_MAX = 16 << 20


@dataclasses.dataclass(frozen=True)
class File:
    """One content under one or several names.

    :param paths: relative to where the files are put
    :param content: Base64
    """

    paths: tuple[str, ...]
    content: str

    def __post_init__(self) -> None:
        for path in self.paths:
            parts = path.split('/')
            if len(parts) > _DEPTH_MAX or not all(
                    _PART.fullmatch(part) and part not in ('.', '..')
                    for part in parts):
                raise exception.InvalidSpec(
                    f'file {path!r} is not a plain relative path')
        try:
            size = len(self.data)
        except binascii.Error as e:
            raise exception.InvalidSpec(f'file {self.paths}: {e}')
        if not self.paths or size > _SIZE_MAX:
            raise exception.InvalidSpec(
                f'file {self.paths}: {size} bytes, more than {_SIZE_MAX}')

    @property
    def data(self) -> bytes:
        return base64.b64decode(self.content, validate=True)
