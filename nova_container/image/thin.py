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

"""Thin images: in Glance, the layers of an image are images of their own.

A thin image is an archive with an OCI image layout that lacks layer blobs.
The specification has it so: "blobs may be missing, in which case the missing
blobs should be fulfilled by an external blob store" (image-layout.md). Here
that is Glance: each layer blob is a hidden image named after its digest. The
reference guide, "Thin images", says all of it.

Nothing here talks to Glance; the compute driver and the client do, each by
its own library.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import io
import json
import tarfile

from nova_container.oci import digest
from nova_container.oci import manifest

# A property of images and layers, for lists and people; no reader trusts it.
PROPERTY = 'container_layout'
THIN = 'thin'
ARCHIVE = 'archive'
LAYER = 'layer'
CHANGES = 'changes'

# The property with which a snapshot is asked to be no image but the list of
# what a server has changed; its value is the server's id, so that no server
# inherits it from its image.
CHANGES_OF = 'container_changes_of'

# What Glance is told about both.
CONTAINER_FORMAT = 'docker'
DISK_FORMAT = 'raw'

# Names in one request: longer addresses are refused by some servers.
_NAMES_MAX = 20

_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
_CONFIG = 'application/vnd.oci.image.config.v1+json'
_INDEX = 'application/vnd.oci.image.index.v1+json'
_LAYER = 'application/vnd.oci.image.layer.v1.tar'


@dataclasses.dataclass(frozen=True)
class LayerImage:
    """What Glance says about an image that may hold a layer.

    :param name: digest of the blob, if it is one
    :param owner: id of its project
    :param visibility: private, shared, community or public
    :param size: bytes
    :param hash_algo: with ``hash_value``, what Glance has computed of the
        data (``os_hash_algo``, ``os_hash_value``)
    :param created: in the format of Glance, which sorts by time
    :param updated: the same; reused by a push, too
    """

    id: str
    name: str
    owner: str
    visibility: str
    status: str
    size: int
    hash_algo: str | None = None
    hash_value: str | None = None
    created: str = ''
    updated: str = ''

    @classmethod
    def of(cls, image: Mapping[str, object]) -> 'LayerImage':
        """From an image as the API of Glance has it (version 2)."""
        return cls(id=str(image['id']), name=str(image.get('name') or ''),
                   owner=str(image.get('owner') or ''),
                   visibility=str(image.get('visibility') or ''),
                   status=str(image.get('status') or ''),
                   size=int(str(image.get('size') or 0)),
                   hash_algo=_text(image.get('os_hash_algo')),
                   hash_value=_text(image.get('os_hash_value')),
                   created=str(image.get('created_at') or ''),
                   updated=str(image.get('updated_at') or ''))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def media_type(compression: str) -> str:
    """Of a layer that is compressed so (``manifest.COMPRESSIONS``)."""
    return _LAYER if compression == 'none' else f'{_LAYER}+{compression}'


def layer_fields(layer: manifest.Descriptor,
                 diff_id: digest.Digest) -> dict[str, object]:
    """Attributes of the Glance image that holds a layer's blob."""
    return {'name': str(layer.digest), 'os_hidden': True,
            'container_format': CONTAINER_FORMAT,
            'disk_format': DISK_FORMAT, 'visibility': 'private',
            PROPERTY: LAYER,
            'container_diff_id': str(diff_id),
            'container_media_type': layer.media_type}


def queries(blobs: Iterable[digest.Digest]) -> Iterator[dict[str, str]]:
    """Filters of requests to list the images that may hold the blobs."""
    names = sorted(set(blobs))
    for start in range(0, len(names), _NAMES_MAX):
        # Glance takes what is before a colon for an operator.
        yield {'os_hidden': 'true', 'visibility': 'all',
               'member_status': 'all',
               'name': 'in:' + ','.join(names[start:start + _NAMES_MAX])}


def candidates(blob: digest.Digest, size: int, images: Iterable[LayerImage],
               project: str, owner: str | None = None) -> list[LayerImage]:
    """The images that may hold a blob, the best first.

    Only those of the project that asks, of the image's owner and public ones
    count: nobody else can then get in the way by an image of that name.

    :param size: of the blob, bytes
    :param project: id of the project that asks
    :param owner: id of the project that the thin image belongs to
    """
    def rank(image: LayerImage) -> int:
        if image.owner == project:
            return 0
        return 1 if image.owner == owner else 2

    found = [image for image in images
             if image.name == blob and image.status == 'active'
             and image.size == size
             and (rank(image) < 2 or image.visibility == 'public')]
    return sorted(found, key=lambda image: (rank(image), image.created,
                                            image.id))


def unused(layers: Iterable[LayerImage], needed: Iterable[digest.Digest],
           visibilities: Iterable[str] = ('private',)) -> list[LayerImage]:
    """The layer images that no image needs, and surplus equal ones.

    :param layers: the layer images of one project
    :param needed: blobs that thin images need
    :param visibilities: others are left alone, for images of other projects
        may need them
    """
    kept = set(visibilities)
    wanted = set(needed)
    surplus = []
    seen: set[str] = set()
    for image in sorted(layers, key=lambda image: (
            image.status != 'active', image.created, image.id)):
        first = image.name not in seen
        seen.add(image.name)
        if image.visibility in kept and (
                image.name not in wanted or image.status != 'active'
                or not first):
            surplus.append(image)
    return surplus


def build(config: bytes, layers: Sequence[manifest.Descriptor],
          annotations: Mapping[str, str] | None = None,
          raw_manifest: bytes | None = None) -> bytes:
    """The archive of a thin image; the same for the same arguments.

    :param config: as the manifest is to name it, byte by byte
    :param layers: the lowest first
    :param annotations: of the manifest
    :param raw_manifest: to be taken as it is, instead of one made here
    """
    if raw_manifest is None:
        raw_manifest = _json({
            'schemaVersion': 2, 'mediaType': _MANIFEST,
            'config': _descriptor(_CONFIG, config),
            'layers': [{'mediaType': layer.media_type,
                        'digest': layer.digest, 'size': layer.size}
                       for layer in layers],
            **({'annotations': dict(annotations)} if annotations else {})})
    top = _descriptor(_media_type(raw_manifest), raw_manifest)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w',
                      format=tarfile.USTAR_FORMAT) as archive:
        for name, data in (
                ('oci-layout', _json({'imageLayoutVersion': '1.0.0'})),
                ('index.json', _json({'schemaVersion': 2,
                                      'mediaType': _INDEX,
                                      'manifests': [top]})),
                (blob_name(digest.Digest.of(raw_manifest)), raw_manifest),
                (blob_name(digest.Digest.of(config)), config)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def blob_name(blob: digest.Digest) -> str:
    """Of the member of an archive that holds the blob."""
    return f'blobs/sha256/{blob.hex}'


def blob_header(blob: manifest.Descriptor) -> bytes:
    """What precedes a blob in an archive; zeros up to a multiple of 512 bytes
    follow it.
    """
    member = tarfile.TarInfo(blob_name(blob.digest))
    member.size = blob.size
    return member.tobuf(tarfile.PAX_FORMAT)


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {'mediaType': media_type, 'digest': digest.Digest.of(data),
            'size': len(data)}


def _media_type(raw_manifest: bytes) -> str:
    return json.loads(raw_manifest).get('mediaType') or _MANIFEST


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(',', ':')).encode()
