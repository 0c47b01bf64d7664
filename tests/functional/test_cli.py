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


import json
import os
import pathlib
import pty
import signal
import subprocess
import sys
import tempfile
import termios

from oslo_config import cfg

from nova_container.privileged import cgroup
from nova_container.privileged import container as privileged
from nova_container.runtime import engine
from nova_container.spec import disk
from tests import archives
from tests.functional import base

CONF = cfg.CONF

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


class CommandTestCase(base.RuntimeTestCase):
    """The command as an operator runs it, in a process of its own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.config = os.path.join(directory, 'nova.conf')
        with open(cls.config, 'w') as file:
            file.write('[container]\n')
            for name in ('state_path', 'run_path', 'cgroup_parent',
                         'id_range_start'):
                file.write(f'{name} = {CONF.container[name]}\n')
        cls.archive = os.path.join(directory, 'busybox.tar')
        with open(cls.archive, 'wb') as file:
            file.write(archives.docker_archive(base.busybox_layer()))
        cls.addClassCleanup(cls._remove_local)

    @classmethod
    def _remove_local(cls):
        cls.command('destroy-all', '--local')
        left = base.leftovers(CONF.container.cgroup_parent + '-local')
        if left:
            raise AssertionError(f'left behind: {left}')

    @classmethod
    def words(cls, name, *args):
        return [sys.executable, '-m', 'nova_container.cli', name,
                '--config-file', cls.config, *args]

    @classmethod
    def command(cls, name, *args, code=0):
        """Run it; its standard output, or its errors if it failed."""
        done = subprocess.run(cls.words(name, *args), capture_output=True,
                              text=True, cwd=_REPOSITORY)
        if done.returncode != code:
            raise AssertionError(f'{name} {args}: exit code '
                                 f'{done.returncode}: {done.stderr}')
        return done.stderr if code and not done.stdout else done.stdout

    def json(self, *args):
        return json.loads(self.command(*args))


class ListingTest(CommandTestCase):

    def test_ps_shows_what_runs_and_with_all_the_rest(self):
        runs = self.run_container('/bin/sleep', '1000')
        ended = self.run_container('/bin/sh', '-c', 'exit 4')
        self.finish(ended)
        rows = {row['id']: row for row in
                self.json('ps', '--format', 'json')}
        self.assertEqual('/bin/sleep 1000', rows[runs]['command'])
        self.assertEqual('nova', rows[runs]['owner'])
        self.assertNotIn(ended, rows)
        rows = {row['id']: row for row in
                self.json('ps', '--all', '--format', 'json')}
        self.assertEqual(('stopped', 4), (rows[ended]['status'],
                                          rows[ended]['exit_code']))
        table = self.command('ps', '-a')
        self.assertIn(f'{runs[:13]}   test   /bin/sleep 1000', table)
        self.assertIn('stopped (4)', table)

    def test_inspect_by_the_start_of_the_id(self):
        container_id = self.run_container('/bin/sleep', '1000')
        (found,) = self.json('inspect', container_id[:13])
        self.assertEqual('running', found['status'])
        self.assertEqual(['/bin/sleep', '1000'],
                         found['spec']['process']['args'])
        with open(f'/proc/{found["pid"]}/uid_map') as table:
            self.assertEqual(found['ids'][0], int(table.read().split()[1]))
        self.assertTrue(os.path.isdir(found['paths']['state']))

    def test_unknown_container(self):
        for name in ('inspect', 'logs', 'diff'):
            self.assertIn('no container nothing-of-the-kind',
                          self.command(name, 'nothing-of-the-kind', code=1))

    def test_wrong_usage(self):
        self.assertIn('usage:', self.command('logs', code=2))


class LogsTest(CommandTestCase):

    def test_tail(self):
        container_id = self.run_container('/bin/seq', '1', '100')
        self.finish(container_id)
        self.assertEqual('99\n100\n',
                         self.command('logs', '--tail', '2', container_id))
        self.assertEqual(100, len(
            self.command('logs', container_id).splitlines()))

    def test_follow_to_the_end(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'trap "go=1" USR1; echo one; '
            'while [ -z "$go" ]; do sleep 0.1; done; printf "two\\nthree"')
        with subprocess.Popen(self.words('logs', '-f', container_id),
                              stdout=subprocess.PIPE, text=True,
                              cwd=_REPOSITORY) as follower:
            self.assertEqual('one\n', follower.stdout.readline())
            privileged.kill(container_id, signal.SIGUSR1)
            self.assertEqual('two\nthree', follower.stdout.read())
        self.assertEqual(0, follower.returncode)


class ProcessTest(CommandTestCase):

    def test_exec_returns_what_the_command_returned(self):
        container_id = self.run_container('/bin/sleep', '1000')
        done = subprocess.run(
            self.words('exec', '-i', '-u', 'web', '-e', 'WHO=me', '-w',
                       '/srv', container_id, '/bin/sh', '-c',
                       'id -u; pwd; echo $WHO; cat; exit 7'),
            input='typed', capture_output=True, text=True, cwd=_REPOSITORY)
        self.assertEqual((7, '33\n/srv\nme\ntyped', ''),
                         (done.returncode, done.stdout, done.stderr))

    def test_exec_has_no_input_unless_asked(self):
        container_id = self.run_container('/bin/sleep', '1000')
        done = subprocess.run(
            self.words('exec', container_id, '/bin/cat'), input='typed',
            capture_output=True, text=True, cwd=_REPOSITORY)
        self.assertEqual((0, ''), (done.returncode, done.stdout))

    def test_terminal_needs_one(self):
        container_id = self.run_container('/bin/sleep', '1000')
        self.assertIn('not a terminal', self.command(
            'exec', '-it', container_id, '/bin/sh', code=1))

    def test_attach_shows_the_end_and_returns_the_code(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'trap "echo bye; exit 5" USR1; echo up; '
            'while :; do echo on; sleep 0.1; done')
        with subprocess.Popen(
                self.words('attach', container_id), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, text=True, cwd=_REPOSITORY) as child:
            self.assertIn(child.stdout.readline(), ('up\n', 'on\n'))
            privileged.kill(container_id, signal.SIGUSR1)
            self.assertIn('bye\n', child.stdout.read())
        self.assertEqual(5, child.returncode)

    def test_terminal_is_given_back_to_who_ends_the_command(self):
        container_id = self.run_container('/bin/cat', terminal=True)
        for words in (('attach', container_id),
                      ('exec', '-it', container_id, '/bin/cat')):
            pid, terminal = pty.fork()
            if pid == 0:
                os.chdir(_REPOSITORY)
                os.execv(sys.executable, self.words(*words))
            self.addCleanup(os.close, terminal)
            before = termios.tcgetattr(terminal)
            while termios.tcgetattr(terminal) == before:
                pass
            os.write(terminal, b'word\n')
            text = b''
            while b'word\r\nword' not in text:
                text += os.read(terminal, 4096)
            os.kill(pid, signal.SIGTERM)
            status = os.waitpid(pid, 0)[1]
            self.assertEqual(before, termios.tcgetattr(terminal), words)
            self.assertEqual(143, os.waitstatus_to_exitcode(status))

    def test_attach_to_what_has_no_terminal(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'while :; do echo on; sleep 0.1; done')
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(_REPOSITORY)
            os.execv(sys.executable, self.words('attach', container_id))
        self.addCleanup(os.close, terminal)
        text = b''
        while b'on\r\non\r\n' not in text:
            text += os.read(terminal, 4096)
            self.assertNotIn(b'on\non', text)
        os.write(terminal, b'\x03')
        self.assertEqual(130, os.waitstatus_to_exitcode(
            os.waitpid(pid, 0)[1]))
        self.assertEqual('running',
                         self.json('inspect', container_id)[0]['status'])

    def test_command_ends_with_who_waits_for_it(self):
        container_id = self.run_container('/bin/sleep', '1000')
        with subprocess.Popen(
                self.words('exec', container_id, '/bin/sh', '-c',
                           'echo up; sleep 1000'),
                stdout=subprocess.PIPE, text=True, cwd=_REPOSITORY) as child:
            self.assertEqual('up\n', child.stdout.readline())
            child.terminate()
        self.assertEqual(143, child.returncode)
        self.assertEqual(1, len(cgroup.members(container_id)))

    def test_stats(self):
        busy = self.run_container('/bin/sh', '-c', 'while :; do :; done')
        ended = self.run_container('/bin/true')
        self.finish(ended)
        rows = {row['id']: row for row in
                self.json('stats', '--format', 'json')}
        self.assertGreater(rows[busy]['cpu_percent'], 10)
        self.assertEqual(1, rows[busy]['pids'])
        self.assertNotIn(ended, rows)
        self.assertIn(busy[:13], self.command('stats', '--no-stream', busy))


class DiffTest(CommandTestCase):

    def test_added_changed_deleted(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'echo x >> /etc/passwd; rm /etc/group; '
            'mkdir /srv/new; touch /srv/new/file; rm -r /var/www; '
            'mkdir /var/www; touch /var/www/here; chmod 700 /root; '
            'ln -s /etc/shadow /tmp/link')
        self.finish(container_id)
        found = {tuple(line.split(' ', 1)) for line in
                 self.command('diff', container_id).splitlines()}
        self.assertEqual({
            ('C', '/etc'), ('C', '/etc/passwd'), ('D', '/etc/group'),
            ('C', '/srv'), ('A', '/srv/new'), ('A', '/srv/new/file'),
            ('C', '/var'), ('C', '/var/www'), ('A', '/var/www/here'),
            ('C', '/root'), ('C', '/tmp'), ('A', '/tmp/link')}, found)

    def test_on_a_disk_of_its_own(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'echo x > /srv/x; rm /etc/group',
            size=disk.Disk(root=32 << 20))
        self.finish(container_id)
        for halt in (False, True):
            if halt:
                engine.halt(container_id)
            self.assertEqual(
                {'C /srv', 'A /srv/x', 'C /etc', 'D /etc/group'},
                set(self.command('diff', container_id).splitlines()))

    def test_nothing_changed(self):
        container_id = self.run_container('/bin/true')
        self.finish(container_id)
        self.assertEqual('', self.command('diff', container_id))

    def test_file_name_that_speaks_to_the_terminal(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'touch "/srv/$(printf "\\033[2J\\nA /fake")"')
        self.finish(container_id)
        out = self.command('diff', container_id)
        self.assertNotIn('\033', out)
        self.assertNotIn('A /fake', out.splitlines())


class LocalTest(CommandTestCase):

    def test_run_shows_the_output_and_returns_the_code(self):
        done = subprocess.run(
            self.words('run', '--rm', '-e', 'WHO=me', '-w', '/srv',
                       self.archive, '/bin/sh', '-c',
                       'pwd; echo $WHO; ls /sys/class/net; exit 6'),
            capture_output=True, text=True, cwd=_REPOSITORY)
        self.assertEqual((6, '/srv\nme\nlo\n', ''),
                         (done.returncode, done.stdout, done.stderr))
        self.assertEqual([], self.json('ps', '-a', '--format', 'json'))

    def test_life_of_a_detached_container(self):
        container_id = self.command(
            'run', '-d', '--name', 'web', '-m', '64m', self.archive,
            '/bin/sh', '-c', 'trap "exit 9" TERM; echo up; '
            'while :; do sleep 0.1; done').strip()
        (row,) = self.json('ps', '--format', 'json')
        self.assertEqual((container_id, 'web', 'local'),
                         (row['id'], row['name'], row['owner']))
        self.assertIn('is running, not stopped',
                      self.command('rm', 'web', code=1))
        self.command('stop', 'web')
        (row,) = self.json('ps', '-a', '--format', 'json')
        self.assertEqual(9, row['exit_code'])
        self.command('start', container_id[:8])
        self.assertEqual(1, len(self.json('ps', '--format', 'json')))
        self.command('rm', '-f', 'web')
        self.assertEqual([], self.json('ps', '-a', '--format', 'json'))

    def test_interrupted_run_stops_its_container(self):
        with subprocess.Popen(
                self.words('run', '--rm', self.archive, '/bin/sh', '-c',
                           'trap "exit 0" TERM; echo up; '
                           'while :; do sleep 0.1; done'),
                stdout=subprocess.PIPE, text=True, cwd=_REPOSITORY) as child:
            self.assertEqual('up\n', child.stdout.readline())
            child.send_signal(signal.SIGINT)
            child.wait(30)
        self.assertEqual(130, child.returncode)
        self.assertEqual([], self.json('ps', '-a', '--format', 'json'))

    def test_run_that_is_ended_at_once_leaves_nothing(self):
        made = pathlib.Path(f'{CONF.container.state_path}-local',
                            'containers')
        with subprocess.Popen(
                self.words('run', '--rm', self.archive, '/bin/sleep', '9'),
                cwd=_REPOSITORY) as child:
            while child.poll() is None and not (
                    made.exists() and any(made.iterdir())):
                pass
            child.terminate()
        self.assertEqual(143, child.returncode)
        self.assertEqual([], self.json('ps', '-a', '--format', 'json'))

    def test_first_words_on_a_terminal_are_shown(self):
        pid, terminal = pty.fork()
        if pid == 0:
            words = self.words('run', '--rm', '-t', self.archive, '/bin/sh',
                               '-c', 'echo first; read x; exit $x')
            os.chdir(_REPOSITORY)
            os.execv(words[0], words)
        self.addCleanup(os.close, terminal)
        text = b''
        while b'first' not in text:
            text += os.read(terminal, 4096)
        os.write(terminal, b'7\n')
        self.assertEqual(7, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        self.assertEqual([], self.json('ps', '-a', '--format', 'json'))

    def test_command_that_a_terminal_was_meant_for_is_not_found(self):
        pid, terminal = pty.fork()
        if pid == 0:
            words = self.words('run', '-t', self.archive, '/bin/nowhere')
            os.chdir(_REPOSITORY)
            os.execv(words[0], words)
        self.addCleanup(os.close, terminal)
        self.assertEqual(1, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        self.assertEqual([], self.json('ps', '-a', '--format', 'json'))

    def test_containers_of_nova_are_left_to_nova(self):
        container_id = self.run_container('/bin/sleep', '1000')
        for name in ('rm', 'stop', 'start'):
            self.assertIn('belongs to nova-compute',
                          self.command(name, container_id, code=1))
        self.assertEqual('running', engine.state.read(
            container_id).status.value)

    def test_not_an_image(self):
        self.assertIn('nova-container: ',
                      self.command('run', self.config, code=1))


class CheckTest(CommandTestCase):

    def levels(self, code=0):
        found = json.loads(self.command('check', '--format', 'json',
                                        code=code))
        return {finding['name']: finding['level'] for finding in found}

    def test_host_that_runs_containers_is_fit(self):
        levels = self.levels()
        self.assertNotIn('missing', levels.values())
        for name in ('id-mapped mounts', 'overlay, userxattr', 'seccomp',
                     'OCI runtime', 'conmon', 'veth'):
            self.assertEqual('ok', levels[name], name)

    def add(self, *lines: str) -> None:
        """Add options to the configuration, until the end of the test."""
        path = pathlib.Path(self.config)
        before = path.read_text()
        self.addCleanup(path.write_text, before)
        path.write_text('\n'.join((before, *lines, '')))

    def test_what_is_missing_fails_and_says_what_to_do(self):
        self.add('oci_runtime = not-there', 'conmon = /not/there')
        levels = self.levels(code=1)
        self.assertEqual(('missing', 'missing'),
                         (levels['OCI runtime'], levels['conmon']))
        said = self.command('check', code=1)
        self.assertIn('[container] oci_runtime', said)
        self.assertIn('install the package conmon', said)

    def test_an_option_that_there_is_not(self):
        self.add('oci_runtim = crun')
        self.assertEqual('lacks', self.levels()['option'])
        self.assertIn('oci_runtim in ' + self.config, self.command('check'))

    def test_an_option_with_a_wrong_value(self):
        self.add('pids_limit = many')
        self.assertEqual('missing', self.levels(code=1)['option'])
        self.assertIn('option pids_limit', self.command('check', code=1))

    def test_a_kernel_that_is_too_old(self):
        done = subprocess.run(
            ['setarch', '--uname-2.6', *self.words('check')],
            capture_output=True, text=True, cwd=_REPOSITORY)
        self.assertEqual(1, done.returncode)
        self.assertIn('boot Linux 5.19 or later', done.stdout)

    def test_ids_that_a_user_of_the_host_has(self):
        with open(self.config) as file:
            before = file.read()
        self.addCleanup(pathlib.Path(self.config).write_text, before)
        # Those of nobody, 65534, come first in this range.
        changed = before.replace(f'id_range_start = {1 << 30}',
                                 'id_range_start = 65536')
        pathlib.Path(self.config).write_text(changed)
        with open('/etc/passwd') as users:
            high = [int(line.split(':')[2]) for line in users]
        expected = 'missing' if max(high) >= 65536 else 'ok'
        code = int(expected == 'missing')
        self.assertEqual(expected, self.levels(code)['id range'])

    def test_upgrade_check(self):
        done = subprocess.run(
            [sys.executable, '-m', 'nova_container.cli.status',
             '--config-file', self.config, 'upgrade', 'check'],
            capture_output=True, text=True, cwd=_REPOSITORY)
        self.assertIn(done.returncode, (0, 1), done.stdout)
        self.assertIn('Check: Storage', done.stdout)
