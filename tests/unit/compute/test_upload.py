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

from nova_container.compute import upload
from nova_container import exception
from tests.unit import base


class UploadTest(base.TestCase):

    def test_client_that_sends_what_is_left(self):
        """Its first attempt was refused after it had read all or a part."""
        for left in (0, 2, 6):
            data = upload.Counted(io.BytesIO(b'whole.'))
            data.read(6 - left)
            received = data.read()
            self.assertEqual(left, len(received))
            image = {'id': 'x', 'size': len(received)}
            if left == 6:
                upload.require_whole(image, data)
                continue
            with self.assertRaisesRegex(exception.ImageIncomplete,
                                        f'{left} of 6 bytes'):
                upload.require_whole(image, data)
