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

import unittest

from nova_container import exception
from nova_container.spec import codec
from nova_container.spec import volume

_ID = '0e0ce5c3-20b3-4cc4-a777-30f3b0a3bb46'
_OTHER = '805d17d0-39e4-4402-addd-0dae24f225f8'


class AttachmentTest(unittest.TestCase):

    def refused(self, *args, **kwargs):
        with self.assertRaises(exception.InvalidSpec):
            volume.Attachment(*args, **kwargs)

    def test_device(self):
        for name in ('vdb', 'sdaa', 'xvdf', 'vdb1'):
            volume.Attachment(_ID, name)
        for name in ('', '../sda', 'VDB', 'shm/x', 'v' * 40, '1a'):
            self.refused(_ID, name)

    def test_path(self):
        for path in ('/data', '/var/lib/mysql', '/devices'):
            volume.Attachment(_ID, 'vdb', path)
        for path in ('data', '/', '//', '/a/../b', '/a/', '/a//b', '/dev',
                     '/proc/x', '/sys', '/a\0b', '/' + 'a' * 5000, ''):
            self.refused(_ID, 'vdb', path)

    def test_id(self):
        for name in ('', 'volume', _ID.upper(), f'../{_ID}', f'{_ID}\n'):
            self.refused(name, 'vdb')

    def test_crosses_to_the_privileged_helper(self):
        wish = volume.Attachment(_ID, 'vdb', '/data', True)
        self.assertEqual(wish, codec.decode(volume.Attachment,
                                            codec.encode(wish)))

    def test_distinct(self):
        volume.check_distinct((volume.Attachment(_ID, 'vdb'),
                               volume.Attachment(_OTHER, 'vdc')))
        for second in (volume.Attachment(_ID, 'vdc'),
                       volume.Attachment(_OTHER, 'vdb'),
                       volume.Attachment(_OTHER, 'vdc', '/data')):
            with self.assertRaises(exception.InvalidSpec):
                volume.check_distinct((volume.Attachment(
                    _ID, 'vdb', '/data'), second))
