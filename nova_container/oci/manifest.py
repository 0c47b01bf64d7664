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

"""Manifests and indexes: which blobs make an image.

OCI image specification (manifest.md, image-index.md, descriptor.md,
image-layout.md), Docker image manifest version 2 schema 2, and manifest.json
of ``docker save`` (Docker image specification v1.2).
"""

import dataclasses

from nova_container import exception
from nova_container.oci import digest
from nova_container.oci import document
from nova_container.oci import platform as platform_

INDEX_TYPES = frozenset((
    'application/vnd.oci.image.index.v1+json',
    'application/vnd.docker.distribution.manifest.list.v2+json',
))
MANIFEST_TYPES = frozenset((
    'application/vnd.oci.image.manifest.v1+json',
    'application/vnd.docker.distribution.manifest.v2+json',
))
CONFIG_TYPES = frozenset((
    'application/vnd.oci.image.config.v1+json',
    'application/vnd.docker.container.image.v1+json',
))
COMPRESSIONS = ('none', 'gzip', 'zstd')
# Of root file systems, too: LXC templates have it.
READABLE = (*COMPRESSIONS, 'xz')

# media type -> compression
LAYER_TYPES = {
    'application/vnd.oci.image.layer.v1.tar': 'none',
    'application/vnd.oci.image.layer.v1.tar+gzip': 'gzip',
    'application/vnd.oci.image.layer.v1.tar+zstd': 'zstd',
    'application/vnd.oci.image.layer.nondistributable.v1.tar': 'none',
    'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip': 'gzip',
    'application/vnd.oci.image.layer.nondistributable.v1.tar+zstd': 'zstd',
    'application/vnd.docker.image.rootfs.diff.tar': 'none',
    'application/vnd.docker.image.rootfs.diff.tar.gzip': 'gzip',
    'application/vnd.docker.image.rootfs.diff.tar.zstd': 'zstd',
}

_ATTESTATION = 'vnd.docker.reference.type'


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """Type, digest and size in bytes of a blob.

    :param platform: in an index, what the image is for, if said
    :param attestation: not an image but a statement about one
    """

    media_type: str
    digest: digest.Digest
    size: int
    platform: platform_.Platform | None = None
    attestation: bool = False


@dataclasses.dataclass(frozen=True)
class Manifest:
    """One image: its config and its layers, the lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclasses.dataclass(frozen=True)
class DockerImage:
    """One item of manifest.json: paths of members of the archive."""

    config: str
    layers: tuple[str, ...]


def _descriptor(doc: document.Document) -> Descriptor:
    wanted = None
    if 'platform' in doc:
        item = doc.document('platform')
        wanted = platform_.Platform(
            item.string('os'), item.string('architecture'),
            item.string('variant'))
    if not doc.string('digest').startswith('sha256:'):
        doc.fail('digest', 'is not sha256')
    return Descriptor(
        media_type=doc.string('mediaType'),
        digest=digest.Digest(doc.string('digest')),
        size=doc.integer('size'),
        platform=wanted,
        attestation=_ATTESTATION in doc.table('annotations'))


def _schema(doc: document.Document) -> None:
    if doc.integer('schemaVersion') != 2:
        doc.fail('schemaVersion', f'is {doc.integer("schemaVersion")}; only '
                 '2 is supported')


def index_from_json(data: bytes, where: str) -> tuple[Descriptor, ...]:
    """The manifests of an index or manifest list, attestations left out.

    :param where: names the document in errors
    :raises ImageInvalid: malformed
    """
    doc = document.Document.parse(data, where)
    _schema(doc)
    found = tuple(_descriptor(item) for item in doc.documents('manifests'))
    return tuple(item for item in found if not item.attestation)


def manifest_from_json(data: bytes, where: str) -> Manifest:
    """An image manifest, OCI or Docker schema 2.

    :param where: names the document in errors
    :raises ImageInvalid: malformed, or not the manifest of a container image
    """
    doc = document.Document.parse(data, where)
    _schema(doc)
    result = Manifest(_descriptor(doc.document('config')),
                      tuple(_descriptor(item)
                            for item in doc.documents('layers')))
    if result.config.media_type not in CONFIG_TYPES:
        doc.fail('config', f'is of type {result.config.media_type[:100]!r}: '
                 'this is not a container image')
    for index, layer in enumerate(result.layers):
        if layer.media_type not in LAYER_TYPES:
            doc.fail(f'layers[{index}]', 'is of the unsupported type '
                     f'{layer.media_type[:100]!r}')
    return result


def docker_images_from_json(data: bytes) -> tuple[DockerImage, ...]:
    """The items of manifest.json.

    :raises ImageInvalid: malformed
    """
    items = document.parse(data, 'manifest.json')
    if not isinstance(items, list):
        raise exception.ImageInvalid('manifest.json is not a list')
    result = []
    for index, item in enumerate(items):
        doc = document.Document(item, f'manifest.json[{index}]')
        result.append(DockerImage(doc.string('Config'),
                                  doc.strings('Layers') or ()))
    return tuple(result)
