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

"""Files that exist while an image or a layer comes in or goes out."""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import hashlib
import os
import secrets

from nova_container import exception


class File:
    """A file that is written, then read by its name.

    :param expected: how many bytes should come, if known
    :param algorithm: computes ``hash_value``, if Python knows it
    :ivar name: in the spool directory
    :ivar size: bytes so far
    """

    def __init__(self, name: str, fd: int, expected: int | None = None,
                 algorithm: str | None = None):
        self.name = name
        self.size = 0
        self._fd = fd
        self._expected = expected
        self._hash = (hashlib.new(algorithm) if algorithm
                      and algorithm in hashlib.algorithms_available else None)

    @property
    def hash_value(self) -> str | None:
        """Of all that was written, hexadecimal."""
        if self._hash is None or not self._hash.digest_size:
            return None
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        """Append all of ``data``.

        :raises ImageInvalid: it is more than was expected
        """
        view = memoryview(data)
        self.size += len(view)
        if self._expected is not None and self.size > self._expected:
            raise exception.ImageInvalid(
                f'more than the {self._expected} bytes announced came in')
        if self._hash is not None:
            self._hash.update(view)
        while view:
            view = view[os.write(self._fd, view):]
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""

    def truncate(self, size: int) -> int:
        """Nova does so before it says that a signature is wrong."""
        os.ftruncate(self._fd, size)
        return size

    def fileno(self) -> int:
        return self._fd


class Spool:
    """The spool directory.

    :param path: which is the service user's
    """

    def __init__(self, path: str):
        self._path = path

    def recover(self) -> None:
        """Remove what a killed service left."""
        for entry in os.scandir(self._path):
            # Another process of ours may just be done with it.
            with contextlib.suppress(FileNotFoundError), \
                    open(entry.path, 'rb') as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                os.unlink(entry.path)

    @contextlib.contextmanager
    def file(self, what: str, expected: int | None = None,
             algorithm: str | None = None) -> Iterator[File]:
        """A new file, removed in the end.

        :param what: begins its name
        :raises NoSpace: there is no room for as much as is expected, or the
            file system became full
        """
        if expected is not None:
            disk = os.statvfs(self._path)
            if expected > disk.f_bavail * disk.f_frsize:
                raise exception.NoSpace(
                    f'{self._path} has no room for an archive of {expected} '
                    'bytes; make room on this host')
        name = f'{what}.{secrets.token_hex(4)}.part'
        path = os.path.join(self._path, name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                     0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            file = File(name, fd, expected, algorithm)
            try:
                yield file
            except OSError as e:
                if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise exception.NoSpace(
                    f'{self._path} is full after {file.size} bytes; make '
                    'room on this host')
        finally:
            os.unlink(path)
            os.close(fd)
