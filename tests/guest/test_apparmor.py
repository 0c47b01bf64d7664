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

"""Containers that AppArmor confines."""

import os
import pathlib

from nova_container import exception
from nova_container.privileged import apparmor
from nova_container.privileged import place
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import command
from tests.functional import base


class AppArmorTest(base.RuntimeTestCase):

    def option(self, name: str, value: object) -> None:
        base.CONF.set_override(name, value, 'container')
        self.addCleanup(base.CONF.clear_override, name, 'container')

    @staticmethod
    def label(container_id: str) -> str:
        pid = state.read(container_id).process.pid
        return pathlib.Path(f'/proc/{pid}/attr/current').read_text()

    def test_process_and_command_are_confined(self):
        container_id = self.run_container('/bin/sleep', '1000000')
        self.assertIn(apparmor.PROFILE, self.label(container_id))
        done = engine.execute(container_id, command.Command(
            ('/bin/cat', '/proc/self/attr/current')))
        self.assertIn(apparmor.PROFILE.encode(), done.stdout)

    def test_is_a_line_of_defence_of_its_own(self):
        """Who has every capability, under this profile, is refused too."""
        child = os.fork()
        if child == 0:
            code = 1
            try:
                settings = pathlib.Path('/proc/sys/kernel/panic')
                before = settings.read_text()
                settings.write_text(before)
                pathlib.Path('/proc/self/attr/current').write_text(
                    f'changeprofile {apparmor.PROFILE}')
                try:
                    settings.write_text(before)
                except PermissionError:
                    code = 0
            finally:
                os._exit(code)
        self.assertEqual(0, os.waitstatus_to_exitcode(
            os.waitpid(child, 0)[1]))

    def test_ordinary_work_goes_on(self):
        out = self.shell(
            'echo x > /srv/x; cat /srv/x; ls / > /dev/null; kill -0 $$; '
            'sleep 100 & kill -9 $!; wait; echo END')
        self.assertIn('x\nEND', out)

    def test_stops_on_its_signal(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'trap "exit 5" TERM; echo ready; '
            'while :; do sleep 0.1; done')
        self.await_text(container_id, 'ready')
        engine.stop(container_id, 30)
        self.assertEqual(5, state.read(container_id).exit_code)

    def test_profile_that_is_not_loaded(self):
        self.option('apparmor_profile', 'nowhere')
        container_id = self.define('/bin/true')
        with self.assertRaisesRegex(exception.HostUnsupported, 'nowhere'):
            engine.create(container_id)
        self.assertFalse(os.path.exists(place.container_run(container_id)))

    def test_operator_who_wants_none(self):
        self.option('apparmor_profile', 'none')
        container_id = self.run_container('/bin/sleep', '1000000')
        self.assertNotIn(apparmor.PROFILE, self.label(container_id))

    def test_nesting_is_not_confined(self):
        self.option('nesting_allowed', True)
        container_id = self.define('/bin/sleep', '1000000')
        self.redefine(container_id, nesting=True)
        engine.create(container_id)
        engine.start(container_id)
        self.assertNotIn(apparmor.PROFILE, self.label(container_id))
