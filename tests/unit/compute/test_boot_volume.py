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
from unittest import mock

from nova_container.compute import boot_volume
from nova_container import exception
from nova_container.spec import disk

_VOLUME = '0b6ef1a4-7c4d-4b62-9f0e-3d5a8c1e2f70'
_MIB = 1 << 20


class ArchiveTest(unittest.TestCase):

    def test_writable_layer_begins_at_a_whole_mebibyte(self):
        for size, offset in ((1, 1), (_MIB, 1), (_MIB + 1, 2)):
            self.assertEqual(
                disk.BootVolume(_VOLUME, offset * _MIB),
                boot_volume.Archive(_VOLUME, size).disk)

    def test_wrong_disks(self):
        for offset in (0, -_MIB, _MIB + 1, 1 << 60):
            with self.assertRaises(exception.InvalidSpec):
                disk.BootVolume(_VOLUME, offset)
        with self.assertRaises(exception.InvalidSpec):
            disk.BootVolume('../x', _MIB)
        with self.assertRaises(exception.InvalidSpec):
            disk.Disk(root=1 << 30, boot=disk.BootVolume(_VOLUME, _MIB))


@mock.patch.object(boot_volume.cinder, 'API', autospec=True)
class FindTest(unittest.TestCase):

    GOOD = {'container_format': 'docker', 'disk_format': 'raw',
            'size': '1500000'}

    def find(self, api, metadata):
        volume = {'id': _VOLUME}
        if metadata is not None:
            volume['volume_image_metadata'] = metadata
        api.return_value.get.return_value = volume
        return boot_volume.find(None, _VOLUME)

    def test_found(self, api):
        self.assertEqual(boot_volume.Archive(_VOLUME, 1500000),
                         self.find(api, self.GOOD))

    def test_not_of_an_image(self, api):
        for metadata in (None, {}, {**self.GOOD, 'disk_format': 'qcow2'},
                         {**self.GOOD, 'container_format': 'bare'}):
            with self.assertRaisesRegex(exception.InvalidSpec, 'not made of'):
                self.find(api, metadata)

    def test_size(self, api):
        for size in (None, '', '0', '-1', '1e9', '9' * 400 + 'x'):
            with self.assertRaisesRegex(exception.InvalidSpec, 'the size'):
                self.find(api, {**self.GOOD, 'size': size})
