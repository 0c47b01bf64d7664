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

import gzip
import pathlib
import struct
import tempfile
import unittest

from nova_container import exception
from nova_container.runtime import console_font

_A, _B = bytes(range(16)), bytes(range(16, 32))


class ConsoleFontTest(unittest.TestCase):

    def load(self, data: bytes) -> console_font.Font:
        directory = self.enterContext(tempfile.TemporaryDirectory())
        path = pathlib.Path(directory, 'font')
        path.write_bytes(data)
        return console_font.load(str(path))

    def first(self, table: str) -> bytes:
        return (b'\x36\x04\x02\x10' + _A + _B + bytes(16 * 254)
                + table.encode('utf-16-le', 'surrogatepass'))

    def second(self, table: bytes, width: int = 8) -> bytes:
        return b'\x72\xb5\x4a\x86' + struct.pack(
            '<7I', 0, 32, 1, 2, 16, 16, width) + _A + _B + table

    def test_both_formats(self):
        for data in (
                self.first('aä\uffff?\ufffe?\u0301\uffff'),
                self.second('aä'.encode() + b'\xff' + b'?\xfe??\xff'),
                gzip.compress(self.second('aä'.encode() + b'\xff?\xff'))):
            font = self.load(data)
            self.assertEqual([_A, _A, _B, _B],
                             [font.glyph(c) for c in 'aä?x'])

    def test_no_such_font(self):
        for data, why in (
                (b'', 'no PSF font'), (b'\x36\x04\x02\x10', 'cut off'),
                (b'\x36\x04', 'unpack_from'), (b'\x1f\x8b\x08', 'ended'),
                (self.second(b'a\xff', width=12), '12 by 16'),
                (self.second(b'\xc3\xff\xff'), "can't decode")):
            with self.assertRaisesRegex(
                    exception.HostUnsupported, f'{why}.*console_font'):
                self.load(data)
        with self.assertRaisesRegex(exception.HostUnsupported,
                                    'No such file.*psf-unifont'):
            console_font.load('/nowhere')
