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

import os
import signal

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import execution
from nova_container.privileged import initial
from nova_container.privileged import place
from nova_container.privileged import process as processes
from nova_container.runtime import attachment
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.runtime import stats
from nova_container.spec import command
from nova_container.spec import container
from nova_container.spec import limits
from tests import archives
from tests.functional import base
from tests.functional import system_image


class MachineTest(base.RuntimeTestCase):
    """Debian's systemd as process 1, in a user namespace."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.system = cls.add_image(system_image.archive())

    def boot(self, image=None, **options):
        options.setdefault('terminal', True)
        container_id = self.define(
            '/sbin/init', image=image or self.system, stop_signal='SIGRTMIN+3',
            limit=limits.Limits(memory=512 << 20, pids=1024), **options)
        self.redefine(container_id, kind=container.MACHINE)
        engine.create(container_id)
        engine.start(container_id)
        return container_id

    def sh(self, container_id, script):
        done = engine.execute(container_id,
                              command.Command(('/bin/sh', '-c', script)), 60)
        return done.stdout.decode() + done.stderr.decode()

    def await_boot(self, container_id):
        """systemd's own word on how the boot went."""
        while 'No such file' in (said := self.sh(
                container_id, 'ls /run/systemd/private; '
                'exec systemctl is-system-running --wait')):
            self.assertIsNotNone(state.read(container_id).process)
        return said.splitlines()[-1]

    def test_reaches_running_and_stops_on_its_signal(self):
        container_id = self.boot()
        said = self.await_boot(container_id)
        self.assertEqual('running', said, self.sh(
            container_id, 'systemctl --failed; journalctl -b -p warning'))
        self.assertIn('system.slice', self.sh(
            container_id, 'cat /proc/$(pidof systemd-journald | cut -d" " '
            '-f1)/cgroup'))
        engine.stop(container_id, 30)
        self.assertNotEqual(128 + signal.SIGKILL,
                            state.read(container_id).exit_code)

    def test_newer_system(self):
        """Its systemd asks for more namespaces, and does without them."""
        container_id = self.boot(self.add_image(
            system_image.archive('trixie')))
        self.assertEqual('running', self.await_boot(container_id), self.sh(
            container_id, 'systemctl --failed'))
        engine.stop(container_id, 30)
        self.assertNotEqual(128 + signal.SIGKILL,
                            state.read(container_id).exit_code)

    def test_starts_a_service_and_starts_again(self):
        container_id = self.boot()
        self.await_boot(container_id)
        self.assertEqual('active\n', self.sh(
            container_id, 'systemd-run -q --unit=job sleep 1000; '
            'systemctl is-active job'))
        engine.stop(container_id, 30)
        engine.create(container_id)
        engine.start(container_id)
        self.assertEqual('running', self.await_boot(container_id))

    def test_without_a_terminal(self):
        container_id = self.boot(terminal=False)
        self.assertEqual('running', self.await_boot(container_id))

    def test_boot_is_on_the_console(self):
        container_id = self.boot()
        with attachment.Attachment(container_id) as attached:
            text = self.text(container_id).encode()
            while b'login:' not in text:
                text += attached.read()[1]
        self.assertIn('Debian', self.text(container_id))

    def test_its_limits_stay_out_of_its_reach(self):
        container_id = self.boot()
        self.await_boot(container_id)
        slot = int(os.readlink(place.container_state(container_id, 'slot')))
        owner = place.ids().base(slot)
        # What the kernel itself calls safe: cgroup-v2.rst (delegation).
        with open('/sys/kernel/cgroup/delegate') as file:
            harmless = set(file.read().split())
        self.assertNotIn('memory.max', harmless)
        for root in cgroup.hierarchies():
            group = root + place.cgroup(container_id)
            if not os.path.isdir(group):
                continue
            own = {name for name in os.listdir(group)
                   if os.stat(f'{group}/{name}').st_uid == owner
                   and os.path.isfile(f'{group}/{name}')}
            self.assertLessEqual(own, harmless, group)
        self.assertNotIn('DONE', self.sh(
            container_id, 'mount -t cgroup -o memory x /mnt && echo DONE; '
            'echo 0 > /sys/fs/cgroup/cgroup.max.depth && echo DONE'))

    def test_init_killed_leaves_nothing(self):
        container_id = self.boot()
        self.await_boot(container_id)
        processes.send_signal(state.read(container_id).process,
                              signal.SIGKILL)
        self.assertEqual(137, self.finish(container_id).exit_code)
        engine.halt(container_id)
        self.assertEqual(set(), cgroup.members(container_id))


class DividedTest(base.RuntimeTestCase):
    """What a container may make of the control group it is given."""

    def divide(self, script):
        container_id = self.define(
            '/bin/sh', '-c', f'cd /sys/fs/cgroup; i=0; {script}; '
            'echo $i made; exec sleep 1000000')
        self.redefine(container_id, kind=container.MACHINE)
        engine.create(container_id)
        engine.start(container_id)
        self.await_text(container_id, ' made')
        return container_id

    def test_groups_as_deep_as_it_can(self):
        container_id = self.divide(
            'name=$(printf %0255d 0); while [ $i -lt 30 ] && mkdir $name; do '
            'cd -P $name; i=$((i+1)); done; echo $$ >cgroup.procs')
        self.assertIn('\n15 made', self.text(container_id))
        engine.halt(container_id)
        self.assertEqual(set(), cgroup.members(container_id))

    def test_threaded_groups(self):
        """Their processes are not to be read there."""
        container_id = self.divide(
            'mkdir a a/b && echo threaded >a/b/cgroup.type; i=1')
        self.assertEqual(1, len(cgroup.members(container_id)))
        done = engine.execute(container_id, command.Command(
            ('/bin/sleep', '1000')), timeout=0.5)
        self.assertIsNone(done.exit_code)
        execution.recover()
        engine.halt(container_id)

    def test_more_groups_than_it_can(self):
        container_id = self.divide(
            'while [ $i -lt 200 ] && mkdir $i && '
            '(cd $i && mkdir $(seq 99)); do i=$((i+1)); done 2>/dev/null')
        self.assertIn('100 made', self.text(container_id))
        engine.halt(container_id)


class InitTest(base.RuntimeTestCase):
    """The small init of an application container."""

    # Leaves an orphan behind that ends at once.
    _ORPHAN = ('(sleep 0.1 &) ; while pidof sleep >/dev/null; do :; done; '
               'ps -o pid,stat,args')

    def with_init(self, *args, **options):
        container_id = self.define(*args, **options)
        self.redefine(container_id, init=True)
        engine.create(container_id)
        engine.start(container_id)
        return container_id

    def test_reaps_orphans(self):
        container_id = self.with_init('/bin/sh', '-c', self._ORPHAN)
        self.assertEqual(0, self.finish(container_id).exit_code)
        self.assertNotRegex(self.text(container_id), r'\sZ\s')
        self.assertRegex(self.text(container_id), r'\b1 \S+ +/dev/init')

    def test_passes_signals_and_the_exit_code_on(self):
        container_id = self.with_init(
            '/bin/sh', '-c', 'trap "exit 5" TERM; echo ready; '
            'while :; do sleep 0.1; done')
        self.await_text(container_id, 'ready')
        engine.stop(container_id, 20)
        self.assertEqual(5, state.read(container_id).exit_code)

    def test_cannot_be_written_to_from_inside(self):
        before = os.stat(initial.program())
        container_id = self.with_init(
            '/bin/sh', '-c', 'echo x > /dev/init; rm -f /dev/init; '
            'mount -o remount,rw /dev/init; echo x >> /dev/init; true')
        self.finish(container_id)
        after = os.stat(initial.program())
        self.assertEqual((before.st_ino, before.st_size, before.st_mtime),
                         (after.st_ino, after.st_size, after.st_mtime))

    def test_host_without_one(self):
        base.CONF.set_override('init', '/nowhere/init', 'container')
        self.addCleanup(base.CONF.clear_override, 'init', 'container')
        with self.assertRaisesRegex(exception.HostUnsupported, 'init'):
            self.with_init('/bin/true')

    def test_machine_has_its_own(self):
        container_id = self.define('/bin/true')
        with self.assertRaises(exception.InvalidSpec):
            self.redefine(container_id, init=True, kind=container.MACHINE)


class AllowedTest(base.RuntimeTestCase):

    def test_refused_unless_the_operator_says_so(self):
        for name in ('privileged', 'nesting'):
            container_id = self.define('/bin/true')
            with self.assertRaisesRegex(exception.HostUnsupported,
                                        rf'{name}_allowed'):
                self.redefine(container_id, **{name: True})

    def test_refused_once_the_operator_has_changed_his_mind(self):
        container_id = self.define('/bin/true')
        base.CONF.set_override('nesting_allowed', True, 'container')
        self.addCleanup(base.CONF.clear_override, 'nesting_allowed',
                        'container')
        self.redefine(container_id, nesting=True)
        base.CONF.set_override('nesting_allowed', False, 'container')
        with self.assertRaises(exception.HostUnsupported):
            engine.create(container_id)
        self.assertFalse(
            os.path.exists(place.container_run(container_id)))


class PrivilegedTest(base.RuntimeTestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        base.CONF.set_override('privileged_allowed', True, 'container')
        cls.addClassCleanup(base.CONF.clear_override, 'privileged_allowed',
                            'container')

    def script(self, text):
        container_id = self.define('/bin/sh', '-c', text)
        self.redefine(container_id, privileged=True)
        engine.create(container_id)
        engine.start(container_id)
        self.finish(container_id)
        return self.text(container_id)

    def test_may_mount_and_make_namespaces(self):
        self.assertIn('DONE', self.script(
            'mkdir /mnt; mount -t tmpfs none /mnt && unshare -m true && '
            'echo DONE'))

    def test_numbers_of_an_interface_whose_name_is_no_text(self):
        container_id = self.define(
            '/bin/sh', '-c', 'ip link add "$(printf "b\\377")" type veth && '
            'echo named; sleep 1000')
        self.redefine(container_id, privileged=True)
        engine.create(container_id)
        engine.start(container_id)
        self.await_text(container_id, 'named')
        self.assertIn('b\\xff', [
            card.name for card in stats.read(container_id).network])

    def test_root_is_still_not_the_hosts(self):
        out = self.script('cat /proc/self/uid_map')
        self.assertNotEqual('0', out.split()[1])

    def test_host_stays_out_of_reach(self):
        for attempt in ('echo 1 > /proc/sys/kernel/panic',
                        'echo h > /proc/sysrq-trigger',
                        'mknod /tmp/sda b 8 0 && cat /tmp/sda',
                        'insmod /bin/busybox',
                        'mkdir /mnt; mount -t cgroup -o memory x /mnt && '
                        'echo 1 > /mnt/memory.limit_in_bytes',
                        'date -s 2001-01-01; [ $(date +%Y) = 2001 ]'):
            self.assertNotIn('DONE', self.script(
                f'({attempt}) 2>&1 && echo DONE'), attempt)


class NestingTest(base.RuntimeTestCase):
    """A container runtime that works inside."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        base.CONF.set_override('nesting_allowed', True, 'container')
        cls.addClassCleanup(base.CONF.clear_override, 'nesting_allowed',
                            'container')
        cls.system = cls.add_image(system_image.engine_archive(
            archives.docker_archive(base.busybox_layer())))

    def nest(self, *args, **options):
        container_id = self.define(*args, image=self.system, **options)
        self.redefine(container_id, nesting=True)
        engine.create(container_id)
        engine.start(container_id)
        return container_id

    def sh(self, container_id, script, timeout=120):
        return engine.execute(
            container_id, command.Command(('/bin/sh', '-ec', script)),
            timeout)

    def test_podman_runs_containers_inside(self):
        container_id = self.nest('/bin/sleep', '1000000')
        done = self.sh(container_id, """
            exec 2>/dev/null
            podman load -q -i /inner >/dev/null
            podman run -d --name inner --network none localhost/test \\
                sleep 1000000 >/dev/null
            podman exec inner id -u
            podman rm -ft0 inner
            podman info --format '{{.Store.GraphDriverName}}'
            podman --runtime runc run --rm --network none localhost/test \\
                echo by runc""")
        self.assertEqual((0, '0\ninner\noverlay\nby runc\n'),
                         (done.exit_code, done.stdout.decode()), done)

    def test_overlay_on_the_storage_of_its_own(self):
        container_id = self.nest('/bin/sleep', '1000000')
        done = self.sh(container_id, """
            cd /var/lib/containers; mkdir l u w m; echo x > l/f
            mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m
            echo y > m/f; cat u/f l/f; test -c /dev/fuse""")
        self.assertEqual((0, b'y\nx\n'), (done.exit_code, done.stdout), done)

    def test_storage_survives_a_restart_but_not_the_container(self):
        container_id = self.nest('/bin/sh', '-c',
                                 'cat /var/lib/docker/x; '
                                 'echo kept > /var/lib/docker/x')
        self.finish(container_id)
        engine.halt(container_id)
        engine.create(container_id)
        engine.start(container_id)
        self.finish(container_id)
        self.assertIn('kept', self.text(container_id))

    def test_host_stays_out_of_reach(self):
        container_id = self.nest('/bin/sleep', '1000000')
        for attempt in ('echo h > /proc/sysrq-trigger',
                        'echo 1 > /proc/sys/kernel/panic',
                        'mknod /tmp/sda b 8 0 && cat /tmp/sda',
                        f'kill -0 {os.getpid()}', 'reboot -f',
                        'swapoff -a && dmesg -c'):
            self.assertNotEqual(0, self.sh(container_id, attempt).exit_code,
                                attempt)
