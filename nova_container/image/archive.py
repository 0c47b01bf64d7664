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

"""Image archives as Glance has them: ``docker save`` and OCI image layouts.

An archive is a tar whose members are looked up by name; nothing is copied.
What comes out is the image's config and where in the file its layers are.
Runs as an ordinary user, and reads hostile input: every size is bounded, and
nothing is decompressed. What is no archive of an image may be a root file
system; see ``rootfs``.

Image Layout Specification (image-layout.md of OCI's image specification);
Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset
Format". An archive with an OCI layout, which Docker writes as well since
version 25, is read as one: all its blobs have digests.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import itertools
import os
import posixpath

from nova_container import exception
from nova_container.image import thin
from nova_container.layer import tar
from nova_container.oci import digest
from nova_container.oci import document
from nova_container.oci import image_config
from nova_container.oci import manifest
from nova_container.oci import platform

# An archive holds a few members per layer and platform.
_MEMBERS_MAX = 20000
_EXTENSIONS_MAX = 32 << 20
# PATH_MAX of linux/limits.h.
_NAME_MAX = 4096
_NESTING_MAX = 4
_LINKS_MAX = 8

_MAGIC = {b'\x1f\x8b\x08': 'gzip', b'\x28\xb5\x2f\xfd': 'zstd',
          b'\xfd7zXZ\0': 'xz', b'BZh': 'bzip2'}


@dataclasses.dataclass(frozen=True)
class LayerBlob:
    """Where a layer is.

    :param offset: in the archive, bytes; None if it is not in there, see
        ``thin``: then there is a ``blob_digest``
    :param size: as stored, bytes
    :param compression: one of ``oci.manifest.READABLE``
    :param blob_digest: of the bytes as stored, where the format tells it
    """

    diff_id: digest.Digest
    offset: int | None
    size: int
    compression: str
    blob_digest: digest.Digest | None = None


@dataclasses.dataclass(frozen=True)
class Archive:
    """The one image of an archive that this host can run.

    :param raw_config: the config as the image has it
    :param layers: as in ``config.diff_ids``, the lowest first
    """

    config: image_config.ImageConfig
    raw_config: bytes
    layers: tuple[LayerBlob, ...]


@dataclasses.dataclass(frozen=True)
class RootFileSystem:
    """Not an image: a tar of what may be a root file system.

    :param size: of the file, bytes
    :param compression: one of ``oci.manifest.READABLE``
    """

    size: int
    compression: str


@dataclasses.dataclass(frozen=True)
class _Place:
    offset: int
    size: int


# Fields of a LayerBlob, the first left out.
_Stored = tuple[int | None, int, str, digest.Digest | None]


class _File:
    """A ``tar.Source`` that skips by seeking."""

    def __init__(self, fd: int):
        self._fd = fd
        self._end = os.fstat(fd).st_size
        self.position = 0

    def read(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self.position)
        if len(data) < size:
            raise tar.Truncated(len(data))
        self.position += size
        return data

    def views(self, size: int) -> Iterator[memoryview]:
        while size:
            piece = min(size, 1 << 20)
            yield memoryview(self.read(piece))
            size -= piece

    def skip(self, size: int) -> None:
        left = self._end - self.position
        if size > left:
            raise tar.Truncated(left)
        self.position += size


class _Members:
    """The first members of an archive by name; the last of a name counts."""

    def __init__(self, fd: int):
        self._fd = fd
        self._files: dict[str, _Place] = {}
        self._links: dict[str, str] = {}
        source = _File(fd)
        extensions = 0
        for member in itertools.islice(tar.Reader(source), _MEMBERS_MAX):
            _check_length(member.name)
            _check_length(member.linkname)
            # All long names are in there.
            extensions += member.extra
            if extensions > _EXTENSIONS_MAX:
                break
            name = _normal(member.name)
            self._files.pop(name, None)
            self._links.pop(name, None)
            if member.type == tar.FILE and member.data_map is None:
                self._files[name] = _Place(source.position, member.stored)
            elif member.type == tar.SYMLINK:
                # Docker before version 25 linked equal layers.
                self._links[name] = _normal(os.path.join(
                    os.path.dirname(os.fsencode(name)), member.linkname))
            elif member.type == tar.HARDLINK:
                self._links[name] = _normal(member.linkname)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def find(self, name: str) -> _Place:
        """Where the file ``name`` is, through links.

        :raises ImageInvalid: there is none
        """
        target = name = posixpath.normpath(name)
        for _hop in range(_LINKS_MAX):
            if target in self._files:
                return self._files[target]
            target = self._links.get(target, '')
        raise exception.ImageInvalid(
            f'the archive lacks {name[:200]!r}; save the image again')

    def read(self, name: str) -> bytes:
        """The content of a JSON document."""
        place = self.find(name)
        if place.size > document.SIZE_MAX:
            raise exception.ImageInvalid(
                f'{name} has {place.size} bytes, more than '
                f'{document.SIZE_MAX}')
        return os.pread(self._fd, place.size, place.offset)

    def compression(self, place: _Place) -> str:
        """How the layer there is compressed.

        :raises ImageInvalid: in a way that is not supported
        """
        found = _compression(self._fd, place)
        if found not in manifest.READABLE:
            raise exception.ImageInvalid(
                f'a layer is compressed with {found}; save the image again '
                'with plain, gzip or zstd layers')
        return found


def _check_length(name: bytes) -> None:
    if len(name) > _NAME_MAX:
        raise exception.ImageInvalid(
            f'the name {tar.show(name)} has {len(name)} bytes, more than '
            f'{_NAME_MAX}')


def _normal(name: bytes) -> str:
    return posixpath.normpath(os.fsdecode(name))


def _compression(fd: int, place: _Place) -> str:
    """By its first bytes; bzip2, too, which nothing here reads."""
    start = os.pread(fd, min(6, place.size), place.offset)
    return next((name for magic, name in _MAGIC.items()
                 if start.startswith(magic)), 'none')


def read(fd: int, host: platform.Platform) -> Archive | RootFileSystem:
    """Find the image in an archive.

    :param fd: of a seekable file; its position does not matter
    :raises ImageInvalid: not an archive, or not of exactly one image
    :raises ImageArchitecture: no image for this host in it
    """
    size = os.fstat(fd).st_size
    if not size:
        raise exception.ImageInvalid('it is empty; upload it again')
    compression = _compression(fd, _Place(0, size))
    if compression == 'none':
        try:
            members = _Members(fd)
        except exception.ImageInvalid as e:
            raise exception.ImageInvalid(
                'not a docker save or OCI archive nor a tar of a root file '
                f'system, or damaged: {e}')
        if 'index.json' in members and 'oci-layout' in members:
            found = _read_oci(members, host)
        elif 'manifest.json' in members:
            found = _read_docker(members)
        elif 'repositories' in members:
            raise exception.ImageInvalid(
                'it was saved by Docker before 1.10; load it into a newer one '
                'and save it again')
        else:
            return RootFileSystem(size, compression)
    elif compression in manifest.READABLE:
        return RootFileSystem(size, compression)
    else:
        raise exception.ImageInvalid(
            f'it is compressed with {compression}; use gzip, zstd or xz for '
            'a root file system, and nothing for the archive of an image')
    wanted = found.config.platform
    if host.suitability(wanted) is None:
        raise exception.ImageArchitecture(
            f'it is for {wanted}, this host is {host}; use an image for '
            f'{host}')
    return found


def _archive(raw_config: bytes,
             blobs: Sequence[_Stored]
             ) -> Archive:
    config = image_config.ImageConfig.from_json(raw_config)
    if len(blobs) != len(config.diff_ids):
        raise exception.ImageInvalid(
            f'its manifest lists {len(blobs)} layers, its config '
            f'{len(config.diff_ids)}')
    return Archive(config, raw_config, tuple(
        LayerBlob(diff_id, *blob)
        for diff_id, blob in zip(config.diff_ids, blobs)))


def _read_docker(members: _Members) -> Archive:
    images = manifest.docker_images_from_json(members.read('manifest.json'))
    if len(set(images)) != 1:
        raise exception.ImageInvalid(
            f'the archive holds {len(set(images))} images; save one')
    image = images[0]
    raw_config = members.read(image.config)
    # <hex>.json, or blobs/sha256/<hex>
    stem = posixpath.basename(image.config).removesuffix('.json')
    if len(stem) == 64 and 'sha256:' + stem != digest.Digest.of(raw_config):
        raise _mismatch('its config', 'sha256:' + stem, raw_config)
    places = [members.find(path) for path in image.layers]
    return _archive(raw_config, [
        (place.offset, place.size, members.compression(place), None)
        for place in places])


def _mismatch(what: str, wanted: str,
              data: bytes) -> exception.ImageInvalid:
    return exception.ImageInvalid(
        f'{what} should have the digest {wanted} but has '
        f'{digest.Digest.of(data)}; the image is damaged, upload it again')


def _find_blob(members: _Members, blob: manifest.Descriptor) -> _Place:
    place = members.find(thin.blob_name(blob.digest))
    if place.size != blob.size:
        raise exception.ImageInvalid(
            f'blob {blob.digest} has {place.size} bytes, its descriptor says '
            f'{blob.size}')
    return place


def _read_blob(members: _Members, blob: manifest.Descriptor) -> bytes:
    _find_blob(members, blob)
    data = members.read(thin.blob_name(blob.digest))
    if digest.Digest.of(data) != blob.digest:
        raise _mismatch('a blob', blob.digest, data)
    return data


def _read_oci(members: _Members, host: platform.Platform) -> Archive:
    chosen = _choose(members, manifest.index_from_json(
        members.read('index.json'), 'index.json'), host)
    image = manifest.manifest_from_json(_read_blob(members, chosen),
                                        f'manifest {chosen.digest}')
    blobs: list[_Stored] = []
    for layer in image.layers:
        inside = thin.blob_name(layer.digest) in members
        offset = _find_blob(members, layer).offset if inside else None
        compression = manifest.LAYER_TYPES[layer.media_type]
        blobs.append((offset, layer.size, compression, layer.digest))
    return _archive(_read_blob(members, image.config), blobs)


def _choose(members: _Members, index: tuple[manifest.Descriptor, ...],
            host: platform.Platform) -> manifest.Descriptor:
    """The manifest that suits the host best, through nested indexes."""
    found: dict[digest.Digest, manifest.Descriptor] = {}
    for _level in range(_NESTING_MAX):
        nested: dict[digest.Digest, manifest.Descriptor] = {}
        for item in index:
            if item.media_type in manifest.INDEX_TYPES:
                nested[item.digest] = item
            elif item.media_type in manifest.MANIFEST_TYPES:
                found[item.digest] = item
        index = tuple(
            below for item in nested.values()
            for below in manifest.index_from_json(
                _read_blob(members, item), f'index {item.digest}'))
        if not index:
            break
    else:
        raise exception.ImageInvalid('its indexes are nested too deep')

    unnamed = [item for item in found.values() if item.platform is None]
    suited = [(host.suitability(item.platform), item)
              for item in found.values() if item.platform is not None]
    best = max((level for level, _item in suited if level is not None),
               default=None)
    candidates = [item for level, item in suited
                  if level is not None and level == best]
    # Without a platform in the index, the config tells it.
    candidates = candidates or unnamed
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise exception.ImageInvalid(
            f'the archive holds {len(candidates)} images for {host}; save '
            'one')
    if not found:
        raise exception.ImageInvalid('its index lists no image')
    names = ', '.join(sorted(str(item.platform) for item in found.values()))
    raise exception.ImageArchitecture(
        f'it is for {names}, this host is {host}; use an image for {host}')
