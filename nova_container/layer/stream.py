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

"""A layer's bytes: from a slice of an archive through decompression.

One thread reads, decompresses and hashes while the other unpacks; all three
release the interpreter's lock, so a layer uses two processors.
"""

from collections.abc import Iterator
import hashlib
import io
import lzma
import os
import queue
import threading
from typing import Any, BinaryIO, cast
import zlib

import isal.igzip
import isal.isal_zlib
import zstandard

from nova_container import exception
from nova_container.layer import tar

_BLOCK = 256 * 1024
_QUEUED = 4

# What the zstd command takes without being asked to take more.
_ZSTD_WINDOW = 1 << 27

# What xz -9 needs, and a little.
_XZ_MEMORY = 80 << 20

_EMPTY = memoryview(b'')


class Slice(io.RawIOBase):
    """Part of a file, hashed while it is read."""

    def __init__(self, fd: int, offset: int, size: int):
        self._fd = fd
        self._position = offset
        self._end = offset + size
        self.hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - self._position
        view = memoryview(buffer)[:left]
        if not view:
            return 0
        size = os.preadv(self._fd, [view], self._position)
        if not size:
            raise exception.ImageInvalid(
                f'{left} bytes of the layer are missing at the end of the '
                'archive')
        self._position += size
        self.hash.update(view[:size])
        return size


def _decompressed(blob: Slice, compression: str) -> Iterator[bytes]:
    match compression:
        case 'none':
            read = blob.read
        case 'gzip':
            read = isal.igzip.IGzipFile(fileobj=blob, mode='rb').read
        case 'zstd':
            read = zstandard.ZstdDecompressor(
                max_window_size=_ZSTD_WINDOW).stream_reader(
                    cast(BinaryIO, blob), read_size=_BLOCK,
                    read_across_frames=True).read
        case 'xz':
            yield from _unxz(blob)
            return
        case _:
            raise ValueError(compression)
    while data := read(_BLOCK):
        yield data


def _unxz(blob: Slice) -> Iterator[bytes]:
    """Streams one after another, zeros between them (xz-file-format.txt)."""
    data = blob.read(_BLOCK) or b''
    while data:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
        while not decoder.eof:
            if not data and decoder.needs_input:
                data = blob.read(_BLOCK) or b''
                if not data:
                    raise EOFError('it ends early')
            if piece := decoder.decompress(data, _BLOCK):
                yield piece
            data = b''
        data = decoder.unused_data.lstrip(b'\0')
        while not data and (more := blob.read(_BLOCK)):
            data = more.lstrip(b'\0')


class LayerStream:
    """A ``tar.Source`` over a compressed layer.

    :param fd: of a seekable file, read from ``offset`` for ``size`` bytes
    :param compression: one of ``oci.manifest.READABLE``
    :param limit: how many decompressed bytes to put up with
    :ivar size: decompressed bytes so far
    """

    def __init__(self, fd: int, offset: int, size: int, compression: str,
                 limit: int):
        self._blob = Slice(fd, offset, size)
        self._compression = compression
        self._hash = hashlib.sha256()
        self._queue: queue.Queue[bytes | Exception] = queue.Queue(_QUEUED)
        self._block = _EMPTY
        self._ended = False
        self._limit = limit
        self.size = 0
        threading.Thread(target=self._produce, daemon=True).start()

    @property
    def digest(self) -> str:
        """Of all decompressed bytes: the layer's diffID."""
        return 'sha256:' + self._hash.hexdigest()

    @property
    def blob_digest(self) -> str:
        """Of all bytes as stored."""
        return 'sha256:' + self._blob.hash.hexdigest()

    def read(self, size: int) -> bytes:
        block = self._block
        if len(block) >= size:
            self._block = block[size:]
            return bytes(block[:size])
        return b''.join(self.views(size))

    def views(self, size: int) -> Iterator[memoryview]:
        wanted = size
        while wanted:
            if not self._block and not self._fill():
                raise tar.Truncated(size - wanted)
            view = self._block[:wanted]
            self._block = self._block[wanted:]
            wanted -= len(view)
            yield view

    def skip(self, size: int) -> None:
        for _view in self.views(size):
            pass

    def drain(self) -> None:
        """Read to the end, so that the digests cover everything."""
        while self._fill():
            pass

    def _fill(self) -> bool:
        if self._ended:
            return False
        item = self._queue.get()
        if isinstance(item, Exception):
            self._ended = True
            raise item
        self._ended = not item
        self._block = memoryview(item)
        self.size += len(item)
        if self.size > self._limit:
            raise exception.ImageTooBig(f'more than {self._limit} bytes')
        return not self._ended

    def _produce(self) -> None:
        try:
            for data in _decompressed(self._blob, self._compression):
                self._hash.update(data)
                self._queue.put(data)
            # Bytes after the end of the compressed stream count as well.
            while self._blob.read(_BLOCK):
                pass
        except (OSError, EOFError, zlib.error,
                isal.isal_zlib.error,  # type: ignore[misc]
                lzma.LZMAError, zstandard.ZstdError) as e:
            self._queue.put(exception.ImageInvalid(
                f'its {self._compression} data is damaged: {e}'))
        except Exception as e:
            self._queue.put(e)
        else:
            self._queue.put(b'')
