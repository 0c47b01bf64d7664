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
import tempfile

from nova_container import exception
from nova_container.image import thin
from nova_container.oci import digest
from nova_container.osc import glance
from nova_container.osc import layout

# A thin image has a manifest and a config, of 4 MiB at most each.
_SIZE_MAX = 16 << 20
# Without the property: what is larger is surely not thin.
_UNMARKED_MAX = 1 << 20


def read(store: glance.Glance, image: glance.Fields) -> list[layout.Image]:
    """What a thin image is made of; nothing if the image is not thin.

    More than one if it is for several architectures.

    :raises ImageInvalid: malformed
    """
    marked = image.get(thin.PROPERTY) == thin.THIN
    if image['status'] != 'active' or glance.is_layer(image) or \
            image['size'] > (_SIZE_MAX if marked else _UNMARKED_MAX):
        return []
    with tempfile.TemporaryFile() as file:
        for piece in store.data(image['id']):
            file.write(piece)
        file.seek(0)
        return layout.from_tar(file)


def thin_images(store: glance.Glance
                ) -> Iterator[tuple[glance.Fields, list[layout.Image]]]:
    """The images of the user's project that have layers in Glance.

    :raises ImageInvalid: one is damaged: what it needs, nobody knows
    """
    for image in store.own():
        try:
            found = read(store, image)
        except exception.ImageInvalid as e:
            if image.get(thin.PROPERTY) != thin.THIN:
                continue
            raise exception.ImageInvalid(f'image {image["id"]}: {e}')
        if found:
            yield image, found


def blobs(images: Iterable[layout.Image]) -> set[digest.Digest]:
    """The blobs of the layers of images."""
    return {layer.digest for image in images for layer, _ in image.layers}


def layer_images(store: glance.Glance) -> list[thin.LayerImage]:
    """The layer images of the user's project."""
    return [thin.LayerImage.of(image) for image in store.images(
        owner=store.project, os_hidden='true', **{thin.PROPERTY: thin.LAYER})]
