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

import fcntl
import os
import pathlib
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from unittest import mock

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import execution
from nova_container.privileged import oci_runtime
from nova_container.privileged import place
from nova_container.privileged import process as processes
from nova_container.runtime import attachment
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import command
from nova_container.spec import limits
from tests.functional import base

FOREVER = ('/bin/sleep', '1000000')


class ExecutionTestCase(base.RuntimeTestCase):

    def sh(self, container_id, script, timeout=30, limit=65536, **wishes):
        return engine.execute(
            container_id, command.Command(('/bin/sh', '-c', script), **wishes),
            timeout, limit)


class ExecuteTest(ExecutionTestCase):

    def test_output_and_exit_code(self):
        container_id = self.run_container(*FOREVER)
        done = self.sh(container_id, 'echo out; echo err >&2; exit 3')
        self.assertEqual(engine.Execution(3, b'out\n', b'err\n', False), done)

    def test_input(self):
        container_id = self.run_container(*FOREVER)
        data = bytes(range(256)) * 256
        done = engine.execute(container_id, command.Command(('/bin/cat',)),
                              data=data)
        self.assertEqual((0, data), (done.exit_code, done.stdout))
        done = engine.execute(container_id, command.Command(('/bin/true',)),
                              data=data)
        self.assertEqual(0, done.exit_code)

    def test_signal_becomes_128_and_its_number(self):
        container_id = self.run_container(*FOREVER)
        self.assertEqual(137, self.sh(container_id, 'kill -9 $$').exit_code)

    def test_time_that_is_up_while_the_command_begins(self):
        container_id = self.run_container(*FOREVER)
        init = state.read(container_id).process
        for hundredths in range(1, 16):
            done = engine.execute(container_id, command.Command(FOREVER),
                                  timeout=hundredths / 100)
            self.assertIsNone(done.exit_code)
        self.assertEqual({init}, set(map(
            processes.identify, cgroup.members(container_id))) - {None})

    def test_sees_the_container_not_the_host(self):
        container_id = self.run_container(*FOREVER)
        done = self.sh(container_id, 'hostname; cat /proc/1/cmdline; id -u')
        self.assertEqual(b'test\n/bin/sleep\x001000000\x000\n', done.stdout)

    def test_environment_directory_and_user(self):
        container_id = self.run_container(*FOREVER, env=(('A', '1'),))
        done = self.sh(container_id, 'echo $A$B $PWD $HOME $(id -u)',
                       env=(('B', '2'),), cwd='/var', user='web')
        self.assertEqual(b'12 /var /var/www 33\n', done.stdout)

    def test_has_no_more_rights_than_the_container(self):
        container_id = self.run_container(*FOREVER)
        own = self.sh(container_id, 'grep -E "Cap|Sec" /proc/1/status').stdout
        self.assertEqual(own, self.sh(
            container_id, 'grep -E "Cap|Sec" /proc/self/status').stdout)
        done = self.sh(container_id, 'mount -t tmpfs none /mnt')
        self.assertNotEqual(0, done.exit_code)

    def test_no_descriptor_of_the_host_leaks_in(self):
        container_id = self.run_container(*FOREVER)
        done = self.sh(container_id, 'readlink /proc/self/fd/*')
        for target in done.stdout.decode().split():
            self.assertRegex(target, r'^(pipe:|/dev/null|/proc/\d+/fd)')

    def test_any_user_may_open_its_standard_output(self):
        container_id = self.run_container(*FOREVER)
        done = self.sh(container_id, 'echo x > /dev/stdout')
        self.assertEqual((b'x\n', b''), (done.stdout, done.stderr))

    def test_output_beyond_the_limit_is_dropped(self):
        container_id = self.run_container(*FOREVER)
        done = self.sh(container_id, 'yes | head -c 10000000; exit 4',
                       limit=1000)
        self.assertEqual((4, b'y\n' * 500, True),
                         (done.exit_code, done.stdout, done.truncated))
        done = self.sh(container_id, 'yes | head -c 1000', limit=1000)
        self.assertFalse(done.truncated)

    def test_timeout_kills_the_command_with_its_children(self):
        container_id = self.run_container(*FOREVER)
        done = self.sh(container_id, 'echo begun; sleep 777 & sleep 777',
                       timeout=3)
        self.assertEqual((None, b'begun\n'), (done.exit_code, done.stdout))
        left = self.sh(container_id, 'ps').stdout.decode()
        self.assertNotIn('777', left)
        self.assertIn('1000000', left)
        self.assertEqual([], os.listdir(
            place.container_run(container_id, 'exec')))

    def test_timeout_while_the_container_is_paused(self):
        container_id = self.run_container(*FOREVER)

        def pause() -> None:
            while len(cgroup.members(container_id)) < 12:
                pass
            engine.pause(container_id)

        pausing = threading.Thread(target=pause)
        pausing.start()
        self.addCleanup(pausing.join)
        with mock.patch.object(execution, '_END_TIMEOUT', 1):
            began = time.monotonic()
            done = self.sh(container_id, 'for i in 0 1 2 3 4 5 6 7 8 9; do '
                           'sleep 1000 & done; wait', timeout=3)
        self.assertIsNone(done.exit_code)
        self.assertLess(time.monotonic() - began, 9)

    def test_timeout_holds_for_one_that_never_stops_writing(self):
        container_id = self.run_container(*FOREVER)
        done = self.sh(container_id, 'yes >&2 & yes', timeout=2, limit=100)
        self.assertIsNone(done.exit_code)

    def test_what_cannot_be_started(self):
        container_id = self.run_container(*FOREVER)
        for wish in (command.Command(('/bin/nowhere',)),
                     command.Command(('nowhere',)),
                     command.Command(('/etc/passwd',)),
                     command.Command(('/bin/id',), user='nobody-here'),
                     command.Command(('/bin/id',), cwd='/etc/passwd'),
                     command.Command(())):
            with self.assertRaises(exception.ProcessInvalid, msg=wish):
                engine.execute(container_id, wish)

    def test_only_in_a_running_container(self):
        container_id = self.define(*FOREVER)
        for step in (lambda _: None, engine.create):
            step(container_id)
            with self.assertRaises(exception.StateConflict):
                self.sh(container_id, 'true')
        engine.start(container_id)
        engine.pause(container_id)
        with self.assertRaisesRegex(exception.StateConflict, 'paused'):
            self.sh(container_id, 'true')

    def test_container_full_of_processes(self):
        container_id = self.run_container(*FOREVER)
        self.sh(container_id, 'for i in 1 2 3 4 5 6 7; do sleep 1000 '
                '< /dev/null > /dev/null 2>&1 & done')
        engine.update(container_id, limits.Limits(pids=8))
        # What there is no room for is a thread of the OCI runtime, which runc
        # does not need every time, and crun never.
        try:
            for _ in range(100):
                self.assertEqual(0, self.sh(container_id, 'true').exit_code)
        except exception.StateConflict as e:
            self.assertIn('processes', e.message)
        else:
            self.assertIn('crun', oci_runtime.runtime())

    def test_container_that_ends_meanwhile(self):
        container_id = self.run_container(*FOREVER)

        codes = []
        runner = threading.Thread(target=lambda: codes.append(self.sh(
            container_id, 'echo begun >/proc/1/fd/1; sleep 1000').exit_code))
        runner.start()
        self.await_text(container_id, 'begun')
        engine.halt(container_id)
        runner.join()
        self.assertEqual([137], codes)

    def test_many_at_once(self):
        container_id = self.run_container(*FOREVER)
        codes = {}

        def one(number):
            codes[number] = self.sh(container_id, f'exit {number}').exit_code

        threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual({n: n for n in range(8)}, codes)

    def test_works_after_the_monitor_was_killed(self):
        container_id = self.run_container(*FOREVER)
        os.kill(state.read(container_id).monitor.pid, signal.SIGKILL)
        self.assertEqual(b'x\n', self.sh(container_id, 'echo x').stdout)

    def test_command_is_ended_that_nobody_waits_for(self):
        container_id = self.run_container(*FOREVER)
        caller = subprocess.Popen(
            [sys.executable, '-c', _CALLER, base.CONF.container.run_path,
             base.CONF.container.state_path, container_id])
        directory = place.container_run(container_id, 'exec')
        while not any(name.endswith('.pid')
                      for name in os.listdir(directory)):
            self.assertIsNone(caller.poll())
        execution.recover()
        self.assertIn(b' 777', self.sh(container_id, 'ps').stdout)
        caller.kill()
        caller.wait()
        execution.recover()
        self.assertNotIn(b' 777', self.sh(container_id, 'ps').stdout)
        self.assertEqual([], os.listdir(directory))

    def test_arguments_of_a_caller_that_was_taken_over(self):
        container_id = self.run_container(*FOREVER)
        for arguments in (({'args': ['x'], 'more': 1}, 1.0, 1),
                          ({'args': 'x'}, 1.0, 1), ({'args': ['x']}, -1, 1),
                          ({'args': ['x']}, 1.0, 1 << 30),
                          ({'args': ['x']}, 'x', 1)):
            with self.assertRaises(exception.InvalidSpec, msg=arguments):
                execution.run(container_id, *arguments)


_CALLER = """
import sys
from oslo_config import cfg
from nova_container import conf
from nova_container.privileged import context
from nova_container.runtime import engine
from nova_container.spec import command
conf.register_opts(cfg.CONF)
cfg.CONF([], default_config_files=[], default_config_dirs=[])
cfg.CONF.set_override('run_path', sys.argv[1], 'container')
cfg.CONF.set_override('state_path', sys.argv[2], 'container')
context.set_client_mode(False)
engine.execute(sys.argv[3], command.Command(('/bin/sleep', '777')))
"""


class InteractiveTest(ExecutionTestCase):
    """On a terminal of the test's own, in a process of its own."""

    def on_terminal(self, function, *args):
        """Fork a child on a new terminal; the terminal's other end."""
        pid, terminal = pty.fork()
        if pid == 0:
            try:
                os._exit(function(*args))
            finally:
                os._exit(99)
        self.addCleanup(os.close, terminal)
        return pid, terminal

    @staticmethod
    def read_until(terminal, word):
        text = b''
        while word not in text:
            text += os.read(terminal, 4096)
        return text

    @staticmethod
    def exit_code(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def test_command_on_the_callers_terminal(self):
        container_id = self.run_container(*FOREVER)
        pid, terminal = self.on_terminal(
            engine.execute_here, container_id,
            command.Command(('/bin/sh', '-c',
                             'test -t 0 && echo begin; read x; '
                             'until [ "$(stty size)" = "33 77" ]; do :; done; '
                             'exit $x')), True)
        self.read_until(terminal, b'begin')
        fcntl.ioctl(terminal, termios.TIOCSWINSZ,
                    struct.pack('HHHH', 33, 77, 0, 0))
        os.write(terminal, b'7\n')
        self.assertEqual(7, self.exit_code(pid))

    def test_attach_type_and_detach(self):
        container_id = self.run_container('/bin/sh', terminal=True)
        pid, terminal = self.on_terminal(
            attachment.interact, container_id, 0, 1, 2)
        os.write(terminal, b'echo $((6*7))\n')
        self.read_until(terminal, b'42')
        os.write(terminal, b'\x10\x11')
        self.assertEqual(1, self.exit_code(pid))
        self.assertIs(state.Status.RUNNING, state.read(container_id).status)
        self.assertIn('42', self.text(container_id))

    def test_size_of_the_terminal_arrives(self):
        container_id = self.run_container('/bin/sh', terminal=True)
        pid, terminal = self.on_terminal(
            attachment.interact, container_id, 0, 1, 2)
        os.write(terminal, b'echo $((1+1))ready\n')
        self.read_until(terminal, b'2ready')
        fcntl.ioctl(terminal, termios.TIOCSWINSZ,
                    struct.pack('HHHH', 44, 88, 0, 0))
        while True:
            os.write(terminal, b'stty size; echo $((2+1))done\n')
            if b'44 88' in self.read_until(terminal, b'3done'):
                break
        os.write(terminal, b'exit 0\n')
        self.assertEqual(0, self.exit_code(pid))


class AttachmentTest(ExecutionTestCase):

    def test_output_of_both_streams_then_the_end(self):
        container_id = self.define('/bin/sh', '-c', 'echo a; echo b >&2')
        engine.create(container_id)
        with attachment.Attachment(container_id) as attached:
            engine.start(container_id)
            pieces = list(iter(attached.read, None))
        self.assertEqual({(attachment.STDOUT, b'a\n'),
                          (attachment.STDERR, b'b\n')}, set(pieces))

    def test_two_clients_see_the_same(self):
        container_id = self.run_container('/bin/cat', terminal=True)
        with attachment.Attachment(container_id) as one, \
                attachment.Attachment(container_id) as other:
            one.write(b'hello\n')
            for attached in (one, other):
                text = b''
                while text.count(b'hello') < 2:
                    text += attached.read()[1]

    def test_resize_is_seen_inside(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'trap "stty size" WINCH; echo ready; '
            'while :; do sleep 0.1; done', terminal=True)
        with attachment.Attachment(container_id) as attached:
            text = b''
            while b'ready' not in text + self.text(container_id).encode():
                text += attached.read()[1]
            attached.resize(31, 71)
            while b'31 71' not in text:
                text += attached.read()[1]

    def test_container_without_a_console(self):
        container_id = self.define(*FOREVER)
        with self.assertRaises(exception.StateConflict):
            attachment.Attachment(container_id)
        with self.assertRaises(exception.StateConflict):
            attachment.resize(container_id, 1, 1)

    def test_monitor_killed(self):
        container_id = self.run_container(*FOREVER)
        monitor = state.read(container_id).monitor
        processes.send_signal(monitor, signal.SIGKILL)
        processes.wait(monitor, 30)
        with self.assertRaisesRegex(exception.StateConflict, 'monitor'):
            attachment.Attachment(container_id)

    def test_console_belongs_to_the_services_user(self):
        os.chown(place.state('spool'), 12345, 12346)
        self.addCleanup(os.chown, place.state('spool'), 0, 0)
        container_id = self.run_container(*FOREVER)
        for name in ('attach', 'ctl'):
            path = pathlib.Path(place.container_run(container_id, name))
            self.assertEqual((12345, 12346),
                             (path.stat().st_uid, path.stat().st_gid))


class SignalTest(ExecutionTestCase):

    def test_signal_by_name(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'trap "exit 9" HUP; echo ready; '
            'while :; do sleep 0.1; done')
        self.await_text(container_id, 'ready')
        self.assertTrue(engine.send_signal(container_id, 'SIGHUP'))
        self.assertEqual(9, self.finish(container_id).exit_code)
        self.assertFalse(engine.send_signal(container_id, 'HUP'))
        with self.assertRaises(exception.ProcessInvalid):
            engine.send_signal(container_id, 'SIGNONE')
