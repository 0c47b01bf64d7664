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

"""Which layers the images in Glance have, and which they share."""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import datetime

from openstack import exceptions

from nova_container import exception
from nova_container.image import thin
from nova_container.oci import digest
from nova_container.osc import glance
from nova_container.osc import layout

# Without the property: what is larger is hardly thin.
_UNMARKED_MAX = 1 << 20

# Why images could not be read, by their ids.
Unread = dict[str, str]


class _Data:
    """The data of an image on its way, read from start to end.

    :raises ImageIncomplete: from ``read``: Glance sends less than there is
    """

    def __init__(self, pieces: Iterator[bytes], size: int):
        self._pieces = pieces
        self._left = size
        self._piece = memoryview(b'')

    def read(self, size: int, /) -> bytes:
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b''))
            self._left -= len(self._piece)
            if not self._piece and self._left > 0:
                raise exception.ImageIncomplete(
                    f'Glance broke off {self._left} bytes before the end; '
                    'try again')
        data, self._piece = self._piece[:size], self._piece[size:]
        return bytes(data)


def read(store: glance.Glance, image: glance.Fields,
         thorough: bool = False) -> list[layout.Image]:
    """What a thin image is made of; nothing if the image is not thin.

    More than one if it is for several architectures.

    :param thorough: also look for layers that are missing in an archive which
        is large and not marked; takes as long as to download it
    :raises UserError: Glance does not give the data of the image
    :raises ImageIncomplete: Glance broke off
    :raises ImageInvalid: malformed
    """
    if _surely_whole(image):
        return []
    if image['status'] != 'active':
        raise exception.UserError(
            f'image {image["id"]} is {image["status"]}, so its layers cannot '
            'be read; wait until it is active (an operator reactivates what '
            'is deactivated), or delete it')
    marked = image.get(thin.PROPERTY) == thin.THIN
    size = image['size'] or 0
    if not size or size > _UNMARKED_MAX and not marked and not thorough:
        return []
    try:
        with contextlib.closing(store.data(image['id'])) as pieces:
            found = layout.from_tar(_Data(pieces, size))
    except (exception.ImageInvalid, exception.ImageIncomplete) as e:
        raise type(e)(f'image {image["id"]}: {e}')
    if marked and not found:
        raise exception.ImageInvalid(
            f'image {image["id"]} is marked as thin, but is not; upload it '
            'again, or delete it')
    return found


def _surely_whole(image: glance.Fields) -> bool:
    """Whether the image needs no layer: by its owner's own word."""
    mark = image.get(thin.PROPERTY)
    # A snapshot under way still has the mark of the image below.
    return mark == thin.LAYER or (
        mark in (thin.ARCHIVE, thin.CHANGES)
        and image['status'] in ('active', 'deactivated'))


def thin_images(store: glance.Glance, unread: Unread, thorough: bool = True
                ) -> Iterator[tuple[glance.Fields, list[layout.Image]]]:
    """The images of the user's project that have layers in Glance.

    :param unread: gets those of which nobody knows what they need
    :param thorough: see ``read``
    """
    for image in store.own():
        try:
            found = read(store, image, thorough)
        except exceptions.NotFoundException:
            continue  # Deleted meanwhile.
        except exceptions.HttpException as e:
            unread[image['id']] = f'image {image["id"]} cannot be read: {e}'
        except exception.ContainerError as e:
            if not _no_image(image, e):
                unread[image['id']] = str(e)
        else:
            if found:
                yield image, found


def _no_image(image: glance.Fields, error: exception.ContainerError) -> bool:
    """Whether the data is something else that only resembles a layout."""
    return (isinstance(error, exception.ImageInvalid)
            and image.get(thin.PROPERTY) != thin.THIN)


def blobs(images: Iterable[layout.Image]) -> set[digest.Digest]:
    """The blobs of the layers of images."""
    return {layer.digest for image in images for layer, _ in image.layers}


def layer_images(store: glance.Glance) -> list[thin.LayerImage]:
    """The layer images of the user's project."""
    return [thin.LayerImage.of(image) for image in store.images(
        owner=store.project, os_hidden='true', **{thin.PROPERTY: thin.LAYER})]


def ago(seconds: int) -> str:
    """That time, as Glance writes it."""
    then = (datetime.datetime.now(datetime.UTC)
            - datetime.timedelta(seconds=seconds))
    return then.strftime('%Y-%m-%dT%H:%M:%SZ')
