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

"""A layer on its way out: compressed, hashed and written while it is made.

One thread reads files and makes the tar, the other compresses; both release
the interpreter's lock, so a layer uses two processors.
"""

import hashlib
import io
import queue
import threading
from typing import BinaryIO
from typing import cast
from typing import Protocol
from typing import TYPE_CHECKING

import isal.igzip
import zstandard

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

_BLOCK = 256 * 1024
_QUEUED = 4


class _Blob(io.RawIOBase):
    """A file, hashed while it is written."""

    def __init__(self, fd: int):
        self._file = io.FileIO(fd, 'w', closefd=False)
        self.hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: 'Buffer', /) -> int:
        view = memoryview(data)
        total = len(view)
        self.hash.update(view)
        self.size += len(view)
        while view:
            view = view[self._file.write(view):]
        return total


class _Stream(Protocol):

    def write(self, data: bytes, /) -> int:
        """Append ``data``."""

    def close(self) -> None:
        """What is left goes out."""


def _compressed(blob: _Blob, compression: str) -> _Stream:
    match compression:
        case 'none':
            return blob
        case 'gzip':
            # Without a name and a time, so that equal content has one digest.
            return isal.igzip.IGzipFile(filename='', fileobj=blob, mode='wb',
                                        mtime=0)
        case 'zstd':
            return zstandard.ZstdCompressor().stream_writer(
                cast(BinaryIO, blob), closefd=False)
        case _:
            raise ValueError(compression)


class LayerOutput:
    """Takes the bytes of a layer's tar, in order.

    :param fd: of the file to write the blob to, from its position on
    :param compression: one of ``oci.manifest.COMPRESSIONS``
    :ivar size: bytes of the tar so far
    """

    def __init__(self, fd: int, compression: str):
        self._blob = _Blob(fd)
        self._compression = compression
        # Of both at once where they are the same.
        self._hash = (self._blob.hash if compression == 'none'
                      else hashlib.sha256())
        self._block = bytearray()
        self._queue: queue.Queue[bytes] = queue.Queue(_QUEUED)
        self._error: Exception | None = None
        self.size = 0
        self._thread = threading.Thread(target=self._consume, daemon=True)
        self._thread.start()

    @property
    def digest(self) -> str:
        """Of the tar: the layer's diffID. Once it is closed."""
        return 'sha256:' + self._hash.hexdigest()

    @property
    def blob_digest(self) -> str:
        """Of the bytes as stored. Once it is closed."""
        return 'sha256:' + self._blob.hash.hexdigest()

    @property
    def blob_size(self) -> int:
        """Bytes as stored. Once it is closed."""
        return self._blob.size

    def write(self, data: bytes) -> None:
        """Append ``data``.

        :raises OSError: what was written before could not be
        """
        self.size += len(data)
        self._block += data
        if len(self._block) >= _BLOCK:
            self._hand_over()

    def close(self) -> None:
        """Wait until all is written.

        :raises OSError: it could not be
        """
        if self._block:
            self._hand_over()
        self._queue.put(b'')
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _hand_over(self) -> None:
        self._raise()
        self._queue.put(bytes(self._block))
        self._block.clear()

    def _consume(self) -> None:
        stream = None
        while data := self._queue.get():
            # After an error, so that nobody waits for room in the queue.
            if self._error is not None:
                continue
            try:
                if stream is None:
                    stream = _compressed(self._blob, self._compression)
                if self._hash is not self._blob.hash:
                    self._hash.update(data)
                stream.write(data)
            except Exception as e:
                self._error = e
        if self._error is None and stream is not None:
            try:
                stream.close()
            except Exception as e:
                self._error = e
