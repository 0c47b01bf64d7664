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
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from unittest import mock

from nova_container import exception
from nova_container.privileged import container as privileged
from nova_container.privileged import disk as privileged_disk
from nova_container.privileged import host
from nova_container.privileged import linux
from nova_container.privileged import loop
from nova_container.privileged import namespace
from nova_container.privileged import place
from nova_container.privileged import process as processes
from nova_container.privileged import quota
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import codec
from nova_container.spec import container
from nova_container.spec import disk
from tests.functional import base

_MIB = 1 << 20
_FULL = 'No space left on device|quota exceeded'
_SMALL = disk.Disk(root=32 * _MIB)

FOREVER = ('/bin/sleep', '1000000')


class DiskTestCase(base.RuntimeTestCase):

    def run_again(self, container_id: str) -> str:
        """What the container has written after one more start."""
        engine.halt(container_id)
        engine.create(container_id)
        engine.start(container_id)
        self.finish(container_id)
        return self.text(container_id)

    def redefine(self, container_id: str, size: disk.Disk) -> None:
        with open(place.container_state(container_id, 'spec.json')) as file:
            spec = codec.decode(container.ContainerSpec, json.load(file))
        engine.define(dataclasses.replace(spec, disk=size))

    def assert_loops(self, count: int, container_id: str) -> None:
        """Loop devices of a container, where it needs any."""
        if quota.offered(place.state()):
            count = 0
        self.assertEqual(count, len(self.loops(container_id)))

    def loops(self, container_id: str) -> list[str]:
        return base.backing_files(container_id)


class FullDiskTest(DiskTestCase):

    @staticmethod
    def occupied() -> tuple[int, int]:
        """Bytes and files that all containers have on the host."""
        found = [os.lstat(os.path.join(directory, name))
                 for directory, _, names in os.walk(place.state('containers'))
                 for name in names]
        return sum(item.st_blocks for item in found) * 512, len(found)

    def test_full_inside_and_nowhere_else(self):
        neighbour = self.run_container(
            '/bin/sh', '-c', 'while [ ! -e /go ]; do sleep 0.1; done; '
            'dd if=/dev/zero of=/srv/x bs=1M count=8 && echo fits',
            size=_SMALL)
        before, _ = self.occupied()
        out = self.shell(
            'dd if=/dev/zero of=/srv/x bs=4k count=25600 2>&1; sync; '
            'dd if=/dev/zero of=/srv/y bs=1M count=4 || echo FULL; '
            'rm /srv/x; '
            'echo z > /srv/z && echo usable again', size=_SMALL)
        self.assertRegex(out, _FULL)
        self.assertIn('FULL', out)
        self.assertIn('usable again', out)
        self.assertLess(self.occupied()[0] - before, 100 * _MIB)
        pid = state.read(neighbour).process.pid
        pathlib.Path(f'/proc/{pid}/root/go').touch()
        self.finish(neighbour)
        self.assertIn('fits', self.text(neighbour))

    def test_full_disk_can_be_emptied_after_a_restart(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'if [ -e /srv/x ]; then rm /srv/x && '
            'echo emptied; else cat /dev/zero > /srv/x; sync; fi',
            size=_SMALL)
        self.finish(container_id)
        engine.halt(container_id)
        engine.create(container_id)
        engine.start(container_id)
        self.finish(container_id)
        self.assertIn('emptied', self.text(container_id))

    def test_size_is_what_the_container_sees(self):
        out = self.shell("df -k / | tail -n 1 | awk '{print $2}'",
                         size=disk.Disk(root=256 * _MIB))
        self.assertLessEqual(int(out), 256 * 1024)
        self.assertGreater(int(out), 200 * 1024)

    def test_many_empty_files(self):
        _, before = self.occupied()
        out = self.shell(
            'mkdir /srv/d; cd /srv/d; i=0; '
            'while true > $i; do i=$((i+1)); done; '
            'echo made $i; rm -r /srv/d; echo x > /srv/again && echo usable',
            size=disk.Disk(root=16 * _MIB))
        made = int(out.split('made ')[1].split()[0])
        self.assertLessEqual(made, 16 * _MIB // loop.BYTES_PER_INODE)
        self.assertIn('usable', out)
        self.assertLess(self.occupied()[1] - before, 100)
        self.assertGreater(made, 100)

    def test_image_files_and_removals_work_on_it(self):
        out = self.shell('rm /etc/group; ls /etc; '
                         'echo x >> /etc/passwd; tail -n 1 /etc/passwd; '
                         'rm -r /var/www; mkdir /var/www; ls -ld /var/www',
                         size=_SMALL)
        self.assertNotIn('group', out)
        self.assertIn('\nx\n', out)

    def test_freed_space_goes_back_to_the_host(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'dd if=/dev/urandom of=/srv/x bs=1M count=20; '
            'sync; echo written; while [ -e /srv/stay ]; do sleep 0.1; done; '
            'rm /srv/x; sync; echo removed', size=_SMALL)
        self.finish(container_id)
        engine.halt(container_id)
        self.assertIn('removed', self.text(container_id))
        self.assertLess(privileged_disk.used(container_id), 10 * _MIB)

    def test_unlimited_without_a_size(self):
        out = self.shell("df -k / | tail -n 1 | awk '{print $2}'")
        host = os.statvfs(place.state())
        self.assertGreater(int(out) * 1024,
                           host.f_blocks * host.f_frsize * 0.9)


class LifeOfADiskTest(DiskTestCase):

    def test_content_survives_halt_and_nothing_stays_mounted(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'cat /srv/kept; echo kept > /srv/kept',
            size=_SMALL)
        self.finish(container_id)
        engine.halt(container_id)
        self.assertEqual([], self.loops(container_id))
        self.assertIn('kept', self.run_again(container_id))
        engine.undefine(container_id)
        self.assertEqual([], self.loops(container_id))

    def test_mounted_where_only_containers_see_it(self):
        container_id = self.run_container(*FOREVER, size=_SMALL)
        self.assertNotIn(container_id,
                         pathlib.Path('/proc/self/mountinfo').read_text())
        self.assert_loops(1, container_id)

    def test_grows_and_keeps_its_content(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'cat /srv/kept; echo kept > /srv/kept; '
            'dd if=/dev/zero of=/srv/x bs=1M count=60 && echo fits',
            size=_SMALL)
        self.finish(container_id)
        self.assertNotIn('fits', self.text(container_id))
        engine.halt(container_id)
        self.redefine(container_id, disk.Disk(root=96 * _MIB))
        out = self.run_again(container_id)
        self.assertIn('kept', out)
        self.assertIn('fits', out)

    def test_grows_to_no_limit(self):
        container_id = self.run_container('/bin/sh', '-c', 'df -k / | tail '
                                          "-n 1 | awk '{print $2}'",
                                          size=_SMALL)
        self.finish(container_id)
        engine.halt(container_id)
        self.redefine(container_id, disk.Disk())
        small, large = self.run_again(container_id).split()
        self.assertGreater(int(large), 20 * int(small))

    def test_does_not_shrink(self):
        container_id = self.define(*FOREVER, size=_SMALL)
        unlimited = self.define(*FOREVER)
        for name, size in ((container_id, disk.Disk(root=16 * _MIB)),
                           (unlimited, _SMALL)):
            with self.assertRaisesRegex(exception.InvalidSpec, 'shrink'):
                self.redefine(name, size)

    def test_read_by_root_while_it_runs_and_when_halted(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'echo seen > /srv/x; echo written; '
            'exec sleep 1000000', size=_SMALL)
        alive = state.read(container_id).process
        while 'written' not in self.text(container_id):
            self.assertTrue(processes.alive(alive), self.text(container_id))

        base = privileged.host_ids(container_id)[0]

        def read() -> str:
            with privileged_disk.upper(container_id, base) as upper:
                return pathlib.Path(upper, 'srv/x').read_text()

        self.assertEqual('seen\n', namespace.with_mounts(read))
        engine.halt(container_id)
        self.assertEqual('seen\n', namespace.with_mounts(read))
        self.assertEqual([], self.loops(container_id))

    def test_reading_that_was_killed(self):
        container_id = self.run_container('/bin/true', size=_SMALL)
        self.finish(container_id)
        engine.halt(container_id)
        base = privileged.host_ids(container_id)[0]
        first, second = (privileged_disk.upper(container_id, base)
                         for _ in range(2))
        namespace.with_mounts(first.__enter__)
        self.assert_loops(1, container_id)
        self.run_again(container_id)
        engine.halt(container_id)
        self.assertEqual([], self.loops(container_id))
        namespace.with_mounts(second.__enter__)
        host.recover()
        self.assertEqual([], self.loops(container_id))


class EphemeralDiskTest(DiskTestCase):

    def test_a_second_disk_with_a_size_of_its_own(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'cat /mnt/kept; echo kept > /mnt/kept; '
            'dd if=/dev/zero of=/mnt/x bs=1M count=50 2>&1; '
            'echo y > /srv/y && echo root is not full; '
            "ls -ld /mnt | awk '{print $3}'; ls -A /mnt; rm /mnt/x",
            size=disk.Disk(root=32 * _MIB, ephemeral=24 * _MIB))
        self.finish(container_id)
        out = self.text(container_id)
        self.assertRegex(out, _FULL)
        self.assertIn('root is not full', out)
        self.assertNotIn('lost+found', out)
        self.assert_loops(2, container_id)
        self.assertIn('\nkept\n', self.run_again(container_id))
        engine.halt(container_id)
        self.assertEqual([], self.loops(container_id))

    def test_beside_a_root_disk_without_limit(self):
        out = self.shell('echo a > /mnt/a && cat /mnt/a',
                         size=disk.Disk(ephemeral=24 * _MIB))
        self.assertEqual('a', out.strip())

    def test_comes_with_a_new_size(self):
        container_id = self.run_container('/bin/sh', '-c', 'echo x > /mnt/x',
                                          size=_SMALL)
        self.finish(container_id)
        self.assertIn('nonexistent', self.text(container_id))
        engine.halt(container_id)
        self.redefine(container_id, disk.Disk(root=32 * _MIB,
                                              ephemeral=24 * _MIB))
        self.run_again(container_id)
        self.assertEqual(0, state.read(container_id).exit_code)


class ImageTest(DiskTestCase):
    """Sparse files alone, also where project quotas are to be had."""

    def setUp(self):
        super().setUp()
        directory = pathlib.Path(tempfile.mkdtemp(dir=place.state()))
        self.addCleanup(shutil.rmtree, directory)
        self.image = str(directory / 'disk.img')
        self.target = directory / 'mnt'
        self.target.mkdir()
        loop.make(self.image, 32 * _MIB, 1000)

    def mounted(self, steps) -> None:
        """``steps()`` while the image is mounted."""
        def around():
            loop.mount(self.image, str(self.target))
            try:
                steps()
            finally:
                linux.umount(str(self.target))
        namespace.with_mounts(around)

    def test_takes_little_until_it_is_written(self):
        self.mounted(lambda: self.assertEqual(
            1000, self.target.stat().st_uid))
        self.assertLess(loop.used(self.image), 8 * _MIB)

    def test_never_mounted_twice(self):
        def again():
            with mock.patch.object(loop, '_BUSY_TIMEOUT', 0.1), \
                    self.assertRaisesRegex(exception.StateConflict, 'in use'):
                loop.mount(self.image, str(self.target))
        self.mounted(again)
        held = []
        self.mounted(lambda: held.append(os.open(self.target, os.O_RDONLY)))
        # Not visible any more, and still there.
        namespace.with_mounts(again)
        os.close(held[0])
        self.mounted(lambda: None)

    def test_growing_that_was_killed(self):
        content = self.target / 'kept'
        self.mounted(lambda: content.write_bytes(b'kept' * 100000))
        for step in range(12):
            os.truncate(self.image, (40 + 8 * step) * _MIB)
            with subprocess.Popen(
                    ['resize2fs', '-z', self.image + '.undo', self.image],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL) as work:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    work.wait(step / 1000)
                work.kill()
            self.mounted(lambda: self.assertEqual(b'kept' * 100000,
                                                  content.read_bytes()))
        loop.grow(self.image, 200 * _MIB)

        def look():
            size = os.statvfs(self.target)
            self.assertGreater(size.f_blocks * size.f_frsize, 180 * _MIB)
            self.assertEqual(b'kept' * 100000, content.read_bytes())
        self.mounted(look)


class KilledTest(DiskTestCase):
    """kill -9 at any point, and at the end no loop device is left."""

    def child(self, module: str, function: str,
              container_id: str) -> subprocess.Popen:
        code = (
            'import sys; from oslo_config import cfg; '
            'from nova_container import conf; CONF = cfg.CONF; '
            'conf.register_opts(CONF); '
            'CONF([], project="x", default_config_files=[], '
            'default_config_dirs=[]); '
            + ''.join(
                f'CONF.set_override({name!r}, '
                f'{base.CONF.container[name]!r}, "container"); '
                for name in ('state_path', 'run_path', 'cgroup_parent',
                             'id_range_start'))
            + f'from nova_container.privileged import {module}, context; '
            'context.set_client_mode(False); print(flush=True); '
            f'{module}.{function}({container_id!r})')
        child = subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c', code],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        child.stdout.readline()
        return child

    def test_at_any_step_of_create(self):
        container_id = self.define(*FOREVER, size=_SMALL)
        for at in range(0, 150, 25):
            with self.child('creation', 'create', container_id) as child:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(at / 1000)
                child.kill()
            host.recover()
            self.assertEqual([], self.loops(container_id), f'{at} ms')
            self.assertFalse(
                os.path.exists(place.container_run(container_id)))
        engine.create(container_id)
        engine.start(container_id)
        self.assertIs(state.Status.RUNNING, state.read(container_id).status)

    def test_at_any_step_of_removal(self):
        for at in range(0, 100, 25):
            container_id = self.run_container(*FOREVER, size=_SMALL)
            with self.child('ending', 'undefine', container_id) as child:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(at / 1000)
                child.kill()
            host.recover()
            engine.undefine(container_id)
            self.assertEqual([], self.loops(container_id), f'{at} ms')

    def test_monitor_and_process_killed(self):
        container_id = self.run_container(*FOREVER, size=_SMALL)
        current = state.read(container_id)
        os.kill(current.monitor.pid, signal.SIGKILL)
        os.kill(current.process.pid, signal.SIGKILL)
        self.finish(container_id)
        engine.halt(container_id)
        self.assertEqual([], self.loops(container_id))
