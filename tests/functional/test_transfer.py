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

"""A container's disks out of one place and into another."""

import contextlib
import dataclasses
import os
import stat
import uuid

from nova_container import exception
from nova_container.privileged import container as privileged
from nova_container.privileged import definition
from nova_container.privileged import host
from nova_container.privileged import place
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import command
from nova_container.spec import disk
from tests.functional import base

FOREVER = ('/bin/sleep', '1000000')
_MIB = 1 << 20

# Everything that a file system can hold, and what an overlay and a runtime
# inside make of it.
_FILL = '''
set -e
mkdir -p /srv/d/deep; echo one >/srv/d/deep/file; chmod 4751 /srv/d/deep/file
chown 33:34 /srv/d/deep/file; ln /srv/d/deep/file /srv/hard; ln -s d /srv/soft
mkfifo /srv/pipe; rm /etc/group; rm -r /var/www; mkdir /var/www
truncate -s 8M /srv/sparse; echo end >>/srv/sparse
touch -d '2001-02-03 04:05:06' /srv/old
if [ -d /mnt ] && mountpoint -q /mnt; then
    echo mine >/mnt/.wh.name; mknod /mnt/hidden c 0 0; mkdir /mnt/sub
fi
'''
_LOOK = '''
cd /; for f in $(find /srv /var /mnt /etc -xdev | sort); do
    case $f in
    /etc/hosts|/etc/hostname|/etc/resolv.conf) ;;
    *) stat -c '%n %F %a %u:%g %h %Y %t' $f ;;
    esac
done; cat /srv/soft/deep/file; tail -c 4 /srv/sparse
du -k /srv/sparse
'''


class TransferTest(base.RuntimeTestCase):

    def sh(self, container_id, script):
        done = engine.execute(container_id,
                              command.Command(('/bin/sh', '-c', script)))
        self.assertEqual(0, done.exit_code, done)
        return done.stdout.decode()

    def start(self, container_id):
        engine.create(container_id)
        engine.start(container_id)

    @contextlib.contextmanager
    def packed(self, container_id, compression='zstd'):
        with self.images.spool.file(container_id) as file:
            spool, fd = file.name, file.fileno()
            parts = []
            for tree in engine.TREES:
                done = engine.pack(container_id, tree, spool, compression)
                if done:
                    parts.append((tree, done['diff_id'], done['offset'],
                                  done['size'], compression))
            yield spool, parts, fd

    def move(self, container_id, **fields):
        """The container again, with another id."""
        engine.halt(container_id)
        spec = dataclasses.replace(definition.load_own(container_id),
                                   id=str(uuid.uuid4()), **fields)
        self.addCleanup(engine.undefine, spec.id)
        with self.packed(container_id) as (spool, parts, _):
            engine.receive(spec, spool, parts)
        return spec.id

    def test_all_that_was_written_arrives(self):
        for size in (disk.Disk(),
                     disk.Disk(root=64 * _MIB, ephemeral=32 * _MIB)):
            container_id = self.run_container(*FOREVER, size=size)
            self.sh(container_id, _FILL)
            before = self.sh(container_id, _LOOK)
            moved = self.move(container_id)
            self.start(moved)
            self.assertEqual(before, self.sh(moved, _LOOK))
            self.assertNotEqual(privileged.host_ids(container_id),
                                privileged.host_ids(moved))

    def test_storage_of_a_runtime_inside_arrives(self):
        container_id = self.run_container(*FOREVER)
        path = place.container_state(container_id, 'nested', 'docker')
        base = privileged.host_ids(container_id)[0]
        os.makedirs(f'{path}/layer')
        os.mknod(f'{path}/layer/hidden', stat.S_IFCHR)
        os.setxattr(f'{path}/layer', 'user.overlay.opaque', b'y')
        for name in (path, f'{path}/layer', f'{path}/layer/hidden'):
            os.chown(name, base + 5, base + 6)
        moved = self.move(container_id)
        base = privileged.host_ids(moved)[0]
        path = place.container_state(moved, 'nested', 'docker', 'layer')
        found = os.lstat(f'{path}/hidden')
        self.assertEqual((stat.S_IFCHR, 0, base + 5, base + 6), (
            stat.S_IFMT(found.st_mode), found.st_rdev, found.st_uid,
            found.st_gid))
        self.assertEqual(b'y', os.getxattr(path, 'user.overlay.opaque'))

    def test_into_smaller_and_larger_disks(self):
        container_id = self.run_container(
            *FOREVER, size=disk.Disk(root=128 * _MIB))
        self.sh(container_id, 'head -c 8000000 /dev/urandom >/srv/data')
        for root in (64, 256, None):
            moved = self.move(container_id, disk=disk.Disk(
                root=root and root * _MIB))
            self.start(moved)
            self.assertEqual('8000000', self.sh(
                moved, 'wc -c </srv/data').strip())
        used = engine.used(container_id)
        self.assertGreater(used['upper'], 8000000)
        self.assertLess(used['upper'], 8500000)

    def test_what_does_not_fit_leaves_nothing(self):
        container_id = self.run_container(
            *FOREVER, size=disk.Disk(root=128 * _MIB, ephemeral=16 * _MIB))
        self.sh(container_id, 'head -c 64000000 /dev/urandom >/srv/data')
        before = set(state.ids())
        for size in (disk.Disk(root=32 * _MIB, ephemeral=16 * _MIB),
                     disk.Disk(root=128 * _MIB)):
            with self.assertRaises((exception.NoSpace,
                                    exception.InvalidSpec)):
                self.move(container_id, disk=size)
            self.assertEqual(before, set(state.ids()))

    def test_damaged_on_the_way(self):
        container_id = self.run_container(*FOREVER)
        self.sh(container_id, 'head -c 100000 /dev/urandom >/srv/data')
        engine.halt(container_id)
        spec = dataclasses.replace(definition.load_own(container_id),
                                   id=str(uuid.uuid4()))
        with self.packed(container_id, 'none') as (spool, parts, fd):
            os.pwrite(fd, b'xx', 4096)
            with self.assertRaises(exception.ImageInvalid):
                engine.receive(spec, spool, parts)
        self.assertFalse(state.exists(spec.id))

    def test_only_what_is_halted_and_only_into_nothing(self):
        container_id = self.run_container(*FOREVER)
        with self.images.spool.file(container_id) as file:
            spool = file.name
            with self.assertRaises(exception.StateConflict):
                engine.pack(container_id, 'upper', spool, 'none')
            with self.assertRaises(exception.StateConflict):
                engine.park(container_id)
            with self.assertRaises(exception.StateConflict):
                engine.receive(definition.load_own(container_id), spool, [])
            with self.assertRaises(exception.ContainerError):
                engine.pack(container_id, '../..', spool, 'none')

    def test_set_aside_beside_its_successor_and_back(self):
        container_id = self.run_container(*FOREVER)
        self.sh(container_id, 'echo old >/srv/which')
        engine.halt(container_id)
        own = definition.load_own(container_id)
        self.addCleanup(engine.discard, container_id)
        with self.packed(container_id) as (spool, parts, _):
            engine.park(container_id)
            self.assertTrue(state.parked(container_id))
            self.assertFalse(state.exists(container_id))
            engine.receive(own, spool, parts)
        self.start(container_id)
        self.assertEqual('old\n', self.sh(container_id, 'cat /srv/which'))
        self.sh(container_id, 'echo new >/srv/which')
        self.assertEqual([], host.recover())
        self.assertEqual(2, len(os.listdir(place.state('ids'))))
        self.assertLessEqual(set(own.layers), set(engine.layers_in_use()))
        with self.assertRaises(exception.StateConflict):
            engine.unpark(container_id)
        engine.undefine(container_id)
        self.assertTrue(engine.unpark(container_id))
        self.start(container_id)
        self.assertEqual('old\n', self.sh(container_id, 'cat /srv/which'))
        self.assertFalse(engine.unpark(container_id))

    def test_nothing_is_left_of_what_was_set_aside(self):
        container_id = self.run_container(*FOREVER)
        engine.halt(container_id)
        engine.park(container_id)
        engine.discard(container_id)
        engine.discard(container_id)
        for name in ('parked', 'ids', 'trash', 'containers'):
            self.assertEqual([], os.listdir(place.state(name)), name)
