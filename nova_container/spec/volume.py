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

"""A volume of a container: a block device that outlives it."""

import dataclasses
import posixpath
import re

from nova_container import exception
from nova_container.spec import identifier

_DEVICE = re.compile(r'^[a-z][a-z0-9]{1,14}$')
_PATH_MAX = 4096
# Mounted by the runtime itself, or not a directory of the image's.
_RESERVED = ('/dev', '/proc', '/sys')


def check_id(volume_id: str) -> str:
    """``volume_id`` itself, if it is a UUID in canonical form.

    :raises InvalidSpec: otherwise
    """
    return identifier.check_uuid('volume', volume_id)


@dataclasses.dataclass(frozen=True)
class Attachment:
    """How a container has a volume.

    :param volume: UUID
    :param device: name below /dev
    :param path: where its file system is mounted, and then there is no
        device; None: there is the device alone
    """

    volume: str
    device: str
    path: str | None = None
    read_only: bool = False

    def __post_init__(self) -> None:
        check_id(self.volume)
        if not _DEVICE.fullmatch(self.device):
            raise exception.InvalidSpec(
                f'volume {self.volume}: {self.device!r} is not the name of a '
                'device, such as vdb')
        if self.path is not None:
            check_path(self.path)


def check_path(path: str) -> str:
    """``path`` itself, if a volume may be mounted there.

    :raises InvalidSpec: otherwise
    """
    if (not path.startswith('/') or path.startswith('//')
            or posixpath.normpath(path) != path
            or path == '/' or '\0' in path or len(path) > _PATH_MAX):
        raise exception.InvalidSpec(
            f'volume path {path!r} is not an absolute directory without .., '
            'such as /var/lib/mysql')
    for reserved in _RESERVED:
        if path == reserved or path.startswith(reserved + '/'):
            raise exception.InvalidSpec(
                f'volume path {path!r}: nothing is mounted below {reserved}')
    return path


def check_distinct(attachments: tuple[Attachment, ...]) -> None:
    """
    :raises InvalidSpec: two have the same volume, device or path
    """
    for name in ('volume', 'device', 'path'):
        seen = set()
        for attachment in attachments:
            value = getattr(attachment, name)
            if value is not None and value in seen:
                raise exception.InvalidSpec(
                    f'two volumes have the same {name} {value}')
            seen.add(value)
