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

"""OCI image layouts: in a directory, and as thin images have them in a tar.

OCI image specification, "Image Layout" (image-layout.md).
"""

from collections.abc import Callable
import dataclasses
import json
import pathlib
import posixpath
import tarfile
import typing

from nova_container import exception
from nova_container.image import thin
from nova_container.oci import digest
from nova_container.oci import document
from nova_container.oci import image_config
from nova_container.oci import manifest
from nova_container.osc import skopeo

_NESTING_MAX = 4

# Members of an archive of an image that is a layout, or of a newer Docker's.
_NAMES = ('.', 'blobs', 'oci-layout', 'index.json', 'manifest.json',
          'repositories')
# With more members than these it is something else, such as a root file
# system, and need not be read to its end.
_FOREIGN_MAX = 20


class Readable(typing.Protocol):
    """Bytes that come one after another."""

    def read(self, size: int, /) -> bytes:
        """As many, fewer only at the end."""


# Reads a file of the layout; raises FileNotFoundError.
_Read = Callable[[str], bytes]


@dataclasses.dataclass(frozen=True)
class Image:
    """One image of a layout.

    :param layers: with the digest of what each is uncompressed, the lowest
        first
    """

    raw_manifest: bytes
    raw_config: bytes
    config: image_config.ImageConfig
    layers: tuple[tuple[manifest.Descriptor, digest.Digest], ...]

    @property
    def size(self) -> int:
        """Bytes of its layers as stored, each counted once."""
        return sum({layer.digest: layer.size
                    for layer, _ in self.layers}.values())


def _blob(read: _Read, name: digest.Digest) -> bytes:
    data = read(thin.blob_name(name))
    if digest.Digest.of(data) != name:
        raise exception.ImageInvalid(
            f'a blob should have the digest {name} but has '
            f'{digest.Digest.of(data)}; the image is damaged')
    return data


def _image(read: _Read, name: digest.Digest) -> Image:
    raw_manifest = _blob(read, name)
    found = manifest.manifest_from_json(raw_manifest, 'its manifest')
    raw_config = _blob(read, found.config.digest)
    config = image_config.ImageConfig.from_json(raw_config)
    if len(found.layers) != len(config.diff_ids):
        raise exception.ImageInvalid(
            f'its manifest lists {len(found.layers)} layers, its config '
            f'{len(config.diff_ids)}')
    return Image(raw_manifest, raw_config, config,
                 tuple(zip(found.layers, config.diff_ids)))


def _images(read: _Read) -> list[Image]:
    try:
        index = manifest.index_from_json(read('index.json'), 'index.json')
        for _ in range(_NESTING_MAX):
            nested = [item for item in index
                      if item.media_type in manifest.INDEX_TYPES]
            if not nested:
                break
            index = tuple(item for item in index if item not in nested) + sum(
                (manifest.index_from_json(_blob(read, item.digest),
                                          f'index {item.digest}')
                 for item in nested), ())
        return [_image(read, item.digest) for item in index
                if item.media_type in manifest.MANIFEST_TYPES]
    except FileNotFoundError as e:
        raise exception.ImageInvalid(f'the image lacks {e}')


def _one(images: list[Image]) -> Image:
    if len(images) != 1:
        raise exception.ImageInvalid(
            f'it holds {len(images)} images, not one')
    return images[0]


def blob(directory: pathlib.Path, name: digest.Digest) -> pathlib.Path:
    """The file of a blob."""
    return directory / thin.blob_name(name)


def from_directory(directory: pathlib.Path) -> Image:
    """The image of a layout that holds one.

    :raises ImageInvalid: it holds another number, or is malformed
    """
    return _one(_images(lambda name: (directory / name).read_bytes()))


def from_tar(file: Readable) -> list[Image]:
    """The images of a layout in a tar; none if it is something else.

    :param file: read once, and no further than needed
    :raises ImageInvalid: malformed
    """
    try:
        archive = tarfile.open(fileobj=typing.cast(typing.BinaryIO, file),
                               mode='r|')
    except tarfile.TarError:
        return []
    try:
        with archive:
            found = _documents(archive)
    except tarfile.TarError as e:
        raise exception.ImageInvalid(f'it is damaged: {e}; upload it again')
    if not {'index.json', 'oci-layout'} <= found.keys():
        return []

    def read(name: str) -> bytes:
        try:
            return found[name]
        except KeyError:
            raise FileNotFoundError(name)

    return _images(read)


def _documents(archive: tarfile.TarFile) -> dict[str, bytes]:
    """What may be JSON in an archive; nothing if it is surely no layout."""
    found: dict[str, bytes] = {}
    foreign = 0
    for member in archive:
        name = posixpath.normpath(member.name)
        if name not in _NAMES and not name.startswith('blobs/'):
            foreign += 1
            if foreign > _FOREIGN_MAX:
                return {}
        elif member.isfile() and member.size <= document.SIZE_MAX:
            file = archive.extractfile(member)
            data = file.read() if file else b''
            # Many a layer is as small.
            if name in _NAMES or data.lstrip().startswith(b'{'):
                found[name] = data
    return found


def write(directory: pathlib.Path, image: Image) -> None:
    """Make a layout that lacks but the layers."""
    (directory / 'blobs' / 'sha256').mkdir(parents=True)
    for data in (image.raw_manifest, image.raw_config):
        blob(directory, digest.Digest.of(data)).write_bytes(data)
    media_type = json.loads(image.raw_manifest).get(
        'mediaType', 'application/vnd.oci.image.manifest.v1+json')
    (directory / 'oci-layout').write_text('{"imageLayoutVersion":"1.0.0"}')
    (directory / 'index.json').write_text(json.dumps({
        'schemaVersion': 2, 'manifests': [{
            'mediaType': media_type,
            'digest': digest.Digest.of(image.raw_manifest),
            'size': len(image.raw_manifest),
            'annotations': skopeo.REFERENCE}]}))
