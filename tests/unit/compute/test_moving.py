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

from unittest import mock

from nova import exception as nova_exception
from nova.objects import image_meta

from nova_container.compute import flavor as flavors
from nova_container.compute import moving
from tests.unit import base

_GIB = 1 << 30


def _flavor(root, ephemeral=0):
    return mock.Mock(root_gb=root, ephemeral_gb=ephemeral)


class RequireRoomTest(base.TestCase):
    """What is written decides, and only where a disk becomes smaller."""

    def setUp(self):
        super().setUp()
        self.used, self.disks = (
            self.enterContext(mock.patch.object(moving.engine, name,
                                                autospec=True))
            for name in ('used', 'disks'))

    def check(self, old, new, image=None, volume_backed=False, **used):
        self.used.return_value = used
        self.disks.return_value = flavors.disks(_flavor(*old))
        moving.require_room(mock.Mock(uuid='u'), _flavor(*new), image,
                            volume_backed=volume_backed)

    def test_not_asked_when_nothing_shrinks(self):
        for old, new in (((1,), (1,)), ((1,), (2,)), ((1, 1), (1, 2)),
                         ((1,), (0,))):
            self.check(old, new)
        self.used.assert_not_called()

    def test_root(self):
        self.check((2,), (1,), upper=_GIB // 2, containers=_GIB // 4)
        with self.assertRaisesRegex(nova_exception.ResizeError, 'written'):
            self.check((2,), (1,), upper=_GIB // 2, containers=_GIB // 2)
        with self.assertRaises(nova_exception.ResizeError):
            self.check((0,), (1,), upper=_GIB)

    def test_ephemeral(self):
        self.check((1, 2), (1, 1), mnt=_GIB // 2)
        self.check((1, 2), (1, 0), mnt=4096 + 256)
        with self.assertRaisesRegex(nova_exception.ResizeError, '/mnt'):
            self.check((1, 2), (1, 0), mnt=1 << 20)

    def test_image(self):
        image = mock.Mock(size=_GIB + 1)
        with self.assertRaisesRegex(nova_exception.ResizeError, 'image'):
            self.check((2,), (1,), image)
        self.check((2,), (0,), image)
        self.check((2,), (1,), image, volume_backed=True)


class SmallerTest(base.TestCase):

    def test_what_the_image_asks_for_and_not_its_first_flavor(self):
        for fields, found in (({'min_disk': 3}, '3'), ({}, '0')):
            instance = mock.Mock(
                system_metadata={'image_min_disk': '20'})
            moving.allow_smaller(instance, image_meta.ImageMeta(**fields))
            self.assertEqual(found, instance.system_metadata['image_min_disk'])
