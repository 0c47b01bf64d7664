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

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest.mock
import uuid

from nova_container import exception
from nova_container.privileged import block_device
from nova_container.privileged import cgroup
from nova_container.privileged import hotplug
from nova_container.privileged import loop
from nova_container.privileged import place
from nova_container.privileged import process as processes
from nova_container.privileged import volume as privileged_volume
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.runtime import volume
from nova_container.spec import command
from nova_container.spec import disk
from nova_container.spec import volume as volume_spec
from tests.functional import base

_MIB = 1 << 20
FOREVER = ('/bin/sleep', '1000000')


class VolumeTestCase(base.RuntimeTestCase):
    """A loop device stands for what os-brick connects."""

    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(tempfile.mkdtemp(dir='/var/tmp'))
        self.addCleanup(shutil.rmtree, self.directory)

    @contextlib.contextmanager
    def mounted(self, source, offset: int = 0):
        """The file system on a device or in a file, outside a container."""
        target = self.directory / 'mounted'
        target.mkdir()
        subprocess.run(['mount', '-o', f'loop,offset={offset}', source,
                        target], check=True)
        try:
            yield target
        finally:
            subprocess.run(['umount', target], check=True)
            target.rmdir()

    def device(self, size: int = 64 * _MIB) -> str:
        """A blank block device."""
        image = self.directory / uuid.uuid4().hex
        with open(image, 'wb') as file:
            file.truncate(size)
        device = subprocess.run(
            ['losetup', '--find', '--show', image], check=True, text=True,
            capture_output=True).stdout.strip()
        self.addCleanup(subprocess.run, ['losetup', '--detach', device],
                        check=True)
        return device

    def connected(self, device: str | None = None,
                  read_only: bool = False) -> str:
        """The id of a volume that is connected."""
        name = str(uuid.uuid4())
        volume.connect(name, device or self.device(), read_only)
        self.addCleanup(volume.disconnect, name)
        return name

    def attach(self, container_id: str, name: str, **fields) -> None:
        fields.setdefault('device', 'vdb')
        volume.attach(container_id, volume_spec.Attachment(name, **fields))
        self.addCleanup(engine.undefine, container_id)

    @staticmethod
    def no_patience():
        """What is in use is not waited for."""
        return unittest.mock.patch.object(block_device, '_BUSY_TIMEOUT', 0)

    def ending(self, container_id: str, step: str):
        """A context in which the process ends before a step of ``hotplug``.
        """
        real = getattr(hotplug, step)

        def end(*args):
            if (init := state.read(container_id).process) is not None:
                processes.send_signal(init, 9)
                self.finish(container_id)
            return real(*args)

        return unittest.mock.patch.object(hotplug, step, end)

    def inside(self, container_id: str, script: str) -> str:
        done = engine.execute(container_id, command.Command(
            args=('/bin/sh', '-ec', script)))
        self.assertEqual(0, done.exit_code, done.stderr)
        return done.stdout.decode().strip()


class DeviceTest(VolumeTestCase):

    def run_with(self, name: str, **rights: bool) -> str:
        """A container with a volume, and more rights than others have."""
        for right in rights:
            option = f'{right}_allowed'
            base.CONF.set_override(option, True, 'container')
            self.addCleanup(base.CONF.clear_override, option, 'container')
        container_id = self.define(*FOREVER)
        self.redefine(container_id, **rights)
        self.attach(container_id, name)
        engine.create(container_id)
        engine.start(container_id)
        return container_id

    def test_hot(self):
        device = self.device()
        name = self.connected(device)
        container_id = self.run_container(*FOREVER)
        self.attach(container_id, name)
        self.assertEqual(str(64 * _MIB), self.inside(
            container_id, 'blockdev --getsize64 /dev/vdb'))
        self.inside(container_id, 'echo hello | dd of=/dev/vdb conv=fsync')
        self.assertEqual('0 0 660', self.inside(
            container_id, 'stat -c "%u %g %a" /dev/vdb'))
        # Again, as after a kill.
        self.attach(container_id, name)
        volume.detach(container_id, name)
        self.assertEqual('', self.inside(
            container_id, 'ls /dev | grep vdb || true'))
        volume.detach(container_id, name)
        with open(device, 'rb') as file:
            self.assertEqual(b'hello\n', file.read(6))

    def test_container_that_ends_meanwhile(self):
        name = self.connected()
        container_id = self.run_container(*FOREVER)
        with self.ending(container_id, '_let_through'):
            self.attach(container_id, name)
        engine.halt(container_id)
        engine.create(container_id)
        engine.start(container_id)
        self.inside(container_id, 'test -b /dev/vdb')
        with self.ending(container_id, '_refuse_open'):
            volume.detach(container_id, name)
        self.assertFalse(volume.of(container_id))

    def test_from_the_start(self):
        name = self.connected()
        container_id = self.define(*FOREVER)
        self.attach(container_id, name, device='vdz')
        for _ in '12':
            engine.create(container_id)
            engine.start(container_id)
            self.assertEqual('60', self.inside(
                container_id, 'dd if=/dev/vdz bs=1M 2>/dev/null | wc -c '
                '| cut -c 1-1; stat -c %h /dev/vdz >/dev/null; echo 0'
            ).replace('\n', ''))
            engine.halt(container_id)

    def test_read_only(self):
        name = self.connected()
        container_id = self.run_container(*FOREVER)
        self.attach(container_id, name, read_only=True)
        self.inside(container_id, 'dd if=/dev/vdb bs=4k count=1 of=/dev/null')
        done = engine.execute(container_id, command.Command(
            args=('/bin/dd', 'if=/dev/zero', 'of=/dev/vdb', 'count=1')))
        self.assertNotEqual(0, done.exit_code)

    def test_other_devices_stay_closed(self):
        device = self.device()
        number = os.stat(device).st_rdev
        container_id = self.run_container(*FOREVER)
        self.attach(container_id, self.connected())
        done = engine.execute(container_id, command.Command(
            args=('/bin/mknod', '/tmp/x', 'b', str(os.major(number)),
                  str(os.minor(number)))))
        self.assertNotEqual(0, done.exit_code)

    def test_loop_device_stays_over_its_file(self):
        """Let go of, its number would be that of somebody else's disk."""
        for rights in ('', 'nesting', 'privileged'):
            with self.subTest(rights):
                device = self.device()
                backing = subprocess.run(
                    ['losetup', device], check=True, text=True,
                    capture_output=True).stdout
                container_id = self.run_with(
                    self.connected(device), **{rights: True} if rights else {})
                for action in ('-d /dev/vdb', '-c /dev/vdb',
                               '/dev/vdb /bin/sh'):
                    done = engine.execute(container_id, command.Command(
                        args=('/bin/sh', '-c', f'losetup {action}')))
                    self.assertNotEqual(0, done.exit_code, action)
                self.assertEqual(backing, subprocess.run(
                    ['losetup', device], check=True, text=True,
                    capture_output=True).stdout)

    def test_kept_node_is_closed(self):
        """A node that a process has kept, but not open, leads nowhere once
        its number may be another volume's.
        """
        name = self.connected()
        container_id = self.run_with(name, nesting=True)
        if cgroup.unified():
            # Nor can another be opened, then.
            with self.assertRaisesRegex(exception.StateConflict, 'stop'):
                volume.detach(container_id, name)
            with self.assertRaisesRegex(exception.StateConflict, 'stop'):
                self.attach(container_id, self.connected(), device='vdc')
            return
        self.inside(container_id,
                    'touch /tmp/kept; mount --bind /dev/vdb /tmp/kept; '
                    'head -c 1 /tmp/kept | wc -c')
        volume.detach(container_id, name)
        done = engine.execute(container_id, command.Command(
            args=('/bin/head', '-c', '1', '/tmp/kept')))
        self.assertNotEqual(0, done.exit_code)
        self.assertEqual('65534 65534 0', self.inside(
            container_id, 'stat -c "%u %g %a" /tmp/kept'))

    def test_something_in_its_place(self):
        name = self.connected()
        container_id = self.run_container(*FOREVER)
        self.inside(container_id, 'ln -s /etc/passwd /dev/vdb')
        with self.assertRaisesRegex(exception.InvalidSpec, 'that name'):
            self.attach(container_id, name)
        # It is not attached after that, and can be elsewhere.
        self.attach(container_id, name, device='vdc')

    def test_open_device(self):
        name = self.connected()
        container_id = self.run_container(*FOREVER)
        self.attach(container_id, name)
        self.inside(container_id, 'sleep 1000000 < /dev/vdb >/dev/null 2>&1 '
                    '& echo $! > /tmp/pid; until [ "$(readlink '
                    '/proc/$!/fd/0)" = /dev/vdb ]; do sleep 0.1; done')
        with self.assertRaisesRegex(exception.StateConflict, 'open'):
            volume.detach(container_id, name)
        # It is as it was.
        self.inside(container_id, 'dd if=/dev/vdb count=1 of=/dev/null')
        self.inside(container_id, 'kill -9 $(cat /tmp/pid); while [ -e '
                    '/proc/$(cat /tmp/pid)/fd/0 ]; do sleep 0.1; done')
        volume.detach(container_id, name)

    @contextlib.contextmanager
    def process_with(self, container_id: str, device: str, script: str):
        """A process of the container's that has run ``script`` with the
        device open as ``fd``, and has closed that.
        """
        group = place.cgroup(container_id)
        process = self.enterContext(subprocess.Popen(
            [sys.executable, '-c', f'''
import mmap, os, socket, sys
fd = os.open({device!r}, os.O_RDWR)
{script}
os.close(fd)
print("ready", flush=True)
sys.stdin.read()
'''], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        self.assertEqual('ready\n', process.stdout.readline())
        pathlib.Path(
            cgroup.ROOT + ('' if cgroup.unified() else '/pids') + group,
            'cgroup.procs').write_text(str(process.pid))
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def test_device_that_is_open_without_a_descriptor(self):
        for script, words in (
                ('kept = mmap.mmap(fd, 4096)', 'is open'),
                ('pair = socket.socketpair(); '
                 'socket.send_fds(pair[0], [b"x"], [fd])', 'nobody has')):
            with self.subTest(words):
                device = self.device()
                name = self.connected(device)
                container_id = self.run_container(*FOREVER)
                self.attach(container_id, name)
                with self.process_with(container_id, device, script), \
                        self.assertRaisesRegex(exception.StateConflict,
                                               words):
                    volume.detach(container_id, name)
                volume.detach(container_id, name)

    def test_copy(self):
        first, second = self.device(), self.device(96 * _MIB)
        with open(first, 'r+b') as file:
            file.seek(10 * _MIB)
            file.write(b'content')
        names = [self.connected(first), self.connected(second)]
        volume.copy(*names)
        with open(second, 'rb') as file:
            file.seek(10 * _MIB)
            self.assertEqual(b'content', file.read(7))
        with self.assertRaisesRegex(exception.StateConflict, 'smaller'):
            volume.copy(*reversed(names))


class ConnectTest(VolumeTestCase):
    """nova-compute cannot have a tenant get what is the host's."""

    def refused(self, path: str, words: str,
                error=exception.InvalidSpec) -> None:
        with self.assertRaisesRegex(error, words):
            volume.connect(str(uuid.uuid4()), path, False)

    def test_paths(self):
        self.refused('/etc/shadow', 'neither')
        self.refused('/dev/null', 'not a block device')
        self.refused('/dev/../etc/shadow', 'neither')
        share = place.state('mnt', 32 * 'a')
        os.mkdir(share)
        self.addCleanup(os.rmdir, share)
        self.refused(f'{share}/volume', 'nothing is mounted',
                     exception.StateConflict)

    def test_link_on_a_share(self):
        share = place.state('mnt', 32 * 'b')
        os.mkdir(share)
        subprocess.run(['mount', '--bind', self.directory, share], check=True)
        self.addCleanup(os.rmdir, share)
        self.addCleanup(volume.unmount_share, 32 * 'b')
        os.symlink('/etc/shadow', self.directory / 'volume')
        with self.assertRaises(OSError):
            volume.connect(str(uuid.uuid4()), f'{share}/volume', False)

    def test_mounted_device(self):
        device = self.device()
        subprocess.run(['mke2fs', '-q', device], check=True)
        target = self.directory / 'mnt'
        target.mkdir()
        subprocess.run(['mount', device, target], check=True)
        self.addCleanup(subprocess.run, ['umount', target], check=True)
        with self.no_patience():
            self.refused(device, 'still in use', exception.StateConflict)

    def test_what_is_in_use_is_not_let_go_of(self):
        device = self.device()
        name = self.connected(device)
        fd = os.open(device, os.O_RDONLY | os.O_EXCL)
        try:
            with self.no_patience(), self.assertRaisesRegex(
                    exception.StateConflict, 'still in use'):
                volume.disconnect(name)
        finally:
            os.close(fd)
        self.assertEqual(64 * _MIB, volume.take_size(name))

    def test_loop_device_whose_last_user_goes_meanwhile(self):
        image = os.open(self.directory / 'image', os.O_RDWR | os.O_CREAT)
        os.truncate(image, _MIB)
        user, path = loop.attach(image, 512, loop.FLAG_AUTOCLEAR)
        os.close(image)
        bound = loop._bound

        def last_look(path):
            found = bound(path)
            with contextlib.suppress(OSError):
                os.close(user)
            return found

        with unittest.mock.patch.object(loop, '_bound', last_look):
            self.assertTrue(loop.take_down(path))

    def test_file_on_a_share(self):
        """It gets a loop device, which goes with it."""
        share = place.state('mnt', 32 * 'c')
        os.mkdir(share)
        subprocess.run(['mount', '--bind', self.directory, share], check=True)
        self.addCleanup(os.rmdir, share)
        image = self.directory / 'volume'
        with open(image, 'wb') as file:
            file.truncate(32 * _MIB)
        name = str(uuid.uuid4())
        self.assertEqual(32 * _MIB, volume.connect(name, f'{share}/volume',
                                                   False))
        self.assertFalse(volume.unmount_share(32 * 'c'))
        os.truncate(image, 48 * _MIB)
        self.assertEqual(48 * _MIB, volume.take_size(name))
        # One that nobody remembers goes at the next start.
        os.unlink(place.run('volumes', f'{name}.json'))
        if os.path.exists('/run/udev/control'):
            # It may just look at the device, which then stays until it has.
            subprocess.run(['udevadm', 'settle'], check=True)
        privileged_volume.recover()
        self.assertEqual([], base.backing_files(f'{share}/volume'))
        self.assertTrue(volume.unmount_share(32 * 'c'))


class MountTest(VolumeTestCase):

    def test_blank_volume(self):
        name = self.connected()
        container_id = self.run_container(*FOREVER)
        self.attach(container_id, name, path='/var/lib/data')
        self.assertEqual('', self.inside(container_id,
                                         'ls -A /var/lib/data'))
        self.inside(container_id, 'echo kept > /var/lib/data/file; '
                    'chown 33:34 /var/lib/data/file')
        engine.halt(container_id)
        engine.create(container_id)
        engine.start(container_id)
        self.assertEqual('33 34', self.inside(
            container_id, 'stat -c "%u %g" /var/lib/data/file'))
        volume.detach(container_id, name)
        self.assertEqual('', self.inside(container_id,
                                         'ls -A /var/lib/data'))
        # Other ids outside, the same inside.
        other = self.run_container(*FOREVER)
        self.attach(other, name, path='/mnt', read_only=True)
        self.assertEqual('kept 33 34', self.inside(
            other, 'echo $(cat /mnt/file) $(stat -c "%u %g" /mnt/file)'))
        done = engine.execute(other, command.Command(
            args=('/bin/touch', '/mnt/new')))
        self.assertIn(b'Read-only', done.stderr)

    def test_owner_of_the_directory(self):
        name = self.connected()
        container_id = self.define(*FOREVER)
        self.attach(container_id, name, path='/tmp')
        engine.create(container_id)
        engine.start(container_id)
        self.assertEqual('0 1777', self.inside(container_id,
                                               'stat -c "%u %a" /tmp'))

    def test_container_that_ends_meanwhile(self):
        name = self.connected()
        container_id = self.run_container(*FOREVER)
        with self.ending(container_id, '_where'):
            self.attach(container_id, name, path='/data')
        engine.halt(container_id)
        engine.create(container_id)
        engine.start(container_id)
        self.inside(container_id, 'grep -q " /data " /proc/mounts')
        with self.ending(container_id, '_where'):
            volume.detach(container_id, name)
        self.assertFalse(volume.of(container_id))

    def test_busy(self):
        name = self.connected()
        container_id = self.run_container(*FOREVER)
        self.attach(container_id, name, path='/data')
        self.inside(container_id, 'cd /data; sleep 1000000 >/dev/null 2>&1 '
                    '& echo $! > /tmp/pid')
        with self.assertRaisesRegex(exception.StateConflict, 'in use'):
            volume.detach(container_id, name)
        engine.halt(container_id)
        volume.detach(container_id, name)

    def test_what_it_holds(self):
        device = self.device()
        with open(device, 'r+b') as file:
            file.seek(_MIB // 2)
            file.write(b'x')
        container_id = self.run_container(*FOREVER)
        with self.assertRaisesRegex(exception.InvalidSpec, 'neither ext4'):
            self.attach(container_id, self.connected(device), path='/data')
        broken = self.device()
        with open(broken, 'r+b') as file:
            file.seek(1024)
            file.write(b'\xff' * 56 + b'\x53\xef' + b'\xff' * 966)
        with self.assertRaisesRegex(exception.ContainerError, 'e2fsck|damag'):
            self.attach(container_id, self.connected(broken), path='/data')
        with self.assertRaisesRegex(exception.InvalidSpec, 'read-only'):
            self.attach(container_id, self.connected(), path='/data',
                        read_only=True)

    def test_link_in_its_place(self):
        """What a tenant puts in the way leads nowhere outside."""
        name = self.connected()
        container_id = self.run_container(*FOREVER)
        self.inside(container_id, 'ln -s ../../../srv /link')
        with self.assertRaises(exception.InvalidSpec):
            self.attach(container_id, name, path='/link')
        self.attach(container_id, name, path='/link/inside')
        self.inside(container_id, 'echo x > /srv/inside/file')
        self.assertFalse(os.path.exists('/srv/inside'))
        engine.halt(container_id)

    def test_not_wanted_by_the_operator(self):
        base.CONF.set_override('volume_file_systems', [], 'container')
        self.addCleanup(base.CONF.clear_override, 'volume_file_systems',
                        'container')
        container_id = self.run_container(*FOREVER)
        with self.assertRaisesRegex(exception.HostUnsupported,
                                    'volume_file_systems'):
            self.attach(container_id, self.connected(), path='/data')

    def test_grown_device(self):
        image_size = 64 * _MIB
        device = self.device(image_size)
        name = self.connected(device)
        container_id = self.define(*FOREVER)
        self.attach(container_id, name, path='/data')
        engine.create(container_id)
        engine.start(container_id)
        self.inside(container_id, 'echo kept > /data/file')
        engine.halt(container_id)
        (image,) = self.directory.iterdir()
        os.truncate(image, 2 * image_size)
        self.assertEqual(2 * image_size, volume.take_size(name))
        engine.create(container_id)
        engine.start(container_id)
        self.assertEqual('kept', self.inside(container_id,
                                             'cat /data/file'))
        self.assertGreater(int(self.inside(
            container_id, 'df -k /data | tail -1').split()[1]), 100 * 1024)


class BootTest(VolumeTestCase):
    """The writable layer is on the volume, behind an archive."""

    OFFSET = 3 * _MIB

    def boot(self, name: str, **fields) -> str:
        return self.run_container(*FOREVER, size=disk.Disk(
            boot=disk.BootVolume(name, self.OFFSET)), **fields)

    def test_what_is_written_stays(self):
        device = self.device(160 * _MIB)
        with open(device, 'r+b') as file:
            file.write(b'archive')
        name = self.connected(device)
        container_id = self.boot(name)
        self.inside(container_id, 'echo kept > /srv/file; '
                    'chown 33:34 /srv/file; rm /etc/group; echo x >>/etc/'
                    'passwd; mkdir -m 700 /srv/dir; ln -s file /srv/link')
        self.assertLess(int(self.inside(
            container_id, 'df -k / | tail -1').split()[1]), 160 * 1024)
        self.assertEqual({name: [container_id]}, volume.attached())
        engine.halt(container_id)
        engine.create(container_id)
        engine.start(container_id)
        self.assertEqual('kept', self.inside(container_id, 'cat /srv/link'))
        engine.undefine(container_id)
        # Another container has other ids.
        holder = self.define(*FOREVER)
        other = self.boot(name)
        self.assertEqual('kept 33 34', self.inside(
            other, 'echo $(cat /srv/file) $(stat -c "%u %g" /srv/file)'))
        self.inside(other, 'test ! -e /etc/group; echo y >> /srv/file; '
                    'rm -r /srv/dir; mv /srv/file /etc/file; chown 0:0 '
                    '/etc/file')
        engine.undefine(other)
        engine.undefine(holder)
        with open(device, 'rb') as file:
            self.assertEqual(b'archive', file.read(7))

    def test_it_grows(self):
        device = self.device(96 * _MIB)
        name = self.connected(device)
        container_id = self.boot(name)
        self.inside(container_id, 'echo kept > /srv/file')
        engine.halt(container_id)
        (image,) = self.directory.iterdir()
        os.truncate(image, 192 * _MIB)
        volume.take_size(name)
        engine.create(container_id)
        engine.start(container_id)
        self.assertEqual('kept', self.inside(container_id, 'cat /srv/file'))
        self.assertGreater(int(self.inside(
            container_id, 'df -k / | tail -1').split()[1]), 150 * 1024)

    def test_used_by_one_at_a_time(self):
        device = self.device(96 * _MIB)
        name = self.connected(device)
        container_id = self.boot(name)
        with self.assertRaisesRegex(exception.StateConflict, 'which runs'):
            volume.disconnect(name)
        second = self.define(*FOREVER, size=disk.Disk(
            boot=disk.BootVolume(name, self.OFFSET)))
        with self.no_patience(), self.assertRaisesRegex(
                exception.StateConflict, 'in use'):
            engine.create(second)
        engine.undefine(container_id)
        engine.create(second)

    def test_hostile_directories(self):
        device = self.device(96 * _MIB)
        name = self.connected(device)
        container_id = self.boot(name)
        engine.halt(container_id)
        secret = self.directory / 'secret'
        secret.mkdir()
        for link in ('upper', 'work', 'nested', 'nested/docker', 'upper.new',
                     'work/unfinished'):
            with self.subTest(link), \
                    self.mounted(device, self.OFFSET) as layer:
                path = layer / link
                if path.exists():
                    path.rename(f'{path}.real')
                path.symlink_to(secret)
            with self.assertRaisesRegex(exception.InvalidSpec,
                                        'not a directory'):
                engine.create(container_id)
            with self.mounted(device, self.OFFSET) as layer:
                path = layer / link
                path.unlink()
                if os.path.exists(f'{path}.real'):
                    os.rename(f'{path}.real', path)
        self.assertEqual([], os.listdir(secret))
        engine.create(container_id)

    def test_cleared(self):
        device = self.device(96 * _MIB)
        with open(device, 'r+b') as file:
            file.write(b'archive')
        name = self.connected(device)
        container_id = self.boot(name)
        with self.assertRaisesRegex(exception.StateConflict, 'which runs'):
            volume.clear(name)
        self.inside(container_id, 'echo lost > /srv/file')
        engine.halt(container_id)
        volume.clear(name)
        with open(device, 'rb') as file:
            self.assertFalse(file.read().strip(b'\0'))
        engine.create(container_id)
        engine.start(container_id)
        self.assertEqual('', self.inside(container_id, 'ls -A /srv'))

    def test_no_place_for_it(self):
        name = self.connected(self.device(48 * _MIB))
        with self.assertRaisesRegex(exception.InvalidSpec, 'extend it'):
            self.boot(name)
        full = self.device(96 * _MIB)
        with open(full, 'r+b') as file:
            file.write(b'x' * 4 * _MIB)
        with self.assertRaisesRegex(exception.InvalidSpec, 'neither ext4'):
            self.boot(self.connected(full))

    def test_reading_the_archive(self):
        device = self.device()
        with open(device, 'r+b') as file:
            file.write(b'archive')
        name = self.connected(device)
        with self.images.spool.file('test') as file:
            volume.read(name, 7, file.name)
            self.assertEqual(b'archive', os.pread(file.fileno(), 9, 0))
            with self.assertRaises(exception.InvalidSpec):
                volume.read(name, 1 << 40, file.name)
