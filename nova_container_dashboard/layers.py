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

"""The layers of an archive, without reading the whole of it.

Its table of contents and its JSON documents are a few kilobytes among
hundreds of megabytes of layers. Both are a tenant's, so all is bounded.
"""

import dataclasses
import io
import json
import tarfile
import typing as ty

_DOCUMENT_MAX = 4 << 20
_FETCHED_MAX = 32 << 20
_HEADER_MAX = 16 << 10
_INDEXES_MAX = 4
# The driver's own limit.
_LAYERS_MAX = 500
_MEMBERS_MAX = 2000
_REQUESTS_MAX = 500
# No page can show a size beyond that of a file.
_SIZE_MAX = 1 << 63

_LONG_HEADERS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE,
                 tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class Unreadable(Exception):
    """The image is not an archive whose layers can be told."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """:ivar size: bytes in the archive, or of the blob"""

    digest: str
    size: int
    created_by: str = ''


class Ranges(io.RawIOBase):
    """A file over ``fetch(offset, size)``, which returns bytes."""

    def __init__(self, fetch: ty.Callable[[int, int], bytes], size: int):
        self._fetch = fetch
        self._size = size
        self._position = 0
        self._requests = 0
        self._fetched = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position,
                io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: ty.Any) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        self._requests += 1
        self._fetched += wanted
        if self._requests > _REQUESTS_MAX or self._fetched > _FETCHED_MAX:
            raise Unreadable('the archive has too many parts')
        data = self._fetch(self._position, wanted)
        buffer[:len(data)] = data
        self._position += len(data)
        return len(data)


class _Member(tarfile.TarInfo):
    """A member whose further headers are not read at any size."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        found = super().frombuf(buf, encoding, errors)
        # A global one is copied for each member.
        if (found.type == tarfile.XGLTYPE
                or found.type in _LONG_HEADERS and found.size > _HEADER_MAX):
            raise Unreadable('the archive has a header that no image needs')
        return found


def read(file: ty.BinaryIO) -> list[Layer]:
    """The layers of an archive, the lowest first.

    :raises Unreadable: it is neither an OCI layout nor of "docker save"
    """
    try:
        with tarfile.open(fileobj=file, mode='r:', errorlevel=0,
                          tarinfo=_Member) as archive:
            return _Archive(archive).layers()
    except (tarfile.TarError, ValueError, KeyError, TypeError, IndexError,
            AttributeError, OverflowError, RecursionError) as e:
        raise Unreadable(str(e))


class _Archive:

    def __init__(self, archive: tarfile.TarFile):
        self._archive = archive
        self._members = {}
        for count, member in enumerate(archive):
            if count > _MEMBERS_MAX:
                raise Unreadable('the archive has too many parts')
            self._members[member.name.removeprefix('./')] = member

    def _json(self, name: str) -> ty.Any:
        member = self._members[name]
        # The size of a link is not that of what it leads to.
        if not member.isreg() or member.size > _DOCUMENT_MAX:
            raise Unreadable(f'{name} is no document of an image')
        return json.load(self._archive.extractfile(member))

    def _blob(self, descriptor: dict[str, ty.Any]) -> ty.Any:
        return self._json('blobs/sha256/'
                          + descriptor['digest'].removeprefix('sha256:'))

    def _manifest(self) -> ty.Any:
        document = self._json('index.json')
        for _ in range(_INDEXES_MAX):
            if 'manifests' not in document:
                return document
            document = self._blob(document['manifests'][0])
        raise Unreadable('an index leads to no manifest')

    def layers(self) -> list[Layer]:
        if 'index.json' in self._members:
            document = self._manifest()
            config = self._blob(document['config'])
            sizes = [layer['size'] for layer in document['layers']]
        else:
            image = self._json('manifest.json')[0]
            config = self._json(image['Config'])
            sizes = [self._members[name].size for name in image['Layers']]
        history = [entry.get('created_by', '')
                   for entry in config.get('history') or ()
                   if not entry.get('empty_layer')]
        digests = config['rootfs']['diff_ids']
        if len(digests) > _LAYERS_MAX:
            raise Unreadable('the image has too many layers')
        if len(history) != len(digests):
            history = [''] * len(digests)
        found = [Layer(str(digest), int(size), str(text))
                 for digest, size, text in zip(digests, sizes, history)]
        if not all(0 <= layer.size < _SIZE_MAX for layer in found):
            raise Unreadable('a layer has a size that no file has')
        return found
