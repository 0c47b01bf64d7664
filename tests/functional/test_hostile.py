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


"""What a tenant may try. Each attempt must fail, and do no harm to others."""

import errno
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import threading
import uuid

from nova_container import exception
from nova_container.privileged import oci_runtime
from nova_container.privileged import place
from nova_container.privileged import process as processes
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import command
from nova_container.spec import limits
from nova_container.spec import network
from tests import archives
from tests.functional import base
from tests import programs

_SECRET = 'only the host knows this'
_CLONE_NEWUSER = 0x10000000
_SIGCHLD = 17
_AF_VSOCK = 40
_LOG_SIZE = 1 << 20

# Files of the host that a container must not change.
_SETTINGS = (
    '/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname',
    '/proc/sys/kernel/modprobe', '/proc/sys/kernel/panic',
    '/proc/sys/vm/overcommit_memory', '/proc/sys/fs/file-max',
    '/proc/sys/net/ipv4/ip_forward', '/sys/kernel/mm/ksm/run',
)


class HostileTestCase(base.RuntimeTestCase):
    """With a neighbour and a file of the host, both looked at afterwards."""

    def setUp(self):
        super().setUp()
        self.canary = f'/var/lib/{base.CONF.container.cgroup_parent}-canary'
        os.mkdir(self.canary, 0o777)
        os.chmod(self.canary, 0o777)
        self.addCleanup(shutil.rmtree, self.canary)
        self.files = {}
        for name in ('passwd', 'hosts', 'hostname', 'resolv.conf', 'secret'):
            self.files[name] = _SECRET
            pathlib.Path(self.canary, name).write_text(_SECRET)
        self.neighbour = self.run_container(
            '/bin/sh', '-c', 'echo mine > /srv/mine; echo ready; '
            'exec sleep 1000000')
        self.await_text(self.neighbour, 'ready')
        self.settings = self.read_settings()

    def read_settings(self):
        found = {path: pathlib.Path(path).read_text() for path in _SETTINGS
                 if os.path.exists(path)}
        name = base.CONF.container.cgroup_parent
        return found | {'name': socket.gethostname(), 'mounts': [
            line for line in pathlib.Path(
                '/proc/self/mountinfo').read_text().splitlines()
            if name in line]}

    def assert_unharmed(self):
        """Host and neighbour are as they were."""
        self.assertEqual(self.settings, self.read_settings())
        self.assertEqual(sorted(self.files), sorted(os.listdir(self.canary)))
        for name, content in self.files.items():
            self.assertEqual(content,
                             pathlib.Path(self.canary, name).read_text())
        found = engine.execute(self.neighbour,
                               command.Command(('/bin/cat', '/srv/mine')))
        self.assertEqual((0, b'mine\n'), (found.exit_code, found.stdout))
        self.assertIs(state.Status.RUNNING,
                      state.read(self.neighbour).status)

    def attempt(self, *attempts: str, **options) -> str:
        """Run shell scripts, none of which may succeed; what they wrote."""
        script = '\n'.join(
            f'( {attempt} ) 2>&1 && echo "SUCCEEDED: {number}"'
            for number, attempt in enumerate(attempts))
        out = self.shell(f'{script}\necho THE END', **options)
        done = [attempts[int(line.split(': ')[1])]
                for line in out.splitlines() if line.startswith('SUCCEEDED')]
        self.assertEqual([], done, out)
        self.assertIn('THE END', out)
        self.assert_unharmed()
        return out


class EscapeTest(HostileTestCase):

    def test_kernel_settings(self):
        self.attempt(
            *(f'cat {path} > /tmp/x && cat /tmp/x > {path}'
              for path in _SETTINGS if not path.endswith('hostname')),
            'echo b > /proc/sysrq-trigger',
            'echo "|/bin/sh" > /proc/sys/kernel/core_pattern',
            'echo /bin/sh > /sys/kernel/uevent_helper',
            'find /sys/fs/cgroup -name release_agent | grep .',
            'echo -1000 > /proc/self/oom_score_adj',
            'echo 0 0 1 > /proc/1/uid_map',
            'mount -o remount,rw /proc/sys', 'mount -o remount,rw /sys',
            'hostname taken-over && [ "$(hostname)" = taken-over ]')

    def test_control_groups(self):
        out = self.attempt(
            # Of version 1 there are several, below a tmpfs.
            'cd /sys/fs/cgroup; for d in . */; do [ -e $d/cgroup.procs ] && '
            'mkdir $d/mine 2>/dev/null && exit 0; done; false',
            'for f in $(find /sys/fs/cgroup -name "memory*limit*" '
            '-o -name "*.max" -o -name tasks -o -name cgroup.procs); do '
            'echo 1 2>/dev/null > $f && exit 0; done; false',
            limit=limits.Limits(memory=64 << 20, pids=100))
        self.assertIn('THE END', out)

    def test_device_nodes(self):
        self.attempt(
            'mknod /tmp/disk b 254 0', 'mknod /tmp/mem c 1 1',
            'mknod /dev/kmsg c 1 11', 'cat /dev/mem', 'cat /dev/kmsg',
            'ls /dev/sda /dev/vda /dev/loop0 /dev/kvm /dev/fuse')
        inside = set(self.shell('ls /dev').split())
        self.assertLessEqual(inside, {
            'console', 'core', 'fd', 'full', 'mqueue', 'null', 'ptmx', 'pts',
            'random', 'shm', 'stderr', 'stdin', 'stdout', 'tty', 'urandom',
            'zero'})

    def test_device_node_that_root_of_the_host_planted(self):
        """A node that is there after all cannot be opened."""
        container_id = self.define('/bin/cat', '/srv/disk')
        device = os.stat('/var').st_dev
        engine.create(container_id)
        os.mkdir(self.upper(container_id, 'srv'), 0o755)
        os.mknod(self.upper(container_id, 'srv/disk'), 0o60666, device)
        engine.start(container_id)
        self.assertNotEqual(0, self.finish(container_id).exit_code)
        self.assert_unharmed()

    def test_mounts(self):
        self.attempt('mount -t tmpfs none /mnt', 'mount -t proc proc /mnt',
                     'mount --bind /proc/1/root /mnt', 'umount /proc/kcore',
                     'umount -l /proc', 'umount -l /etc/hosts',
                     'chroot /proc/1/root/.. ls /root/.ssh')

    def test_processes_of_others(self):
        victim = state.read(self.neighbour).process.pid
        out = self.attempt(f'kill -9 {victim}', f'kill -9 {os.getpid()}',
                           f'ls /proc/{victim}', f'ls /proc/{os.getpid()}',
                           'cat /proc/2/comm | grep kthreadd')
        self.assertNotIn('kthreadd', out)

    def test_killing_everyone_kills_only_its_own(self):
        self.shell('kill -9 -1')
        self.assert_unharmed()

    def test_more_than_its_limits(self):
        self.attempt('ulimit -n 100000000', 'ulimit -Hn unlimited',
                     'nice -n -5 true 2>&1 | grep -q . && exit 1; '
                     '[ "$(nice -n -5 nice)" = -5 ]',
                     'chrt -f 50 true',
                     limit=limits.Limits(open_files=256))


class SystemCallTest(HostileTestCase):

    def test_refused_calls(self):
        calls = {
            'acct': (), 'add_key': (), 'bpf': (0, 0, 0),
            'clock_settime': (0, 0), 'finit_module': (0, 0, 0),
            'fsopen': (0, 0), 'init_module': (0, 0, 0),
            'io_uring_setup': (1, 0), 'kcmp': (1, 1), 'kexec_load': (),
            'keyctl': (0, -3, 1), 'mount': (), 'mount_setattr': (),
            'open_by_handle_at': (), 'open_tree': (-100, 0, 1),
            'perf_event_open': (), 'pidfd_getfd': (), 'pivot_root': (),
            'process_vm_readv': (1, 0, 0, 0, 0, 0), 'quotactl': (),
            'reboot': (), 'request_key': (), 'setdomainname': (),
            'sethostname': (), 'setns': (0, 0), 'settimeofday': (),
            'socket': (_AF_VSOCK, 1, 0), 'swapon': (), 'syslog': (3, 0, 0),
            'umount2': (), 'unshare': (_CLONE_NEWUSER,),
            'userfaultfd': (),
            'clone': (_CLONE_NEWUSER | _SIGCHLD, 0, 0, 0, 0),
            'clone3': (0, 0),
        }
        image = self.add_image(archives.docker_archive(
            base.busybox_layer(), archives.tar(
                archives.directory('try'),
                *(archives.entry(f'try/{name}',
                                 programs.syscall(name, *args), mode=0o755)
                  for name, args in calls.items()),
                archives.entry('control', programs.syscall('getpid'),
                               mode=0o755))))
        out = self.shell('/control; echo control $?; cd /try; '
                         'for f in *; do ./$f; echo $f $?; done', image=image)
        codes = {name: int(code) for name, code in (
            line.split() for line in out.splitlines())}
        # The programs do work.
        self.assertEqual(0, codes.pop('control'))
        self.assertEqual(set(calls), set(codes))
        allowed = {name: code for name, code in codes.items()
                   if code not in (errno.EPERM, errno.ENOSYS)}
        self.assertEqual({}, allowed)
        self.assert_unharmed()


class AbuseTest(HostileTestCase):

    def test_fork_bomb(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'bomb() { bomb | bomb & }; bomb; wait; '
            'while :; do bomb; done', limit=limits.Limits(pids=200))
        bomb = state.read(container_id).process
        # It is at its limit when a command finds no room any more.
        self.await_text(container_id, 'fork')
        self.assert_unharmed()
        engine.halt(container_id)
        self.assertFalse(processes.alive(bomb))
        self.assert_unharmed()

    def test_memory_bomb(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'a=x; while :; do a=$a$a; done',
            limit=limits.Limits(memory=64 << 20))
        ended = self.finish(container_id)
        self.assertEqual(137, ended.exit_code)
        self.assertTrue(ended.oom)
        self.assert_unharmed()

    def test_memory_by_files(self):
        """Memory file systems count against the limit, too."""
        out = self.shell(
            'dd if=/dev/zero of=/dev/shm/x bs=1M count=500; '
            'dd if=/dev/zero of=/dev/x bs=1M count=500; df -m /dev/shm; '
            'echo THE END', limit=limits.Limits(memory=256 << 20))
        self.assertEqual(2, out.count('No space left'), out)
        self.assert_unharmed()

    def test_files_that_the_host_provides(self):
        """They take little of the host, whatever is written to them."""
        container_id = self.run_container(
            '/bin/sh', '-c', 'echo 198.18.0.1 other >> /etc/hosts && '
            'grep other /etc/hosts; '
            'for f in hosts hostname resolv.conf; do '
            'dd if=/dev/zero bs=64k count=300 >> /etc/$f; done; '
            'echo THE END; exec sleep 1000000')
        self.await_text(container_id, 'THE END')
        out = self.text(container_id)
        self.assertIn('198.18.0.1 other', out)
        self.assertEqual(3, out.count('No space left'), out)
        used = sum(path.lstat().st_size for path in pathlib.Path(
            place.container_run(container_id)).rglob('*'))
        self.assertLess(used, 1 << 20)
        engine.halt(container_id)
        engine.create(container_id)
        engine.start(container_id)
        self.await_text(container_id, 'THE END')
        self.assert_unharmed()

    def test_log_flood(self):
        base.CONF.set_override('log_size', _LOG_SIZE, 'container')
        self.addCleanup(base.CONF.clear_override, 'log_size', 'container')
        container_id = self.run_container(
            '/bin/sh', '-c', 'yes "$(seq -s, 200)" | head -c 20000000; '
            'echo; echo THE END')
        self.finish(container_id)
        directory = pathlib.Path(place.container_state(container_id))
        size = sum(path.stat().st_size for path in directory.glob('log*'))
        self.assertLess(size, 3 * _LOG_SIZE)
        self.assertIn('THE END', self.text(container_id))
        self.assert_unharmed()

    def test_many_short_processes(self):
        out = self.shell('i=0; while [ $i -lt 1000 ]; do /bin/true; '
                         'i=$((i+1)); done; echo THE END')
        self.assertIn('THE END', out)
        self.assert_unharmed()

    def test_rapid_exits(self):
        descriptors = len(os.listdir('/proc/self/fd'))
        errors = []

        def exits():
            try:
                for _ in range(100):
                    container_id = self.run_container('/bin/false')
                    self.finish(container_id)
                    engine.undefine(container_id)
            except Exception as e:
                errors.append(e)

        threads = [threading.Thread(target=exits) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([], errors)
        self.assertEqual([self.neighbour], state.ids())
        self.assertEqual(descriptors, len(os.listdir('/proc/self/fd')))
        self.assert_unharmed()

    def test_exit_while_being_plugged(self):
        container_id = self.define('/bin/true')
        engine.create(container_id)
        device = f'tap{uuid.uuid4().hex[:8]}'
        processes.send_signal(state.read(container_id).process,
                              signal.SIGKILL)
        self.finish(container_id)
        with self.assertRaises((exception.NetworkFailed,
                                exception.StateConflict)):
            engine.plug(container_id, network.NetworkInterface(
                'eth0', device, 'fa:16:3e:00:00:02', 1400))
        self.assertFalse(os.path.exists(f'/sys/class/net/{device}'))
        self.assert_unharmed()


class PlantedTest(HostileTestCase):
    """Images and running containers that point the host somewhere else."""

    def start_somehow(self, *entries, args=('/bin/sh', '-c', 'true'),
                      **process):
        """Start an image with these entries; its output if it starts."""
        image = self.add_image(archives.docker_archive(
            base.busybox_layer(), archives.tar(*entries)))
        container_id = self.define(*args, image=image, **process)
        try:
            engine.create(container_id)
            engine.start(container_id)
        except exception.ContainerError:
            return None
        self.finish(container_id)
        return self.text(container_id)

    def targets(self):
        """The canary's directory, absolute and from below."""
        return self.canary, '../' * 20 + self.canary.lstrip('/')

    def test_files_that_are_written_at_start(self):
        for target in self.targets():
            self.start_somehow(archives.entry('.wh.etc'),
                               archives.symlink('etc', target))
            for name in ('hosts', 'hostname', 'resolv.conf'):
                self.start_somehow(
                    archives.symlink(f'etc/{name}', f'{target}/{name}'))
            self.assert_unharmed()

    def test_directories_that_are_mounted_over(self):
        for target in self.targets():
            for name in ('proc', 'sys', 'dev', 'dev/pts', 'dev/shm'):
                self.start_somehow(archives.symlink(name, target))
            self.assert_unharmed()

    def test_users_are_looked_up_inside(self):
        for target in self.targets():
            out = self.start_somehow(
                archives.entry('etc/.wh.passwd'),
                archives.symlink('etc/passwd', f'{target}/passwd'),
                args=('/bin/cat', '/etc/passwd'))
            self.assertNotIn(_SECRET, out or '')
        self.assert_unharmed()

    def test_working_directory_is_no_way_out(self):
        for number in range(3, 12):
            for path in (f'/proc/self/fd/{number}', f'/link{number}'):
                out = self.start_somehow(
                    archives.symlink(f'link{number}',
                                     f'/proc/self/fd/{number}'),
                    args=('/bin/sh', '-c',
                          f'cat {"../" * 20}{self.canary[1:]}/secret '
                          f'/proc/self/cwd/{"../" * 20}{self.canary[1:]}'
                          '/secret'), cwd=path)
                self.assertNotIn(_SECRET, out or '', path)
        self.assert_unharmed()

    def test_working_directory_of_a_command(self):
        container_id = self.run_container('/bin/sleep', '1000000')
        for number in range(3, 12):
            try:
                done = engine.execute(container_id, command.Command(
                    ('/bin/cat', f'{"../" * 20}{self.canary[1:]}/secret'),
                    cwd=f'/proc/self/fd/{number}'))
            except exception.ContainerError:
                continue
            self.assertNotIn(_SECRET.encode(), done.stdout + done.stderr)
        self.assert_unharmed()

    def test_runtime_cannot_be_overwritten(self):
        runtime = pathlib.Path(oci_runtime.runtime())
        before = hashlib.sha256(runtime.read_bytes()).digest()
        script = ('for i in $(seq 300); do for p in /proc/[0-9]*; do '
                  '[ $p = /proc/1 ] || echo overwritten > $p/exe; '
                  'done; done 2>/dev/null')
        self.start_somehow(
            archives.entry('evil', b'#!/proc/self/exe\n', mode=0o755),
            args=('/evil',))
        container_id = self.run_container(
            '/bin/sh', '-c', f'rm /bin/true; printf "#!/proc/self/exe\\n" > '
            f'/bin/true; chmod 755 /bin/true; while :; do {script}; done')
        for _ in range(3):
            try:
                engine.execute(container_id,
                               command.Command(('/bin/true',)), 5)
            except exception.ContainerError:
                pass
        self.assertEqual(before,
                         hashlib.sha256(runtime.read_bytes()).digest())
        self.assert_unharmed()

    def test_removal_follows_no_link(self):
        for target in self.targets():
            container_id = self.run_container(
                '/bin/sh', '-c', f'ln -s {target} /srv/link; '
                f'rm -rf /tmp; ln -s {target} /tmp; mkdir -p /a/b; '
                f'ln -s {target}/secret /a/b/c')
            self.finish(container_id)
            engine.undefine(container_id)
            self.assert_unharmed()

    def test_directories_deeper_than_any_path(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'cd /srv; i=0; while [ $i -lt 3000 ]; do '
            'mkdir 0123456789 && cd 0123456789 || exit; i=$((i+1)); done')
        self.finish(container_id)
        engine.undefine(container_id)
        self.assertFalse(state.exists(container_id))
        self.assertEqual([], os.listdir(place.state('trash')))
        self.assert_unharmed()
