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

"""Containers that SELinux confines."""

import os
import pathlib
import subprocess

from nova_container import conf
from nova_container import exception
from nova_container.privileged import linux
from nova_container.privileged import namespace
from nova_container.privileged import place
from nova_container.privileged import selinux
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import command
from nova_container.spec import disk
from tests.functional import base

_CONTEXTS = '/etc/selinux/default/contexts/lxc_contexts'


class SelinuxTest(base.RuntimeTestCase):

    @classmethod
    def setUpClass(cls):
        conf.register_opts(base.CONF)
        base.CONF.set_override('selinux', True, 'container')
        cls.addClassCleanup(base.CONF.clear_override, 'selinux', 'container')
        super().setUpClass()

    @staticmethod
    def context(container_id: str) -> str:
        pid = state.read(container_id).process.pid
        return pathlib.Path(f'/proc/{pid}/attr/current').read_text().rstrip(
            '\0\n')

    def execute(self, container_id: str, script: str) -> str:
        done = engine.execute(container_id, command.Command(
            ('/bin/sh', '-c', f'exec 2>&1; {script}')))
        return done.stdout.decode()

    def test_is_enforced_here(self):
        self.assertEqual('1', pathlib.Path('/sys/fs/selinux/enforce')
                         .read_text().strip())

    def test_process_and_command_have_a_context_of_their_own(self):
        one = self.run_container('/bin/sleep', '1000000')
        other = self.run_container('/bin/sleep', '1000000')
        contexts = [self.context(each) for each in (one, other)]
        for context in contexts:
            self.assertRegex(context, r':container_t:s0:c\d+,c\d+$')
        self.assertNotEqual(*contexts)
        self.assertIn(contexts[0],
                      self.execute(one, 'cat /proc/self/attr/current'))

    def test_ordinary_work_goes_on(self):
        out = self.shell(
            'set -e; echo x > /srv/x; cat /srv/x /etc/hosts; ls / /sys '
            '> /dev/null; echo y > /dev/shm/y; echo z > /mnt/z; cat /mnt/z; '
            'echo words > /dev/stderr; mkfifo /srv/fifo; '
            'chmod 700 /srv/x; kill -0 $$; sleep 100 & kill -9 $!; echo END',
            size=disk.Disk(ephemeral=64 << 20))
        for word in ('x\n', 'localhost', 'z\n', 'words', 'END'):
            self.assertIn(word, out)

    def test_stops_on_its_signal(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'trap "exit 5" TERM; echo ready; '
            'while :; do sleep 0.1; done')
        self.await_text(container_id, 'ready')
        engine.stop(container_id, 30)
        self.assertEqual(5, state.read(container_id).exit_code)

    def test_what_is_anothers_is_refused_even_when_it_leaks_in(self):
        owner, thief = (self.run_container('/bin/sleep', '1000000')
                        for _ in range(2))
        self.execute(owner, 'echo secret > /srv/file; '
                     'chmod 777 /srv /srv/file')
        self.execute(thief, 'mkdir /srv/own /srv/leak; '
                     'echo mine > /srv/own/file')

        tree = namespace.with_mounts(
            linux.open_tree, place.container_run(owner, 'rootfs', 'srv'))
        try:
            pid = state.read(thief).process.pid
            with open(f'/proc/{pid}/ns/mnt') as mounts:
                namespace.with_mounts_of(mounts.fileno(), linux.move_mount,
                                         tree, '/srv/leak')
        finally:
            os.close(tree)
        self.assertIn('mine', self.execute(thief, 'cat /srv/own/file'))
        out = self.execute(thief, 'cat /srv/leak/file')
        self.assertIn('Permission denied', out)
        self.assertNotIn('secret', out)
        self.assertIn('secret', self.execute(owner, 'cat /srv/file'))

    def test_operator_who_wants_none(self):
        base.CONF.set_override('selinux', False, 'container')
        self.addCleanup(base.CONF.set_override, 'selinux', True, 'container')
        container_id = self.run_container('/bin/sleep', '1000000')
        self.assertNotIn('container_t', self.context(container_id))

    def test_nesting_is_not_confined(self):
        base.CONF.set_override('nesting_allowed', True, 'container')
        self.addCleanup(base.CONF.clear_override, 'nesting_allowed',
                        'container')
        container_id = self.define('/bin/sleep', '1000000')
        self.redefine(container_id, nesting=True)
        engine.create(container_id)
        engine.start(container_id)
        self.assertNotIn('container_t', self.context(container_id))

    def test_policy_that_knows_no_containers(self):
        subprocess.run(['mount', '--bind', '/dev/null', _CONTEXTS],
                       check=True)
        self.addCleanup(subprocess.run, ['umount', _CONTEXTS], check=True)
        container_id = self.define('/bin/true')
        # As in a helper that was just started.
        selinux._policy.cache_clear()
        with self.assertRaisesRegex(exception.HostUnsupported,
                                    'container-selinux'):
            engine.create(container_id)
        self.assertFalse(os.path.exists(place.container_run(container_id)))
