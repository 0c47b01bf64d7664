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

import errno
import fcntl
import json
import os
import pathlib
import socket
import subprocess
import termios
import time
import traceback
from unittest import mock

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import link
from nova_container.privileged import place
from nova_container.privileged import quota
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.runtime import stats
from nova_container.spec import disk
from nova_container.spec import limits
from nova_container.spec import network
from tests.functional import base

_MIB = 1 << 20

FOREVER = ('/bin/sleep', '1000000')


class LimitsTestCase(base.RuntimeTestCase):

    def group_file(self, container_id: str, controller: str,
                   name: str) -> str:
        """Content of a control group's file.

        :param name: on cgroup v1 and on v2, with a comma between
        """
        v1, v2 = name.split(',')
        group = place.cgroup(container_id)
        path = (f'{cgroup.ROOT}{group}/{v2}' if cgroup.unified()
                else f'{cgroup.ROOT}/{controller}{group}/{v1}')
        return pathlib.Path(path).read_text().strip()

    def signal_go(self, container_id: str) -> None:
        """What a script waits for with ``until [ -e /go ]``."""
        pid = state.read(container_id).process.pid
        pathlib.Path(f'/proc/{pid}/root/go').touch()


class ProcessorTest(LimitsTestCase):

    def test_cpuset(self):
        last = max(os.sched_getaffinity(0))
        out = self.shell('grep Cpus_allowed_list /proc/self/status',
                         limit=limits.Limits(cpuset=str(last)))
        self.assertEqual(str(last), out.split()[1])


class MemoryTest(LimitsTestCase):

    # All at once, so that little is there to be reclaimed first.
    _HOG = 'dd if=/dev/zero of=/dev/null bs=100000000 count=1'

    def test_end_for_want_of_memory_is_told(self):
        container_id = self.run_container(
            '/bin/sh', '-c', f'exec {self._HOG}',
            limit=limits.Limits(memory=32 * _MIB))
        ended = self.finish(container_id)
        self.assertEqual((137, True), (ended.exit_code, ended.oom))
        engine.halt(container_id)
        self.assertTrue(state.read(container_id).oom)
        with open(place.container_state(container_id, 'exit.json')) as file:
            self.assertGreaterEqual(json.load(file)['oom_kills'], 1)

    def test_end_of_a_child_is_counted(self):
        container_id = self.run_container(
            '/bin/sh', '-c', f"sh -c '{self._HOG}'; echo ended; "
            'exec sleep 1000000', limit=limits.Limits(memory=32 * _MIB))
        self.await_text(container_id, 'ended')
        self.assertEqual(1, stats.read(container_id).oom_kills)
        engine.halt(container_id)
        self.assertTrue(state.read(container_id).oom)

    def test_ordinary_end_is_not_taken_for_one(self):
        container_id = self.run_container(
            '/bin/true', limit=limits.Limits(memory=32 * _MIB))
        self.assertFalse(self.finish(container_id).oom)
        engine.halt(container_id)
        self.assertFalse(state.read(container_id).oom)

    def test_swap_is_beyond_memory(self):
        for swap in (0, 16 * _MIB):
            container_id = self.run_container(
                *FOREVER, limit=limits.Limits(memory=32 * _MIB, swap=swap))
            found = self.group_file(
                container_id, 'memory',
                'memory.memsw.limit_in_bytes,memory.swap.max')
            expected = swap if cgroup.unified() else 32 * _MIB + swap
            self.assertEqual(expected, int(found))


class OpenFilesTest(LimitsTestCase):

    def test_open_files(self):
        self.assertEqual('100', self.shell(
            'ulimit -n', limit=limits.Limits(open_files=100)).strip())


class DiskRateTest(LimitsTestCase):

    def seconds(self, script: str, **options) -> float:
        begin = time.monotonic()
        self.assertIn('DONE', self.shell(f'{script} && echo DONE', **options))
        return time.monotonic() - begin

    def test_writes_that_the_kernel_makes_later(self):
        script = ('dd if=/dev/zero of=/srv/x bs=1M count=8 2>/dev/null && '
                  'sync')
        size = disk.Disk(root=64 * _MIB)
        slow = self.seconds(script, size=size, limit=limits.Limits(
            disk_write_bytes=4 * _MIB))
        self.assertGreater(slow, 1.5)
        self.assertLess(slow, 15)
        # The device that was slow may be the next container's.
        self.assertLess(self.seconds(script, size=size), slow)

    def test_direct_writes_and_reads(self):
        script = ('dd if=/dev/zero of=/srv/x bs=1M count=8 oflag=direct '
                  '2>/dev/null && '
                  'dd if=/srv/x of=/dev/null bs=1M iflag=direct 2>/dev/null')
        took = self.seconds(script, limit=limits.Limits(
            disk_write_bytes=8 * _MIB, disk_read_bytes=4 * _MIB))
        self.assertGreater(took, 2)
        self.assertLess(took, 20)

    def test_operations(self):
        took = self.seconds(
            'dd if=/dev/zero of=/srv/x bs=4k count=60 oflag=direct '
            '2>/dev/null',
            limit=limits.Limits(disk_write_operations=30))
        self.assertGreater(took, 1.2)

    def test_halt_does_not_wait_for_what_is_unwritten(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'dd if=/dev/zero of=/srv/x bs=1M count=40; '
            'echo written; exec sleep 1000000',
            size=disk.Disk(root=64 * _MIB),
            limit=limits.Limits(disk_write_bytes=1 * _MIB))
        self.await_text(container_id, 'written')
        begin = time.monotonic()
        engine.halt(container_id)
        self.assertLess(time.monotonic() - begin, 20)


class NetworkTestCase(LimitsTestCase):

    _PORT = 9000

    def wired(self, *args: str, **options) -> tuple[str, str]:
        """A container with an interface; its id and the host's end."""
        container_id = self.define(*args, **options)
        engine.create(container_id)
        device = f'nct{container_id[:8]}'
        engine.plug(container_id, network.NetworkInterface(
            'eth0', device, 'fa:16:3e:00:00:01', 1500, ('198.18.77.2/30',)))
        self.addCleanup(engine.unplug, device)
        subprocess.run(['ip', 'address', 'add', '198.18.77.1/30', 'dev',
                        device], check=True)
        engine.start(container_id)
        return container_id, device

    def connect(self) -> socket.socket:
        deadline = time.monotonic() + 60
        while True:
            try:
                return socket.create_connection(('198.18.77.2', self._PORT),
                                                timeout=20)
            except ConnectionError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)

    def send(self, size: int) -> float:
        """Seconds until the container has taken ``size`` bytes."""
        with self.connect() as peer:
            begin = time.monotonic()
            peer.sendall(bytes(size))
            # tcp(7), SIOCOUTQ: what was not acknowledged.
            while fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4)) != bytes(4):
                self.assertLess(time.monotonic() - begin, 30)
                time.sleep(0.01)
            return time.monotonic() - begin

    def receive(self) -> tuple[int, float]:
        """Bytes that the container sends, and seconds it takes."""
        with self.connect() as peer:
            begin, size = time.monotonic(), 0
            while data := peer.recv(65536):
                size += len(data)
            return size, time.monotonic() - begin


_TAKE = ('/bin/sh', '-c', 'while :; do nc -l -p 9000 > /dev/null; done')
_GIVE = ('/bin/sh', '-c',
         'while :; do head -c 2000000 /dev/zero | nc -l -p 9000; done')


class BandwidthTest(NetworkTestCase):

    def test_towards_the_container(self):
        self.wired(*_TAKE, limit=limits.Limits(
            network_in=limits.Bandwidth(1000000, burst=65536)))
        took = self.send(2000000)
        self.assertGreater(took, 1.4)
        self.assertLess(took, 10)

    def test_from_the_container(self):
        self.wired(*_GIVE, limit=limits.Limits(
            network_out=limits.Bandwidth(1000000, burst=65536)))
        size, took = self.receive()
        self.assertEqual(2000000, size)
        self.assertGreater(took, 1.4)
        self.assertLess(took, 10)

    def test_burst_at_peak(self):
        self.wired(*_TAKE, limit=limits.Limits(network_in=limits.Bandwidth(
            200000, peak=2000000, burst=3000000)))
        took = self.send(2000000)
        self.assertGreater(took, 0.7)
        self.assertLess(took, 5)

    def test_burst_beyond_what_the_kernel_counts(self):
        rate = limits.Bandwidth(100000, peak=2000000, burst=1 << 31)
        self.wired(*_TAKE, limit=limits.Limits(network_in=rate,
                                               network_out=rate))
        self.assertLess(self.send(1000000), 5)

    def test_one_direction_leaves_the_other(self):
        self.wired(*_GIVE, limit=limits.Limits(
            network_in=limits.Bandwidth(100000)))
        self.assertLess(self.receive()[1], 5)

    def test_container_cannot_lift_it(self):
        container_id, _ = self.wired(
            '/bin/sh', '-c', 'tc qdisc del dev eth0 root; '
            'ip link set eth0 down; tc qdisc show dev eth0',
            limit=limits.Limits(network_out=limits.Bandwidth(1000000)))
        self.finish(container_id)
        out = self.text(container_id)
        self.assertIn('permitted', out)
        self.assertIn('htb', out)

    def test_container_cannot_pass_it_by(self):
        container_id, _ = self.wired(
            '/bin/arping', '-c', '1', '-I', 'eth0', '198.18.77.1',
            limit=limits.Limits(network_out=limits.Bandwidth(1000000)))
        self.finish(container_id)
        self.assertIn('not permitted', self.text(container_id))

    def test_changed_while_it_runs(self):
        container_id, _ = self.wired(*_TAKE)
        before = self.send(2000000)
        engine.update(container_id, limits.Limits(
            network_in=limits.Bandwidth(1000000, burst=65536)))
        shaped = self.send(2000000)
        self.assertGreater(shaped, 1.4)
        self.assertLess(before, shaped)
        engine.update(container_id, limits.Limits())
        self.assertLess(self.send(2000000), shaped)


class UpdateTest(LimitsTestCase):

    def test_while_it_runs(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'until [ -e /go ]; do sleep 0.05; done; '
            'grep Cpus_allowed_list /proc/self/status; '
            'for i in $(seq 50); do sleep 5 & done; echo end',
            limit=limits.Limits(memory=32 * _MIB, swap=8 * _MIB, pids=500,
                                cpu_quota=50000))
        engine.update(container_id, limits.Limits(
            memory=64 * _MIB, swap=4 * _MIB, pids=16, cpu_quota=150000,
            cpu_shares=2048, cpuset='0', disk_write_bytes=_MIB))
        self.assertEqual(64 * _MIB, stats.read(container_id).memory.limit)
        swap = self.group_file(container_id, 'memory',
                               'memory.memsw.limit_in_bytes,memory.swap.max')
        self.assertEqual((4 if cgroup.unified() else 68) * _MIB, int(swap))
        self.assertIn('150000', self.group_file(
            container_id, 'cpu', 'cpu.cfs_quota_us,cpu.max'))
        self.assertIn(str(_MIB), self.group_file(
            container_id, 'blkio', 'blkio.throttle.write_bps_device,io.max'))
        self.signal_go(container_id)
        self.finish(container_id)
        self.assertIn('Cpus_allowed_list:\t0\n', self.text(container_id))
        self.assertIn('fork', self.text(container_id))

    def test_to_no_limit(self):
        container_id = self.run_container(*FOREVER, limit=limits.Limits(
            memory=32 * _MIB, pids=10, cpu_quota=10000, cpuset='0',
            disk_read_operations=10))
        engine.update(container_id, limits.Limits())
        found = stats.read(container_id)
        self.assertIsNone(found.memory.limit)
        self.assertIsNone(found.pids_limit)
        self.assertRegex(self.group_file(
            container_id, 'cpu', 'cpu.cfs_quota_us,cpu.max'), '^(-1$|max)')
        self.assertEqual('', self.group_file(
            container_id, 'blkio', 'blkio.throttle.read_iops_device,io.max'))

    def test_holds_from_the_next_start_when_it_does_not_run(self):
        container_id = self.define('/bin/sh', '-c', 'ulimit -n')
        engine.update(container_id, limits.Limits(open_files=77))
        engine.create(container_id)
        engine.start(container_id)
        self.finish(container_id)
        self.assertEqual('77', self.text(container_id).strip())

    def test_all_or_nothing(self):
        container_id = self.run_container(
            *FOREVER, limit=limits.Limits(pids=100))
        with self.assertRaises(exception.RuntimeFailed):
            engine.update(container_id, limits.Limits(
                pids=50, cpuset='4000'))
        self.assertEqual(100, stats.read(container_id).pids_limit)
        engine.halt(container_id)
        engine.create(container_id)
        self.assertEqual(100, stats.read(container_id).pids_limit)


class StatsTest(NetworkTestCase):

    def test_numbers_of_a_container_at_work(self):
        container_id, device = self.wired(
            '/bin/sh', '-c', 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); '
            'done; dd if=/dev/zero of=/srv/x bs=1M count=3 oflag=direct; '
            'sleep 1000 & sleep 1000 & nc -l -p 9000 > /dev/null; '
            'echo taken; exec sleep 1000000',
            size=disk.Disk(root=32 * _MIB),
            limit=limits.Limits(memory=64 * _MIB, pids=50))
        self.send(1000000)
        self.await_text(container_id, 'taken')
        found = stats.read(container_id)
        self.assertGreater(found.cpu, 10 ** 7)
        self.assertLess(found.cpu, 60 * 10 ** 9)
        self.assertEqual((64 * _MIB, 50),
                         (found.memory.limit, found.pids_limit))
        self.assertGreater(found.memory.used, found.memory.cache)
        self.assertLess(found.memory.used, 64 * _MIB)
        self.assertGreaterEqual(found.block_io.write_bytes, 3 * _MIB)
        self.assertLess(found.block_io.write_bytes, 6 * _MIB)
        self.assertGreaterEqual(found.block_io.write_operations, 3)
        self.assertEqual(3, found.pids)
        [eth0] = found.network
        self.assertEqual('eth0', eth0.name)
        self.assertEqual(link.inside(device), eth0.index)
        self.assertGreater(eth0.rx_bytes, 1000000)
        self.assertGreater(eth0.tx_packets, 0)
        self.assertEqual(0, found.oom_kills)
        self.assertGreaterEqual(found.disk_used, 3 * _MIB)
        self.assertLess(found.disk_used, 32 * _MIB)
        self.assertLess(found.uptime, 300)

    def test_by_an_ordinary_user(self):
        # What a project uses is asked of the daemon, which there is not here.
        size = disk.Disk()
        if not quota.offered(place.state()):
            size = disk.Disk(root=32 * _MIB)
        container_id = self.run_container(
            '/bin/sh', '-c', 'echo ready; exec sleep 1000000', size=size)
        self.await_text(container_id, 'ready')
        child = os.fork()
        if child == 0:
            try:
                # Still of the service's group.
                os.setgroups([])
                os.setuid(65534)
                os._exit(stats.read(container_id).pids - 1)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        self.assertEqual(0, os.waitpid(child, 0)[1])

    def test_of_what_ends_meanwhile(self):
        container_id = self.run_container(*FOREVER)

        def gone(path, **options):
            raise OSError(errno.ENXIO, 'its network namespace ends', path)

        with mock.patch.object(stats, 'open', gone, create=True), \
                self.assertRaises(exception.StateConflict):
            stats.read(container_id)

    def test_of_what_does_not_run(self):
        container_id = self.define(*FOREVER)
        with self.assertRaises(exception.StateConflict):
            stats.read(container_id)
