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

import os
import tempfile

from nova_container.compute import courier
from nova_container import exception
from tests.unit import base


class IndexTest(base.TestCase):

    def file(self, content: bytes) -> int:
        file = tempfile.TemporaryFile()
        self.addCleanup(file.close)
        file.write(content)
        file.flush()
        return file.fileno()

    def test_found_behind_the_parts(self):
        index = courier.Index('{"os": "linux"}', (
            courier.Part('upper', 'sha256:' + '0' * 64, 0, 7),
            courier.Part('', 'sha256:' + '1' * 64, 7, 3)))
        fd = self.file(b'partone' + b'two' + index.encode())
        self.assertEqual(index, courier.Index.read(fd))

    def test_refuses_what_has_none(self):
        whole = courier.Index('{}', ()).encode()
        for content in (b'', b'x', b'x' * 100, whole[1:], whole[:-1],
                        whole[:-8] + b'\xff' * 8,
                        b'[]' + (2).to_bytes(8, 'big'),
                        b'{}' + (2).to_bytes(8, 'big'),
                        b'{"config": 1, "parts": [{"tree": 1}]}'
                        + (37).to_bytes(8, 'big')):
            with self.assertRaises(exception.ImageInvalid):
                courier.Index.read(self.file(content))

    def test_position_of_the_file_stays(self):
        fd = self.file(b'abc' + courier.Index('{}', ()).encode())
        os.lseek(fd, 1, os.SEEK_SET)
        courier.Index.read(fd)
        self.assertEqual(1, os.lseek(fd, 0, os.SEEK_CUR))
