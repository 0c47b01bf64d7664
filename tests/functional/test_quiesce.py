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

"""Volumes of a container at rest, so that a copy of them is whole."""

import contextlib
import errno
import os
import pathlib
import shutil
import unittest.mock
import uuid

from nova_container import exception
from nova_container.privileged import host
from nova_container.privileged import linux
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import disk
from tests.functional import test_volume

_MIB = 1 << 20
_OFFSET = 3 * _MIB

# To the root file system, then to the mounted volume, then to the device.
_COUNT = '''
trap "exit 3" TERM
n=0; while :; do
    n=$((n+1)); echo $n >> /srv/n; echo $n >> /data/n; echo $n > /dev/vdc
done'''


class QuiesceTest(test_volume.VolumeTestCase):

    def setUp(self):
        super().setUp()
        self.devices = [self.device(96 * _MIB) for _ in '123']
        root, data, block = map(self.connected, self.devices)
        self.container_id = self.define(
            '/bin/sh', '-c', _COUNT,
            size=disk.Disk(boot=disk.BootVolume(root, _OFFSET)))
        self.attach(self.container_id, data, path='/data')
        self.attach(self.container_id, block, device='vdc')
        engine.create(self.container_id)
        engine.start(self.container_id)
        self.inside(self.container_id,
                    'until [ $(cat /srv/n | wc -l) -gt 1 ]; do sleep 0.1; '
                    'done')

    @contextlib.contextmanager
    def copy(self, device: str, offset: int = 0):
        """What the storage has of a volume, as a file system elsewhere."""
        image = self.directory / f'copy-{uuid.uuid4().hex}'
        shutil.copy(self.backing_file(device), image)
        with self.mounted(image, offset) as target:
            yield target

    @staticmethod
    def backing_file(device: str) -> str:
        return pathlib.Path('/sys/block', os.path.basename(device),
                            'loop/backing_file').read_text().strip()

    def numbers(self) -> list[int]:
        """The last that is on each volume, taken one after the other."""
        root, data, block = self.devices
        found = []
        for device, offset, path in ((root, _OFFSET, 'upper/srv/n'),
                                     (data, 0, 'n')):
            with self.copy(device, offset) as target:
                found.append(int((target / path).read_text().split()[-1]))
        with open(self.backing_file(block)) as file:
            found.append(int(file.readline()))
        return found

    def status(self) -> state.Status:
        return state.read(self.container_id).status

    def test_copies_agree(self):
        for _ in '123':
            engine.quiesce(self.container_id)
            self.assertIs(state.Status.HELD, self.status())
            found = self.numbers()
            self.assertEqual(sorted(found, reverse=True), found)
            self.assertLessEqual(found[0] - found[-1], 1)
            self.assertTrue(engine.unquiesce(self.container_id))
            self.assertIs(state.Status.RUNNING, self.status())
            before = self.inside(self.container_id, 'tail -n 1 /srv/n')
            self.inside(self.container_id, 'until [ "$(tail -n 1 /srv/n)" '
                        f'!= {before} ]; do sleep 0.1; done')
        self.assertFalse(engine.unquiesce(self.container_id))

    def test_who_decides(self):
        engine.quiesce(self.container_id)
        with self.assertRaisesRegex(exception.StateConflict, 'held'):
            engine.quiesce(self.container_id)
        # A pause stays.
        engine.pause(self.container_id)
        self.assertIs(state.Status.PAUSED, self.status())
        self.assertFalse(engine.unquiesce(self.container_id))
        self.assertIs(state.Status.PAUSED, self.status())
        with self.assertRaisesRegex(exception.StateConflict, 'paused'):
            engine.quiesce(self.container_id)
        engine.resume(self.container_id)
        # A killed service leaves nobody held.
        engine.quiesce(self.container_id)
        self.assertEqual([], host.recover())
        self.assertIs(state.Status.RUNNING, self.status())
        # Who is to stop can hear that.
        engine.quiesce(self.container_id)
        engine.stop(self.container_id, 5)
        self.assertEqual(3, state.read(self.container_id).exit_code)
        self.assertFalse(engine.unquiesce(self.container_id))
        with self.assertRaisesRegex(exception.StateConflict, 'stopped'):
            engine.quiesce(self.container_id)
        engine.undefine(self.container_id)
        self.assertFalse(engine.unquiesce(self.container_id))

    def test_storage_that_fails(self):
        """Nobody is held then."""
        for good in range(4):
            with unittest.mock.patch.object(linux, 'syncfs', side_effect=[
                    *[None] * good, OSError(errno.EIO, 'I/O error')]), \
                    self.assertRaisesRegex(exception.ContainerError,
                                           'I/O error'):
                engine.quiesce(self.container_id)
            self.assertIs(state.Status.RUNNING, self.status())
