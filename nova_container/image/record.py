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

"""What is known of the images and layers of this host, in small files.

::

    <state_path>/images/<image id>.json     an image that is complete here
    <state_path>/blobs/<digest>.json        a layer blob that was here

A file is written whole or not at all. The time of an image's file is when the
image was last used.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import json
import os
import re

from nova_container import exception
from nova_container.image import archive
from nova_container.image import trust as image_trust
from nova_container.oci import digest
from nova_container.oci import image_config

_IMAGE_ID = re.compile(r'^[A-Za-z0-9][A-Za-z0-9_-]{0,127}\Z')
_SUFFIX = '.json'


@dataclasses.dataclass(frozen=True)
class Record:
    """An image whose layers are, or were, all on this host.

    :param raw_config: as the image has it
    :param layers: as the config lists them
    :param trust: what the signature of the archive has lived up to here, if
        it was checked
    """

    raw_config: bytes
    layers: tuple[archive.LayerBlob, ...]
    trust: image_trust.Trust | None = None

    @property
    def config(self) -> image_config.ImageConfig:
        return image_config.ImageConfig.from_json(self.raw_config)

    @property
    def outside(self) -> tuple[archive.LayerBlob, ...]:
        """The layers that are images of their own."""
        return tuple(layer for layer in self.layers if layer.offset is None)


@dataclasses.dataclass(frozen=True)
class Blob:
    """A layer blob whose content was seen and checked.

    :param size: bytes
    :param hashes: algorithm to value, as Glance computes them
    """

    diff_id: digest.Digest
    size: int
    hashes: dict[str, str]


def _write(path: str, content: object) -> None:
    """
    :raises NoSpace: the file system is full
    """
    try:
        with open(path + '.new', 'w') as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(path + '.new', path)
    except OSError as e:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + '.new')
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise exception.NoSpace(
            f'{os.path.dirname(path)} is full; make room on this host')


class Images:
    """The records of images.

    :ivar path: their directory
    """

    def __init__(self, path: str):
        self.path = path

    def _file(self, image_id: str) -> str:
        """
        :raises ImageInvalid: it is not an id
        """
        if not _IMAGE_ID.match(image_id):
            raise exception.ImageInvalid(
                f'image id {image_id!r} is not valid')
        return os.path.join(self.path, image_id + _SUFFIX)

    def recover(self) -> None:
        """Remove what was half written."""
        for name in os.listdir(self.path):
            if not name.endswith(_SUFFIX):
                # Another process of ours may just have written it.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.path, name))

    def ids(self) -> list[str]:
        """All images that have a record."""
        return sorted(name.removesuffix(_SUFFIX)
                      for name in os.listdir(self.path)
                      if name.endswith(_SUFFIX))

    def load(self, image_id: str) -> Record | None:
        """The record of an image, if there is one."""
        try:
            with open(self._file(image_id)) as file:
                found = json.load(file)
        except FileNotFoundError:
            return None
        if 'layers' not in found:
            # Of an earlier version; it is fetched again.
            return None
        return Record(found['config'].encode(), tuple(
            archive.LayerBlob(**{
                **layer, 'diff_id': digest.Digest(layer['diff_id']),
                'blob_digest': (layer['blob_digest']
                                and digest.Digest(layer['blob_digest']))})
            for layer in found['layers']),
            image_trust.Trust.of(found.get('trust')))

    def save(self, image_id: str, record: Record) -> None:
        """
        :raises NoSpace: the file system is full
        """
        _write(self._file(image_id), {
            'config': record.raw_config.decode(),
            'layers': [dataclasses.asdict(layer) for layer in record.layers],
            'trust': record.trust and record.trust.as_json()})

    def remove(self, image_id: str) -> None:
        """Succeeds if there is none."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file(image_id))

    def touch(self, image_id: str) -> None:
        """It is used."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._file(image_id))

    def last_used(self, image_id: str) -> float:
        """Seconds since the epoch; 0 if there is no record."""
        try:
            return os.stat(self._file(image_id)).st_mtime
        except FileNotFoundError:
            return 0

    def layers(self) -> Iterator[tuple[str, digest.Digest]]:
        """Pairs of an image and a layer that it needs."""
        for image_id in self.ids():
            record = self.load(image_id)
            for layer in record.layers if record else ():
                yield image_id, layer.diff_id


class Blobs:
    """What was learned of layer blobs while they were fetched."""

    def __init__(self, path: str):
        self._path = path

    def _file(self, blob: digest.Digest) -> str:
        return os.path.join(self._path, blob.hex + _SUFFIX)

    def load(self, blob: digest.Digest) -> Blob | None:
        """What is known of a blob."""
        try:
            with open(self._file(blob)) as file:
                found = json.load(file)
        except FileNotFoundError:
            return None
        return Blob(digest.Digest(found['diff_id']), found['size'],
                    found['hashes'])

    def save(self, blob: digest.Digest, known: Blob) -> None:
        """
        :raises NoSpace: the file system is full
        """
        _write(self._file(blob), dataclasses.asdict(known))

    def keep(self, layers: Iterable[digest.Digest]) -> None:
        """Forget the blobs of all other layers."""
        kept = set(layers)
        for name in os.listdir(self._path):
            path = os.path.join(self._path, name)
            if not name.endswith(_SUFFIX):
                os.unlink(path)
                continue
            blob = digest.Digest('sha256:' + name.removesuffix(_SUFFIX))
            known = self.load(blob)
            if known is not None and known.diff_id not in kept:
                os.unlink(path)
