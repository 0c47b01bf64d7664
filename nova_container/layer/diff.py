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

"""From overlayfs to a layer: the reverse of ``extract``.

Runs with the writable directory of an overlay, or with a stored layer, as
root and working directory, as root of the user namespace that its files belong
to. So owners are what they are inside, and no name and no link leads outside,
whatever a tenant has made of the tree.

OCI image specification, "Image Layer Filesystem Changeset" (layer.md);
Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories",
with ``userxattr``.
"""

from collections.abc import Iterator
import dataclasses
import errno
import os
import stat
from typing import Any

from nova_container import exception
from nova_container.layer import extract
from nova_container.layer import tar
from nova_container.layer import tarwriter

# What the runtime makes in order to mount over it.
MOUNT_POINTS = frozenset((
    b'dev', b'proc', b'sys', b'etc/hosts', b'etc/hostname',
    b'etc/resolv.conf'))

_PATH_MAX = 4096
_READ = 256 * 1024
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

# The map of a sparse file may have a mebibyte in Go's tar, hence Docker's.
_EXTENTS_MAX = 32768
_PAGE = 4096

# What the zeros between extents may add to a file that has more of them.
_ZEROS_FACTOR = 4
_ZEROS_EXTRA = 64 << 20

_KINDS = {stat.S_IFREG: tar.FILE, stat.S_IFDIR: tar.DIRECTORY,
          stat.S_IFLNK: tar.SYMLINK, stat.S_IFIFO: tar.FIFO,
          stat.S_IFCHR: tar.CHARACTER, stat.S_IFBLK: tar.BLOCK_DEVICE}


@dataclasses.dataclass
class Result:
    """What was written.

    :ivar dropped: sockets, and names that a layer cannot have
    """

    entries: int = 0
    dropped: int = 0


def is_whiteout(status: os.stat_result) -> bool:
    """Whether overlayfs hides what lies below by that name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(place: int | bytes) -> bool:
    """Whether overlayfs hides what lies below in a directory."""
    try:
        return os.getxattr(place, extract.OPAQUE_XATTR) == b'y'
    except OSError:
        return False


class Diff:
    """Writes the working directory as a layer.

    :param exact: as it is instead, see ``extract.Extractor``
    """

    def __init__(self, writer: tarwriter.Writer, exact: bool = False):
        self._writer = writer
        self._exact = exact
        self._result = Result()
        # First name of each file of several.
        self._names: dict[int, bytes] = {}

    def run(self) -> Result:
        """Write everything, directories before what is in them.

        :raises ContainerError: a layer cannot hold an entry
        """
        self._attempt(b'', os.lstat(b'.'))
        stack = [self._below(b'')]
        while stack:
            directory = next(stack[-1], None)
            if directory is None:
                stack.pop()
            else:
                stack.append(self._below(directory + b'/'))
        self._writer.finish()
        return self._result

    def _below(self, parent: bytes) -> Iterator[bytes]:
        """Write what is in a directory; yields the directories among it."""
        for name in sorted(os.listdir(parent or b'.')):
            path = parent + name
            if len(path) >= _PATH_MAX:
                raise exception.ImageInvalid(
                    f'the path {tar.show(path)} has {_PATH_MAX} bytes or '
                    'more, which no image can have; remove it')
            status = os.lstat(path)
            if (path in MOUNT_POINTS and not self._exact
                    and self._untouched(path, status)):
                continue
            if self._attempt(path, status):
                yield path

    def _attempt(self, path: bytes, status: os.stat_result) -> bool:
        """Write one entry; whether it is a directory."""
        try:
            return self._entry(path, status)
        except tarwriter.Unrepresentable as e:
            raise exception.ImageInvalid(
                f'the file {tar.show(path)} does not fit into an image: {e}')

    @staticmethod
    def _untouched(path: bytes, status: os.stat_result) -> bool:
        if stat.S_ISDIR(status.st_mode):
            return not os.listdir(path)
        return stat.S_ISREG(status.st_mode) and not status.st_size

    def _entry(self, path: bytes, status: os.stat_result) -> bool:
        parent, slash, name = path.rpartition(b'/')
        if is_whiteout(status) and not self._exact:
            self._add(tar.FILE, parent + slash + extract.WHITEOUT + name)
            return False
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None or (name.startswith(extract.WHITEOUT)
                            and not self._exact):
            self._result.dropped += 1
            return False
        if kind == tar.DIRECTORY:
            self._add(kind, path + b'/' if path else b'./',
                      xattrs=self._xattrs(path or b'.'), **_fields(status))
            if path and not self._exact and is_opaque(path):
                self._add(tar.FILE, path + b'/' + extract.OPAQUE)
            return True
        if status.st_nlink > 1:
            first = self._names.setdefault(status.st_ino, path)
            if first != path:
                self._add(tar.HARDLINK, path, linkname=first,
                          **_fields(status))
                return False
        if kind == tar.FILE:
            self._file(path)
        elif kind == tar.SYMLINK:
            self._add(kind, path, linkname=os.readlink(path),
                      **_fields(status))
        else:
            rdev = status.st_rdev if kind != tar.FIFO else 0
            self._add(kind, path, device=(os.major(rdev), os.minor(rdev)),
                      **_fields(status))
        return False

    def _add(self, kind: bytes, name: bytes, **fields: Any) -> None:
        self._result.entries += 1
        self._writer.add(kind, name, **fields)

    def _file(self, path: bytes) -> None:
        fd = os.open(path, _OPEN)
        try:
            status = os.fstat(fd)
            holes = status.st_blocks * 512 < status.st_size
            extents = self._extents(path, fd, status) if holes else None
            self._add(tar.FILE, path, size=status.st_size,
                      xattrs=self._xattrs(fd), data_map=extents,
                      **_fields(status))
            for offset, length in (extents if extents is not None
                                   else [(0, status.st_size)]):
                self._copy(path, fd, offset, length)
            self._writer.pad()
        finally:
            os.close(fd)

    def _copy(self, path: bytes, fd: int, offset: int, left: int) -> None:
        while left:
            data = os.pread(fd, min(left, _READ), offset)
            if not data:
                raise exception.StateConflict(
                    f'the file {tar.show(path)} became shorter while it was '
                    'read')
            self._writer.write(data)
            offset += len(data)
            left -= len(data)

    @staticmethod
    def _extents(path: bytes, fd: int,
                 status: os.stat_result) -> list[tuple[int, int]]:
        """Where the file has data, in a bounded number of pieces."""
        gap = 0
        found: list[tuple[int, int]] = []
        for offset, end in _data(fd, status.st_size):
            found.append((offset, end))
            while len(found) > _EXTENTS_MAX:
                gap = max(2 * gap, _PAGE)
                found = _merged(found, gap)
        extents = [(offset, end - offset)
                   for offset, end in _merged(found, gap)]
        stored = sum(length for _, length in extents)
        if stored > (_ZEROS_FACTOR * status.st_blocks * 512 + _ZEROS_EXTRA):
            raise exception.ImageInvalid(
                f'the file {tar.show(path)} has more than {_EXTENTS_MAX} '
                'holes, too far apart for an image; copy it (cp '
                '--sparse=never) or remove it')
        return extents

    def _xattrs(self, place: int | bytes) -> dict[bytes, bytes]:
        found = {}
        for name in map(os.fsencode, os.listxattr(place)):
            if extract.keeps_xattr(name, self._exact):
                try:
                    found[name] = os.getxattr(place, name)
                except OSError as e:
                    # Of another user namespace, as capabilities may be.
                    if e.errno not in (errno.ENODATA, errno.EOVERFLOW):
                        raise
        return dict(sorted(found.items()))


def _fields(status: os.stat_result) -> dict[str, int]:
    return {'mode': stat.S_IMODE(status.st_mode), 'uid': status.st_uid,
            'gid': status.st_gid, 'mtime': status.st_mtime_ns}


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and end of each piece of data."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as e:
            # Only a hole is left.
            if e.errno == errno.ENXIO:
                return
            raise
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end


def _merged(pieces: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """The pieces, those at most ``gap`` bytes apart joined."""
    joined: list[tuple[int, int]] = []
    for start, end in pieces:
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
