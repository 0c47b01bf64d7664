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
import shutil
import signal
import subprocess
import sys
import threading
from unittest import mock
import uuid

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import container as container_
from nova_container.privileged import freezer
from nova_container.privileged import host
from nova_container.privileged import linux
from nova_container.privileged import namespace
from nova_container.privileged import oci_runtime
from nova_container.privileged import place
from nova_container.privileged import process as processes
from nova_container.privileged import recovery
from nova_container.privileged import shell
from nova_container.runtime import engine
from nova_container.runtime import monitor
from nova_container.runtime import state
from nova_container.spec import container
from nova_container.spec import disk
from tests.functional import base

FOREVER = ('/bin/sleep', '1000000')
_POLITE = ('/bin/sh', '-c',
           'trap "echo bye; exit 3" TERM; echo ready; '
           'while :; do sleep 0.1; done')

# Its arguments: a call, a container, what it has begun when it is killed, and
# three options.
_KILLED = '''
import os, sys
from unittest import mock
from nova_container.privileged import cgroup, context, creation, definition
from nova_container.privileged import shell

call, container_id, step, *options = sys.argv[1:]
context.set_client_mode(False)
conf = cgroup.place.CONF
conf([], default_config_files=[], default_config_dirs=[])
for name, value in zip(('state_path', 'run_path', 'cgroup_parent'), options):
    conf.set_override(name, value, 'container')
conf.set_override('id_range_start', 1 << 30, 'container')
adopt, write = cgroup.adopt_monitor, definition.write

def reached(now):
    if step == now:
        os.kill(os.getpid(), 9)

def adopt_monitor(pid):
    reached('started')
    adopt(pid)
    reached('adopted')

def write_file(path, *args):
    write(path, *args)
    if os.path.basename(path) in ('config.json', 'process.json'):
        reached('told')

with mock.patch.object(cgroup, 'adopt_monitor', adopt_monitor), \\
        mock.patch.object(definition, 'write', write_file):
    {'create': creation.create, 'shell': shell.open_shell}[call](container_id)
'''


class LifecycleTest(base.RuntimeTestCase):

    def test_runs_to_its_end_and_keeps_the_exit_code(self):
        container_id = self.run_container('/bin/sh', '-c', 'echo out; '
                                          'echo err >&2; exit 7')
        ended = self.finish(container_id)
        self.assertEqual((state.Status.STOPPED, 7),
                         (ended.status, ended.exit_code))
        self.assertEqual({'out', 'err'},
                         set(self.text(container_id).split()))
        engine.halt(container_id)
        self.assertEqual(7, state.read(container_id).exit_code)

    def test_halted_while_commands_begin_and_end(self):
        """Each has a file in the run directory."""
        container_id = self.define(*FOREVER)
        over = threading.Event()

        def begin_and_end():
            while not over.is_set():
                path = place.container_run(container_id, 'exec',
                                           uuid.uuid4().hex)
                with contextlib.suppress(FileNotFoundError):
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL))
                    os.unlink(path)

        thread = threading.Thread(target=begin_and_end)
        self.addCleanup(thread.join)
        self.addCleanup(over.set)
        thread.start()
        for _ in range(10):
            engine.create(container_id)
            engine.start(container_id)
            engine.halt(container_id)
            self.assertFalse(os.path.exists(
                place.container_run(container_id)))

    def test_process_is_held_until_start(self):
        container_id = self.define('/bin/touch', '/srv/started')
        engine.create(container_id)
        self.assertIs(state.Status.CREATED, state.read(container_id).status)
        self.assertFalse(os.path.exists(self.upper(container_id, 'srv')))
        engine.start(container_id)
        self.finish(container_id)
        self.assertTrue(
            os.path.exists(self.upper(container_id, 'srv/started')))

    def test_stop_signal_is_heard_then_the_container_starts_again(self):
        container_id = self.run_container(*_POLITE)
        self.await_text(container_id, 'ready')
        engine.stop(container_id, 20)
        self.assertEqual(3, state.read(container_id).exit_code)
        self.assertIn('bye', self.text(container_id))
        engine.create(container_id)
        engine.start(container_id)
        self.assertIs(state.Status.RUNNING, state.read(container_id).status)

    def test_process_that_ignores_its_stop_signal_is_killed(self):
        container_id = self.run_container(*FOREVER)
        engine.stop(container_id, 0.1)
        self.assertEqual(128 + signal.SIGKILL,
                         state.read(container_id).exit_code)

    def test_stopped_while_it_is_held_and_then_ends(self):
        """As for a snapshot, which keeps who stops it waiting."""
        container_id = self.run_container(*FOREVER)
        init = state.read(container_id).process
        freezer.hold(container_id)
        resume = container_.resume

        def let_go(_):
            freezer.let_go(container_id)
            processes.send_signal(init, 9)
            self.finish(container_id)
            resume(container_id)

        with mock.patch.object(container_, 'resume', let_go):
            engine.stop(container_id, 20)
        self.assertEqual(128 + signal.SIGKILL,
                         state.read(container_id).exit_code)

    def test_files_survive_a_restart_but_not_the_container(self):
        container_id = self.run_container('/bin/sh', '-c',
                                          'cat /srv/x; echo kept > /srv/x')
        self.finish(container_id)
        engine.halt(container_id)
        engine.create(container_id)
        engine.start(container_id)
        self.finish(container_id)
        self.assertIn('kept', self.text(container_id))
        engine.undefine(container_id)
        self.assertNotIn(container_id, state.ids())
        self.assertFalse(
            os.path.exists(place.container_state(container_id)))

    def test_paused_on_a_host_under_load(self):
        """Where runc gives up."""
        container_id = self.run_container(*FOREVER)
        call = oci_runtime.call
        told = [exception.RuntimeFailed('runc pause failed: unable to '
                                        'freeze')] * 2

        def under_load(*args):
            if told:
                raise told.pop()
            call(*args)

        with mock.patch.object(oci_runtime, 'call', under_load):
            engine.pause(container_id)
        self.assertIs(state.Status.PAUSED, state.read(container_id).status)

    def test_pause_and_resume(self):
        container_id = self.run_container(*_POLITE)
        self.await_text(container_id, 'ready')
        engine.pause(container_id)
        self.assertIs(state.Status.PAUSED, state.read(container_id).status)
        engine.resume(container_id)
        self.assertIs(state.Status.RUNNING, state.read(container_id).status)
        engine.pause(container_id)
        engine.stop(container_id, 20)
        self.assertEqual(3, state.read(container_id).exit_code)

    def test_paused_container_can_be_removed(self):
        container_id = self.run_container(*FOREVER)
        engine.pause(container_id)
        engine.undefine(container_id)
        self.assertFalse(state.exists(container_id))

    def test_less_is_idempotent(self):
        container_id = self.run_container(*FOREVER)
        for _ in range(2):
            engine.halt(container_id)
        for _ in range(2):
            engine.undefine(container_id)
        engine.undefine(str(uuid.uuid4()))

    def test_create_twice_is_refused_and_harmless(self):
        container_id = self.run_container(*FOREVER)
        self.assertRaises(exception.StateConflict, engine.create,
                          container_id)
        self.assertIs(state.Status.RUNNING, state.read(container_id).status)

    def test_two_removals_at_once(self):
        container_id = self.run_container(*FOREVER)
        errors = []

        def remove():
            try:
                engine.undefine(container_id)
            except Exception as e:
                errors.append(e)

        threads = [threading.Thread(target=remove) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([], errors)
        self.assertFalse(state.exists(container_id))

    def test_unknown_container(self):
        self.assertRaises(exception.ContainerNotFound, state.read,
                          str(uuid.uuid4()))
        self.assertRaises(exception.ContainerNotFound, engine.create,
                          str(uuid.uuid4()))


class TenantsMistakesTest(base.RuntimeTestCase):
    """A clear error, and nothing runs or stays mounted afterwards."""

    def refused(self, *args, **process):
        container_id = self.define(*args, **process)
        with self.assertRaises(exception.ProcessInvalid) as caught:
            engine.create(container_id)
            engine.start(container_id)
        self.assertFalse(
            os.path.exists(place.container_run(container_id)))
        self.assertFalse(
            os.path.exists(place.run('oci', container_id)))
        return caught.exception.message

    def test_command_not_found(self):
        self.assertIn('nowhere', self.refused('nowhere'))
        self.assertIn('/bin/nowhere', self.refused('/bin/nowhere'))

    def test_command_is_not_executable(self):
        self.assertIn('passwd', self.refused('/etc/passwd'))

    def test_name_that_is_too_long(self):
        for message in (self.refused('/bin/' + 'x' * 300),
                        self.refused('/bin/id', cwd='/' + '\u00e9' * 200)):
            self.assertRegex(message, '[Ff]ile name too long')
            self.assertLess(len(message), 210)

    def test_unknown_user(self):
        self.assertIn("'nobody-here'",
                      self.refused('/bin/id', user='nobody-here'))

    def test_unknown_group(self):
        self.assertIn("'no-group'",
                      self.refused('/bin/id', user='web:no-group'))

    def test_user_beyond_the_containers_ids(self):
        self.assertIn('70000', self.refused('/bin/id', user='70000'))

    def test_working_directory_is_a_file(self):
        self.assertIn('/etc/passwd',
                      self.refused('/bin/id', cwd='/etc/passwd'))


class RecoveryTest(base.RuntimeTestCase):

    def test_created_but_never_started(self):
        container_id = self.define(*FOREVER)
        engine.create(container_id)
        held = state.read(container_id).process
        self.assertEqual([container_id], host.recover())
        self.assertFalse(processes.alive(held))
        self.assertIs(state.Status.STOPPED, state.read(container_id).status)

    def test_running_containers_are_left_alone(self):
        container_id = self.run_container(*FOREVER)
        self.assertEqual([], host.recover())
        self.assertIs(state.Status.RUNNING, state.read(container_id).status)

    def test_definition_without_spec(self):
        container_id = self.define(*FOREVER)
        os.unlink(place.container_state(container_id, 'spec.json'))
        self.assertEqual([container_id], host.recover())
        self.assertFalse(state.exists(container_id))

    def test_removal_that_was_interrupted(self):
        container_id = self.define(*FOREVER)
        slot = os.readlink(place.container_state(container_id, 'slot'))
        os.rename(place.container_state(container_id),
                  place.state('trash', container_id))
        host.recover()
        self.assertEqual([], os.listdir(place.state('trash')))
        self.assertNotIn(slot, os.listdir(place.state('ids')))

    def test_removal_that_ends_meanwhile(self):
        """By the helper of the service that was killed."""
        container_id = self.define(*FOREVER)
        listdir = os.listdir

        def listed(path):
            found = listdir(path)
            if path == place.state('ids'):
                engine.undefine(container_id)
            return found

        with mock.patch.object(os, 'listdir', listed):
            host.recover()
        self.assertEqual([], os.listdir(place.state('trash')))

    def test_one_that_cannot_be_removed_keeps_no_other_from_it(self):
        stuck, other = self.define(*FOREVER), self.define(*FOREVER)
        for container_id in (stuck, other):
            engine.create(container_id)
        # Nothing but the host has this mount, so it is nothing to end.
        busy = place.container_run(stuck, 'dev')
        os.mkdir(busy)
        linux.mount('none', busy, 'tmpfs')
        self.addCleanup(engine.undefine, stuck)
        self.addCleanup(linux.umount, busy)
        with self.assertLogs(recovery.LOG.logger, 'ERROR') as logged:
            self.assertEqual([other],
                             engine.setup(os.getuid(), os.getgid()))
        self.assertRegex(logged.output[0], rf'{stuck} .*\bdev\b.*restart')

    def test_files_that_cannot_be_removed_keep_their_ids(self):
        container_id = self.define(*FOREVER)
        slot = os.readlink(place.container_state(container_id, 'slot'))
        trash = place.state('trash', container_id)
        os.rename(place.container_state(container_id), trash)
        subprocess.run(['chattr', '+i', f'{trash}/spec.json'], check=True)
        try:
            with self.assertLogs(recovery.LOG.logger, 'ERROR') as logged:
                engine.setup(os.getuid(), os.getgid())
        finally:
            subprocess.run(['chattr', '-i', f'{trash}/spec.json'], check=True)
        self.assertRegex(logged.output[0], f'{trash}/spec.json.*restart')
        self.assertIn(slot, os.listdir(place.state('ids')))
        host.recover()
        self.assertNotIn(slot, os.listdir(place.state('ids')))

    def test_slot_without_container(self):
        os.symlink(str(uuid.uuid4()), place.state('ids', '63'))
        host.recover()
        self.assertNotIn('63', os.listdir(place.state('ids')))

    def test_start_that_was_interrupted_before_it_was_recorded(self):
        container_id = self.run_container(*FOREVER)
        running = state.read(container_id)
        os.unlink(place.container_run(container_id, 'run.json'))
        os.unlink(place.container_run(container_id, 'started'))
        self.assertEqual([container_id], host.recover())
        self.assertFalse(processes.alive(running.process))
        self.assertFalse(processes.alive(running.monitor))
        self.assertFalse(os.path.exists(place.run('oci', container_id)))

    def kill(self, call, container_id, step):
        """Have a process that starts a monitor killed at a step of it."""
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', _KILLED, call, container_id,
             step, *(str(base.CONF.container[option]) for option in
                     ('state_path', 'run_path', 'cgroup_parent'))],
            stdin=subprocess.DEVNULL)
        self.assertEqual(-signal.SIGKILL, done.returncode)

    def test_killed_while_a_monitor_begins(self):
        container_id = self.define(*FOREVER)
        for step in ('started', 'adopted', 'told'):
            with self.subTest(step=step):
                self.kill('create', container_id, step)
                self.assertEqual([container_id], host.recover())
                self.assert_nothing_runs(container_id)
        engine.create(container_id)
        engine.start(container_id)

    def test_killed_while_the_monitor_of_a_shell_begins(self):
        container_id = self.run_container(*FOREVER)
        for step in ('started', 'adopted', 'told'):
            with self.subTest(step=step):
                self.kill('shell', container_id, step)
                self.assertEqual([], host.recover())
                shell.recover()
                self.assertEqual(
                    {state.read(container_id).process.pid},
                    cgroup.members(container_id))
                self.assertFalse(oci_runtime.helpers(
                    place.container_run(container_id, 'shell')))
        self.assertTrue(shell.open_shell(container_id))

    def test_what_a_killed_service_started_creates_nothing(self):
        """Also where nobody ends it."""
        container_id = self.define(*FOREVER)
        directory = place.container_run(container_id)
        for step in ('started', 'adopted'):
            with self.subTest(step=step):
                self.kill('create', container_id, step)
                while found := oci_runtime.helpers(directory):
                    self.assertTrue(processes.wait(found.pop(), 30))
                self.assert_nothing_runs(container_id)
                host.recover()

    def assert_nothing_runs(self, container_id):
        self.assertFalse(cgroup.members(container_id))
        self.assertFalse(os.path.exists(place.run('oci', container_id)))
        self.assertFalse(oci_runtime.helpers(
            place.container_run(container_id)))

    def test_monitor_killed_then_stop_and_start(self):
        container_id = self.run_container(*FOREVER)
        processes.send_signal(state.read(container_id).monitor,
                              signal.SIGKILL)
        self.assertIs(state.Status.RUNNING, state.read(container_id).status)
        engine.stop(container_id, 0.1)
        self.assertIsNone(state.read(container_id).exit_code)
        engine.create(container_id)
        engine.start(container_id)

    def test_host_that_went_down_and_came_back(self):
        """All that ran is gone, and so is what is on a tmpfs; nobody has
        halted anything.
        """
        container_id = self.run_container(
            '/bin/sh', '-c', 'cat /srv/x; echo kept > /srv/x; '
            'echo written; exec sleep 1000000', size=disk.Disk(root=32 << 20))
        self.await_text(container_id, 'written')
        half_made = self.define('/bin/true')
        os.unlink(place.container_state(half_made, 'spec.json'))
        running = state.read(container_id)
        for each in (running.monitor, running.process):
            processes.send_signal(each, signal.SIGKILL)
            self.assertTrue(processes.wait(each, 30))
        namespace.drop_mount_namespace()
        shutil.rmtree(base.CONF.container.run_path)
        cgroup.remove_all()
        self.assertEqual([], base.backing_files(container_id))
        self.assertEqual([half_made], engine.setup(os.getuid(), os.getgid()))
        self.assertEqual([container_id], state.ids())
        self.assertIs(state.Status.STOPPED, state.read(container_id).status)
        engine.create(container_id)
        engine.start(container_id)
        self.await_text(container_id, 'kept')
        self.assertIs(state.Status.RUNNING, state.read(container_id).status)


class ExitMonitorTest(base.RuntimeTestCase):

    def setUp(self):
        super().setUp()
        self.ended = {}
        self.heard = threading.Condition()
        self.monitor = monitor.ExitMonitor(self.on_exit)
        self.addCleanup(self.monitor.stop)

    def on_exit(self, container_id):
        with self.heard:
            self.ended[container_id] = state.read(container_id)
            self.heard.notify()

    def await_exit(self, container_id):
        with self.heard:
            self.assertTrue(self.heard.wait_for(
                lambda: container_id in self.ended, 30))
        return self.ended[container_id]

    def test_end_is_told_with_its_code(self):
        container_id = self.run_container('/bin/sh', '-c',
                                          'sleep 0.2; exit 5')
        self.monitor.watch(container_id)
        self.assertEqual(5, self.await_exit(container_id).exit_code)

    def test_process_that_ended_before_it_was_watched(self):
        container_id = self.run_container('/bin/true')
        self.finish(container_id)
        self.monitor.watch(container_id)
        self.assertEqual(0, self.await_exit(container_id).exit_code)

    def test_monitor_killed_first(self):
        container_id = self.run_container(*FOREVER)
        running = state.read(container_id)
        self.monitor.watch(container_id)
        processes.send_signal(running.monitor, signal.SIGKILL)
        processes.wait(running.monitor, 30)
        self.assertNotIn(container_id, self.ended)
        processes.send_signal(running.process, signal.SIGKILL)
        self.assertIsNone(self.await_exit(container_id).exit_code)


class HostTest(base.RuntimeTestCase):

    def test_runtime_that_is_not_installed(self):
        base.CONF.set_override('oci_runtime', 'not-there', 'container')
        self.addCleanup(base.CONF.clear_override, 'oci_runtime', 'container')
        oci_runtime.runtime.cache_clear()
        self.addCleanup(oci_runtime.runtime.cache_clear)
        with self.assertRaisesRegex(exception.HostUnsupported,
                                    r'\[container\] oci_runtime'):
            oci_runtime.runtime()

    def test_monitor_that_is_not_installed(self):
        container_id = self.define(*FOREVER)
        with self.overridden('conmon', 'not-there'), \
                self.assertRaisesRegex(exception.HostUnsupported,
                                       r'\[container\] conmon'):
            engine.create(container_id)
        engine.create(container_id)

    @contextlib.contextmanager
    def overridden(self, option, value):
        base.CONF.set_override(option, value, 'container')
        try:
            yield
        finally:
            base.CONF.clear_override(option, 'container')

    def test_define_with_a_layer_that_is_not_there(self):
        with self.assertRaises(exception.ContainerNotFound):
            engine.define(container.ContainerSpec(
                id=str(uuid.uuid4()), hostname='x',
                process=container.Process(('x',)),
                layers=('sha256:' + '0' * 64,)))
