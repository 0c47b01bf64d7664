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

"""The tar format, written: ustar, and pax headers where that is not enough.

What ``tar`` reads and the tools of docker, podman and umoci as well. A file
with holes is in GNU's pax format 1.0 ("GNU tar manual: Sparse Formats").
"""

from collections.abc import Mapping
from collections.abc import Sequence
import struct
from typing import Protocol

from nova_container.layer import tar

_HEADER = struct.Struct('>100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x')
_EXTENDED = b'x'
_NAME_MAX = 100
_OCTAL_7 = 1 << 21
_OCTAL_11 = 1 << 33
_NANOSECONDS = 10 ** 9
_ZEROS = bytes(tar.BLOCK)


class Sink(Protocol):
    """Where the archive goes."""

    def write(self, data: bytes) -> None:
        """Append all of ``data``."""


class Unrepresentable(Exception):
    """The format has no way to say it; names the reason."""


def _plain(name: bytes) -> bool:
    return len(name) <= _NAME_MAX and name.isascii()


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record; its length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b'%d %s=%s\n' % (length, key, value)


def _decimal_time(nanoseconds: int) -> bytes:
    sign = '-' if nanoseconds < 0 else ''
    seconds, fraction = divmod(abs(nanoseconds), _NANOSECONDS)
    text = f'{sign}{seconds}'
    if fraction:
        text += f'.{fraction:09d}'.rstrip('0')
    return text.encode()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _header(kind: bytes, name: bytes, linkname: bytes, size: int,
            mode: int = 0o644, uid: int = 0, gid: int = 0, mtime: int = 0,
            device: tuple[int, int] = (0, 0)) -> bytes:
    """One block; what does not fit has been put into a pax header."""
    def octal(value: int, limit: int) -> bytes:
        return b'%0*o' % (7 if limit == _OCTAL_7 else 11,
                          value if 0 <= value < limit else 0)

    block = _HEADER.pack(
        name[:_NAME_MAX], octal(mode, _OCTAL_7), octal(uid, _OCTAL_7),
        octal(gid, _OCTAL_7), octal(size, _OCTAL_11), octal(mtime, _OCTAL_11),
        b'        ', kind, linkname[:_NAME_MAX], b'ustar\x0000', b'', b'',
        octal(device[0], _OCTAL_7), octal(device[1], _OCTAL_7), b'')
    return block[:148] + b'%06o\0 ' % sum(block) + block[156:]


class Writer:
    """Writes members in order. After a file's header its data follows:
    ``write`` until all of it is there, then ``pad``.
    """

    def __init__(self, sink: Sink):
        self._sink = sink
        self._written = 0

    def add(self, kind: bytes, name: bytes, *, mode: int = 0o644,
            uid: int = 0, gid: int = 0, mtime: int = 0, size: int = 0,
            linkname: bytes = b'', device: tuple[int, int] = (0, 0),
            xattrs: Mapping[bytes, bytes] = {},
            data_map: Sequence[tuple[int, int]] | None = None) -> None:
        """Write a header.

        :param kind: one of the constants of ``tar``
        :param mtime: nanoseconds since the epoch
        :param size: bytes of a file, holes included
        :param device: major and minor number
        :param data_map: of a file with holes, where its data is, as (offset,
            length) in order; only that data follows
        :raises Unrepresentable: pax has no way to say it
        """
        pax = []
        stored = size
        shown = name
        sparse_map = b''
        if data_map is not None:
            sparse_map = self._sparse_map(data_map)
            stored = len(sparse_map) + sum(length for _, length in data_map)
            pax += [(b'GNU.sparse.major', b'1'), (b'GNU.sparse.minor', b'0'),
                    (b'GNU.sparse.name', name),
                    (b'GNU.sparse.realsize', b'%d' % size)]
            shown = b'GNUSparseFile.0/' + name.rpartition(b'/')[2]
        if not _plain(shown):
            pax.append((b'path', shown))
        if not _plain(linkname):
            pax.append((b'linkpath', linkname))
        if stored >= _OCTAL_11:
            pax.append((b'size', b'%d' % stored))
        seconds, fraction = divmod(mtime, _NANOSECONDS)
        if fraction or not 0 <= seconds < _OCTAL_11:
            pax.append((b'mtime', _decimal_time(mtime)))
        for key, number in ((b'uid', uid), (b'gid', gid)):
            if number >= _OCTAL_7:
                pax.append((key, b'%d' % number))
        for key, value in xattrs.items():
            if b'=' in key:
                raise Unrepresentable(
                    f'the name of its extended attribute {tar.show(key)} '
                    'has an equals sign')
            pax.append((b'SCHILY.xattr.' + key, value))
        if pax:
            self._extended(pax, name + linkname)
        self._sink.write(_header(kind, shown, linkname, stored, mode & 0o7777,
                                 uid, gid, seconds, device))
        self._written = 0
        if sparse_map:
            self.write(sparse_map)

    def write(self, data: bytes) -> None:
        """Append to the data of the current member."""
        self._sink.write(data)
        self._written += len(data)

    def pad(self) -> None:
        """The current member's data is complete."""
        self._sink.write(_ZEROS[:-self._written % tar.BLOCK])
        self._written = 0

    def finish(self) -> None:
        """Write the end of the archive."""
        self._sink.write(_ZEROS * 2)

    def _extended(self, pax: list[tuple[bytes, bytes]],
                  names: bytes) -> None:
        records = [_record(key, value) for key, value in pax]
        if not _is_utf8(names):
            records.insert(0, _record(b'hdrcharset', b'BINARY'))
        data = b''.join(records)
        if len(data) > tar.EXTENSION_MAX:
            raise Unrepresentable(
                f'its extended attributes have more than {tar.EXTENSION_MAX} '
                'bytes')
        self._sink.write(_header(_EXTENDED, b'PaxHeaders/entry', b'',
                                 len(data)))
        self._sink.write(data + _ZEROS[:-len(data) % tar.BLOCK])

    @staticmethod
    def _sparse_map(data_map: Sequence[tuple[int, int]]) -> bytes:
        numbers = [len(data_map)]
        for extent in data_map:
            numbers += extent
        text = b''.join(b'%d\n' % number for number in numbers)
        return text + _ZEROS[:-len(text) % tar.BLOCK]
