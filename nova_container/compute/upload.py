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

"""Image data that Glance has to have whole.

Nova's client sends once more what a proxy or a broken connection refused, and
by then the file has been read: Glance takes what is left of it for the image.
"""

import typing

from nova_container import exception


class Counted:
    """A file that is read once, and how much was read of it.

    :ivar bytes: so far, by whomever
    """

    def __init__(self, file):
        self._file = file
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self.bytes += len(piece)
        return piece


def require_whole(image: dict[str, typing.Any], sent: Counted) -> None:
    """
    :param image: as Glance shows it after the upload
    :raises ImageIncomplete: it is not all that was read
    """
    if image['size'] != sent.bytes:
        raise exception.ImageIncomplete(
            f'image {image["id"]}: Glance has {image["size"]} of '
            f'{sent.bytes} bytes; try again')
