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

import io
import random
import subprocess
import tarfile

import hypothesis
from hypothesis import strategies

from nova_container import exception
from nova_container.layer import tar
from tests import archives
from tests import cases
from tests.unit import base


class Bytes:
    """A tar.Source over bytes, handed out in small pieces."""

    def __init__(self, data: bytes):
        self._data = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        data = self._data.read(size)
        if len(data) < size:
            raise tar.Truncated(len(data))
        return data

    def views(self, size: int):
        while size:
            piece = min(size, 100)
            yield memoryview(self.read(piece))
            size -= piece

    def skip(self, size: int) -> None:
        for _view in self.views(size):
            pass


def members(data: bytes) -> list[tuple[tar.Member, bytes]]:
    reader = tar.Reader(Bytes(data))
    return [(member, b''.join(map(bytes, reader.views())))
            for member in reader]


def refusal(data: bytes) -> str:
    try:
        members(data)
    except exception.ImageInvalid as e:
        return str(e)
    raise AssertionError('it was read')


NAMES = strategies.binary(min_size=1, max_size=300).filter(
    lambda name: b'\0' not in name and not name.endswith(b'/'))


@strategies.composite
def entries(draw):
    kind = draw(strategies.sampled_from(
        [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE,
         tarfile.FIFOTYPE]))
    ids = strategies.integers(0, 1 << 30)
    fields = {
        'mode': draw(strategies.integers(0, 0o7777)),
        'uid': draw(ids), 'gid': draw(ids),
        'mtime': draw(strategies.integers(0, 1 << 40)),
        'linkname': ''}
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        fields['linkname'] = draw(NAMES).decode('utf-8', 'surrogateescape')
    data = (draw(strategies.binary(max_size=2000))
            if kind == tarfile.REGTYPE else b'')
    name = draw(NAMES).decode('utf-8', 'surrogateescape')
    return archives.entry(name, data, kind, **fields)


class ReaderTest(base.TestCase):

    @hypothesis.given(strategies.lists(entries(), max_size=5),
                      strategies.sampled_from([tarfile.PAX_FORMAT,
                                               tarfile.GNU_FORMAT]))
    @cases.cases(200)
    def test_reads_what_tarfile_writes(self, written, form):
        read = members(archives.tar(*written, form=form))
        self.assertEqual(len(written), len(read))
        for (info, content), (member, data) in zip(written, read):
            self.assertEqual(
                (info.type, info.mode, info.uid, info.gid,
                 info.mtime * 10 ** 9, content),
                (member.type, member.mode, member.uid, member.gid,
                 member.mtime, data))
            for text, name in ((info.name, member.name),
                               (info.linkname, member.linkname)):
                self.assertEqual(text.encode('utf-8', 'surrogateescape'),
                                 name)

    @hypothesis.given(strategies.data())
    @cases.cases(300)
    def test_damage_is_refused_or_harmless(self, data):
        whole = bytearray(archives.tar(
            archives.entry('a' * 150, b'x' * 700,
                           pax_headers={'SCHILY.xattr.user.a': 'b'}),
            archives.directory('d'), archives.symlink('l', 'd' * 120)))
        for _change in range(data.draw(strategies.integers(1, 4))):
            where = data.draw(strategies.integers(0, len(whole) - 1))
            whole[where] = data.draw(strategies.integers(0, 255))
        try:
            members(bytes(whole))
        except exception.ImageInvalid:
            pass

    def test_extended_attributes_and_fractions_of_seconds(self):
        [(member, _data)] = members(archives.tar(archives.entry(
            'f', pax_headers={'SCHILY.xattr.user.a': 'b=\nc',
                              'mtime': '-12.345678901234'})))
        self.assertEqual({b'user.a': b'b=\nc'}, member.xattrs)
        self.assertEqual(-12345678901, member.mtime)

    def test_sparse_files_of_every_format(self):
        place = self.directory()
        extents = [(index * 65536, bytes([65 + index % 26]) * 4096)
                   for index in range(0, 80, 2)]
        with open(f'{place}/sparse', 'wb') as file:
            for offset, data in extents:
                file.seek(offset)
                file.write(data)
            file.truncate(81 * 65536)
        with open(f'{place}/sparse', 'rb') as file:
            content = file.read()
        for form in ('--format=gnu', '--sparse-version=0.0',
                     '--sparse-version=0.1', '--sparse-version=1.0'):
            options = [form] if 'gnu' in form else ['--format=pax', form]
            packed = subprocess.run(
                ['tar', '-cS', *options, '-C', place, 'sparse'],
                check=True, capture_output=True).stdout
            self.assertLess(len(packed), 4096 * 60)
            [(member, data)] = members(packed)
            self.assertEqual((b'sparse', len(content)),
                             (member.name, member.size))
            unpacked = bytearray(member.size)
            position = 0
            for offset, length in member.data_map:
                unpacked[offset:offset + length] = (
                    data[position:position + length])
                position += length
            self.assertEqual(content, bytes(unpacked), form)

    def test_oldest_format_marks_directories_with_a_slash(self):
        [(member, _data)] = members(archives.tar(
            archives.entry('d/', kind=tarfile.AREGTYPE)))
        self.assertEqual((tar.DIRECTORY, b'd'), (member.type, member.name))

    def test_end_marker_may_be_missing(self):
        whole = archives.files({'a': b'x'})
        self.assertEqual(1, len(members(whole[:1024])))
        self.assertEqual([], members(b''))

    def test_truncation_is_refused_wherever_it_is(self):
        whole = archives.tar(archives.entry('n' * 200, b'x' * 1000))
        last = len(whole.rstrip(b'\0')) // 512 * 512 + 512
        for size in random.Random(0).sample(range(1, last), 100):
            if size % 512 or size > 512:
                self.assertIn('ends', refusal(whole[:size]))

    def test_garbage_between_entries_is_not_the_end(self):
        one = archives.files({'a': b'x'})[:1024]
        self.assertIn('malformed', refusal(one + b'garbage' * 1024))
        self.assertIn('zeros', refusal(one + bytes(512) + one))

    def test_headers_that_lie_about_their_size(self):
        huge = tarfile.TarInfo('x')
        huge.type, huge.size = tarfile.XHDTYPE, 1 << 40
        self.assertIn('extended header',
                      refusal(huge.tobuf(tarfile.GNU_FORMAT)))
        for record in ('size=-1', 'size=1e9', 'size=' + '9' * 100,
                       'mtime=x'):
            key, _equals, value = record.partition('=')
            self.assertIn('malformed', refusal(archives.tar(
                archives.entry('f', pax_headers={key: value}))))

    def test_extended_headers_are_bounded(self):
        def extension(kind: bytes, data: bytes) -> bytes:
            info = tarfile.TarInfo('x')
            info.type, info.size = kind, len(data)
            return (info.tobuf(tarfile.USTAR_FORMAT)
                    + data.ljust(-(-len(data) // 512) * 512, b'\0'))

        one = archives.files({'a': b'x'})
        record = {b'x': b'7 a=bc\n', b'L': b'name\0', b'K': b'target\0',
                  b'g': b'7 a=bc\n'}
        for kind in (b'x', b'L', b'K'):
            self.assertIn('two extended headers',
                          refusal(2 * extension(kind, record[kind]) + one))
        self.assertIn('more than 16', refusal(
            17 * extension(b'g', record[b'g']) + one))
        [(member, _data)] = members(b''.join(
            extension(*item) for item in record.items()) + one)
        self.assertEqual((b'name', 4 * 1024), (member.name, member.extra))
        self.assertEqual([], members(extension(b'g', record[b'g'])))

    def test_maps_of_holes_without_end(self):
        header = bytearray(archives.entry('f')[0].tobuf(tarfile.GNU_FORMAT))
        header[156:157] = b'S'
        header[482] = 1
        header[148:156] = b' ' * 8
        header[148:156] = b'%06o\0 ' % sum(header)
        self.assertIn('too many holes', refusal(
            bytes(header) + (bytes(504) + b'\1' + bytes(7)) * 5000))
        self.assertIn('too long', refusal(archives.tar(archives.entry(
            'f', b'2\n' + bytes(1 << 16), pax_headers={
                'GNU.sparse.major': '1', 'GNU.sparse.minor': '0',
                'GNU.sparse.realsize': '9'}))))

    def test_unknown_types_are_refused(self):
        self.assertIn('unknown type', refusal(archives.tar(
            archives.entry('f', kind=b'M'))))
