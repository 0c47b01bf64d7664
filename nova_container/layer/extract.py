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

"""A layer's tar stream becomes a directory for an overlay file system.

Runs with the directory as root and working directory, as root of a user
namespace of 65536 ids, so that no name and no link leads outside and no owner
is a user of the host. What is refused here is refused because the layer is
broken, not because it would be dangerous.

OCI image specification, "Image Layer Filesystem Changeset" (layer.md);
whiteouts become those of overlayfs mounted with ``userxattr``
(Documentation/filesystems/overlayfs.rst).
"""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import errno
import os
import stat

from nova_container import exception
from nova_container.layer import tar

WHITEOUT = b'.wh.'
OPAQUE = b'.wh..wh..opq'
OPAQUE_XATTR = b'user.overlay.opaque'

_ORIGIN_XATTR = b'user.overlay.origin'

# acl(5). Not every file system has them.
_ACLS = frozenset((b'system.posix_acl_access', b'system.posix_acl_default'))

IDS = 65536

# Several times what the largest known images hold in one layer.
ENTRIES_MAX = 2000000

# What an entry costs at least: an inode of ext4. A directory, the target of a
# longer symbolic link and extended attributes have blocks of their own.
_ENTRY_BYTES = 256
_BLOCK_BYTES = 4096
_SHORT_LINK = 59

# More, and longer, directories that no entry names are nobody's mistake.
_IMPLIED_MAX = 10000
_IMPLIED_BYTES = 1 << 20
_PATH_MAX = 1024

# Times that any file system of today can keep, 1901 to 2446; others become
# the epoch, as Docker does.
_TIME_MIN = -(1 << 31) * 1000000000
_TIME_MAX = ((1 << 34) - (1 << 31)) * 1000000000

_CREATE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC

_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))
_TOO_LARGE = _SPACE | {errno.E2BIG, errno.ERANGE}


@dataclasses.dataclass
class Result:
    """What was unpacked.

    :ivar bytes: on disk, inodes and whole blocks counted
    :ivar dropped: device nodes left out
    :ivar opaque_root: everything in lower layers is hidden
    :ivar implied: directories without an entry of their own, that are what
        lower layers say
    """

    entries: int = 0
    bytes: int = 0
    dropped: int = 0
    opaque_root: bool = False
    implied: list[str] = dataclasses.field(default_factory=list)


class _Refused(Exception):
    """The entry at hand cannot be; says why."""


def keeps_xattr(name: bytes, exact: bool = False) -> bool:
    """Whether an extended attribute is part of an image: what a user sets,
    but not what overlayfs or a security module of the host does.

    :param exact: or part of a tree, with what overlayfs has set but names of
        files of this host
    """
    if name.startswith(b'user.'):
        return not name.startswith(b'user.overlay.') or (
            exact and name != _ORIGIN_XATTR)
    return name == b'security.capability' or name in _ACLS


def _blocks_with(pieces: Iterable[tuple[int, int]]) -> int:
    """How many blocks of a file have data.

    :param pieces: of data, as (offset, length) in order
    """
    blocks = end = 0
    for offset, length in pieces:
        if length:
            start = max(end, offset // _BLOCK_BYTES)
            end = -(-(offset + length) // _BLOCK_BYTES)
            blocks += end - start
    return blocks


def _safe(name: bytes) -> bytes:
    """The path of a member below the root, '' for the root itself."""
    path = name.removeprefix(b'./')
    if path[:1] not in b'./' and b'/.' not in path and b'//' not in path:
        return path
    if path.startswith(b'/') and path.strip(b'/'):
        raise _Refused('has an absolute name; rebuild the image')
    parts = [part for part in path.split(b'/') if part not in (b'', b'.')]
    if b'..' in parts:
        raise _Refused('leaves the root file system; rebuild the image')
    return b'/'.join(parts)


class Extractor:
    """Unpacks one archive into the working directory.

    :param max_bytes: limit of ``Result.bytes``
    :param exact: the archive is no layer, but a tree as it was: no name is a
        whiteout, and what an overlay keeps there is kept
    """

    def __init__(self, reader: tar.Reader, max_bytes: int,
                 exact: bool = False):
        self._reader = reader
        self._max_bytes = max_bytes
        self._exact = exact
        self._result = Result()
        # On no disk, but to be read.
        self._extra = 0
        # Directories made so far. Owner, mode and time wait until the end:
        # they change, or get in the way, while entries are still made.
        self._directories: dict[bytes, tar.Member | None] = {}
        self._implied_bytes = 0
        # Names whose lower versions are hidden.
        self._whiteouts: set[bytes] = set()
        self._make: dict[bytes, Callable[[bytes, tar.Member], None]] = {
            tar.FILE: self._file,
            tar.HARDLINK: self._hardlink,
            tar.SYMLINK: self._symlink,
            tar.CHARACTER: self._device,
            tar.BLOCK_DEVICE: self._device,
            tar.DIRECTORY: self._directory,
            tar.FIFO: self._fifo,
        }

    def run(self) -> Result:
        """Unpack everything.

        :raises ImageInvalid: the archive or an entry is broken
        :raises ImageTooBig: there is more than ``max_bytes``
        :raises NoSpace: the file system is full
        """
        for member in self._reader:
            self._entry(member)
        for path, directory in self._directories.items():
            if directory is not None:
                self._attempt(self._finish_directory, path, directory)
            elif path not in self._whiteouts and len(path) <= _PATH_MAX:
                self._imply(path)
        return self._result

    def _imply(self, path: bytes) -> None:
        implied = self._result.implied
        self._implied_bytes += len(path)
        if (len(implied) == _IMPLIED_MAX
                or self._implied_bytes > _IMPLIED_BYTES):
            raise exception.ImageInvalid(
                f'more than {_IMPLIED_MAX} directories, or {_IMPLIED_BYTES} '
                'bytes of their names, have no entry of their own; rebuild '
                'the image with entries for directories')
        implied.append(os.fsdecode(path))

    def _attempt(self, make: Callable[[bytes, tar.Member], None],
                 path: bytes, member: tar.Member) -> None:
        try:
            make(path, member)
        except _Refused as e:
            problem = str(e)
        except OSError as e:
            if e.errno in _SPACE:
                raise exception.NoSpace(
                    f'the file system is full at entry '
                    f'{tar.show(member.name)}')
            problem = f'cannot be made: {e.strerror}'
        except (ValueError, OverflowError) as e:
            # A NUL byte in a name or a link's target; a size beyond any.
            problem = f'cannot be made: {e}'
        else:
            return
        raise exception.ImageInvalid(
            f'entry {tar.show(member.name)} {problem}')

    def _entry(self, member: tar.Member) -> None:
        self._extra += member.extra
        self._charge(self._blocks(member))
        self._attempt(self._dispatch, b'', member)

    def _charge(self, blocks: int) -> None:
        """Count an inode and what it has beside."""
        result = self._result
        result.entries += 1
        result.bytes += _ENTRY_BYTES + blocks * _BLOCK_BYTES
        if result.bytes + self._extra > self._max_bytes:
            raise exception.ImageTooBig(
                f'more than {self._max_bytes} bytes')
        if result.entries > ENTRIES_MAX:
            raise exception.ImageInvalid(f'more than {ENTRIES_MAX} entries')

    def _blocks(self, member: tar.Member) -> int:
        blocks = 0
        if member.type == tar.DIRECTORY:
            blocks = 1
        elif member.type == tar.SYMLINK:
            blocks = len(member.linkname) > _SHORT_LINK
        elif member.data_map is not None:
            blocks = _blocks_with(member.data_map)
        elif member.type == tar.FILE:
            blocks = -(-member.size // _BLOCK_BYTES)
        if member.xattrs:
            blocks += -(-sum(
                len(name) + len(value) for name, value
                in member.xattrs.items() if keeps_xattr(name, self._exact)
            ) // _BLOCK_BYTES)
        return blocks

    def _dispatch(self, _path: bytes, member: tar.Member) -> None:
        path = _safe(member.name)
        if not 0 <= member.uid < IDS or not 0 <= member.gid < IDS:
            raise _Refused(f'belongs to {member.uid}:{member.gid}; user and '
                           f'group ids must be below {IDS}')
        parent, _slash, name = path.rpartition(b'/')
        if name.startswith(WHITEOUT) and not self._exact:
            self._whiteout(parent, name)
            return
        if not path and member.type != tar.DIRECTORY:
            raise _Refused('is the root but not a directory')
        if parent and parent not in self._directories:
            self._parents(parent)
        make = self._make[member.type]
        try:
            make(path, member)
        except FileExistsError:
            self._remove(path)
            make(path, member)

    def _parents(self, path: bytes) -> None:
        """Make ``path`` a directory with parents, root's and mode 0755."""
        done = b''
        for part in path.split(b'/'):
            done = done + b'/' + part if done else part
            if done in self._directories:
                continue
            try:
                os.mkdir(done, 0o755)
                self._charge(1)
            except FileExistsError:
                # A link to a directory will do, as with any tar.
                try:
                    mode = os.stat(done).st_mode
                except FileNotFoundError:
                    mode = 0
                if stat.S_ISDIR(mode):
                    continue
                if done not in self._whiteouts:
                    raise _Refused(f'lies below {tar.show(done)}, which is '
                                   'not a directory')
                self._remove(done)
                os.mkdir(done, 0o755)
                self._charge(1)
                self._hide_lower(done)
            self._directories[done] = None

    def _remove(self, path: bytes) -> None:
        """Remove an earlier entry of that name with all below it."""
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            self._whiteouts.add(path)
            return
        stack = [path]
        while stack:
            top = stack[-1]
            below = []
            with os.scandir(top) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
                    else:
                        os.unlink(entry.path)
            if below:
                stack.extend(below)
            else:
                os.rmdir(top)
                self._directories.pop(top, None)
                stack.pop()

    def _hide_lower(self, path: bytes) -> None:
        os.setxattr(path, OPAQUE_XATTR, b'y')

    def _whiteout(self, parent: bytes, name: bytes) -> None:
        if name == OPAQUE:
            if not parent:
                self._result.opaque_root = True
                return
            if parent not in self._directories:
                self._parents(parent)
            self._hide_lower(parent)
            return
        if name.startswith(WHITEOUT + WHITEOUT):
            # Bookkeeping of aufs.
            return
        hidden = name[len(WHITEOUT):]
        if hidden in (b'', b'.', b'..'):
            raise _Refused('is a whiteout of nothing')
        if parent and parent not in self._directories:
            self._parents(parent)
        path = parent + b'/' + hidden if parent else hidden
        self._whiteouts.add(path)
        try:
            os.mknod(path, stat.S_IFCHR)
        except FileExistsError:
            # A whiteout concerns lower layers only, whatever the order.
            if stat.S_ISDIR(os.lstat(path).st_mode):
                self._hide_lower(path)

    def _file(self, path: bytes, member: tar.Member) -> None:
        mode = member.mode
        fd = os.open(path, _CREATE, mode & 0o777)
        try:
            if member.data_map is not None:
                self._holes(fd, member)
            elif member.stored:
                for view in self._reader.views():
                    # A short write is followed by the reason.
                    while view:
                        view = view[os.write(fd, view):]
            if member.uid or member.gid:
                os.fchown(fd, member.uid, member.gid)
            if mode & 0o7000:
                os.fchmod(fd, mode)
            if member.xattrs:
                self._xattrs(fd, member)
            time = self._time(member)
            os.utime(fd, ns=(time, time))
        finally:
            os.close(fd)

    def _holes(self, fd: int, member: tar.Member) -> None:
        os.ftruncate(fd, member.size)
        extents = iter(member.data_map or ())
        offset = left = 0
        for view in self._reader.views():
            while view:
                while not left:
                    offset, left = next(extents)
                written = os.pwrite(fd, view[:left], offset)
                offset += written
                left -= written
                view = view[written:]

    def _directory(self, path: bytes, member: tar.Member) -> None:
        if path in self._directories or not path:
            self._directories[path] = member
            return
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise
        else:
            if path in self._whiteouts:
                self._hide_lower(path)
        self._directories[path] = member

    def _finish_directory(self, path: bytes, member: tar.Member) -> None:
        try:
            fd = os.open(path or b'.',
                         os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            # Made through a link, and replaced since under its other name.
            return
        try:
            if member.uid or member.gid:
                os.fchown(fd, member.uid, member.gid)
            if member.mode != 0o755:
                os.fchmod(fd, member.mode)
            if member.xattrs:
                self._xattrs(fd, member)
            time = self._time(member)
            os.utime(fd, ns=(time, time))
        finally:
            os.close(fd)

    def _symlink(self, path: bytes, member: tar.Member) -> None:
        os.symlink(member.linkname, path)
        if member.uid or member.gid:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
        time = self._time(member)
        os.utime(path, ns=(time, time), follow_symlinks=False)

    def _hardlink(self, path: bytes, member: tar.Member) -> None:
        target = _safe(member.linkname)
        if target == path:
            return
        try:
            os.link(target, path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            raise _Refused(f'is a hard link to {tar.show(member.linkname)}, '
                           'which this layer does not hold')
        except PermissionError:
            raise _Refused(f'is a hard link to {tar.show(member.linkname)}, '
                           'which is a directory')

    def _fifo(self, path: bytes, member: tar.Member) -> None:
        os.mkfifo(path, member.mode & 0o777)
        if member.uid or member.gid:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
        if member.mode & 0o7000:
            os.chmod(path, member.mode)
        time = self._time(member)
        os.utime(path, ns=(time, time), follow_symlinks=False)

    def _device(self, path: bytes, member: tar.Member) -> None:
        # A container gets its devices from the runtime; in a user namespace
        # the kernel would not make these anyway.
        if self._exact and tar.is_whiteout(member):
            os.mknod(path, stat.S_IFCHR)
            os.chown(path, member.uid, member.gid)
        else:
            self._result.dropped += 1

    def _xattrs(self, fd: int, member: tar.Member) -> None:
        for name, value in member.xattrs.items():
            if not keeps_xattr(name, self._exact):
                continue
            try:
                os.setxattr(fd, name, value)
            except OSError as e:
                if name in _ACLS and e.errno == errno.EOPNOTSUPP:
                    continue
                shown = tar.show(name)
                if e.errno in _TOO_LARGE:
                    raise _Refused(f'has an extended attribute {shown} too '
                                   f'large to keep ({len(value)} bytes)')
                raise _Refused(f'has an extended attribute {shown} that '
                               f'cannot be set: {e.strerror}')

    @staticmethod
    def _time(member: tar.Member) -> int:
        return member.mtime if _TIME_MIN <= member.mtime < _TIME_MAX else 0
