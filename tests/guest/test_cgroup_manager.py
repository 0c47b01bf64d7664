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

"""systemd as the one that makes control groups, and as one that does not."""

import os
import pathlib
import signal
import subprocess

from nova_container.privileged import cgroup
from nova_container.privileged import place
from nova_container.privileged import process as processes
from nova_container.privileged import systemd
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import limits
from tests.functional import base

_MIB = 1 << 20
FOREVER = ('/bin/sleep', '1000000')


def _show(container_id: str, *names: str) -> dict[str, str]:
    """What systemd says of a container's scope."""
    out = subprocess.run(
        ['systemctl', 'show', os.path.basename(place.cgroup(container_id)),
         *(f'--property={name}' for name in names)],
        check=True, capture_output=True, text=True).stdout
    return dict(line.split('=', 1) for line in out.splitlines())


def _group(container_id: str) -> pathlib.Path:
    return pathlib.Path(cgroup.ROOT + place.cgroup(container_id))


class SystemdTest(base.RuntimeTestCase):

    def test_container_is_a_scope_with_its_limits(self):
        self.assertTrue(systemd.manages())
        container_id = self.run_container(*FOREVER, limit=limits.Limits(
            memory=64 * _MIB, pids=50, cpu_quota=20000))
        group = _group(container_id)
        self.assertEqual(
            {'ActiveState': 'active', 'MemoryMax': str(64 * _MIB),
             'TasksMax': '50', 'Slice': systemd.slice_of(container_id)},
            _show(container_id, 'ActiveState', 'MemoryMax', 'TasksMax',
                  'Slice'))
        self.assertEqual(str(64 * _MIB),
                         (group / 'memory.max').read_text().strip())
        pid = state.read(container_id).process.pid
        self.assertIn(str(pid), (group / 'cgroup.procs').read_text().split())
        engine.update(container_id, limits.Limits(memory=96 * _MIB, pids=60))
        self.assertEqual({'MemoryMax': str(96 * _MIB), 'TasksMax': '60'},
                         _show(container_id, 'MemoryMax', 'TasksMax'))
        engine.halt(container_id)
        self.assertEqual({'ActiveState': 'inactive'},
                         _show(container_id, 'ActiveState'))
        self.assertFalse(group.parent.exists())
        units = subprocess.run(
            ['systemctl', 'list-units', '--all', '--plain', '--no-legend'],
            check=True, capture_output=True, text=True).stdout
        self.assertNotIn(systemd.slice_of(container_id), units)

    def test_limits_survive_a_reload_of_systemd(self):
        container_id = self.run_container(*FOREVER, limit=limits.Limits(
            memory=64 * _MIB, pids=50))
        subprocess.run(['systemctl', 'daemon-reload'], check=True)
        self.assertEqual(
            '50', (_group(container_id) / 'pids.max').read_text().strip())
        self.assertIs(state.Status.RUNNING, state.read(container_id).status)

    def test_scope_of_the_monitors_goes_with_the_last(self):
        first, second = (self.run_container(*FOREVER) for _ in range(2))
        own = [state.read(each).monitor for each in (first, second)]
        self.assertLessEqual({each.pid for each in own}, cgroup.monitors())
        engine.halt(first)
        self.assertTrue(processes.alive(own[1]))
        engine.halt(second)
        third = self.run_container(*FOREVER)
        self.assertIn(state.read(third).monitor.pid, cgroup.monitors())

    def test_monitor_and_process_killed_leave_nothing(self):
        container_id = self.run_container(*FOREVER)
        current = state.read(container_id)
        for each in (current.monitor, current.process):
            processes.send_signal(each, signal.SIGKILL)
            processes.wait(each, 30)
        engine.halt(container_id)
        self.assertFalse(_group(container_id).parent.exists())


class CgroupfsTest(base.RuntimeTestCase):
    """By the operator's choice, beside systemd."""

    @classmethod
    def setUpClass(cls):
        base.conf.register_opts(base.CONF)
        base.CONF.set_override('cgroup_manager', 'cgroupfs', 'container')
        cls.addClassCleanup(base.CONF.clear_override, 'cgroup_manager',
                            'container')
        super().setUpClass()

    def test_container_has_a_directory_with_its_limits(self):
        container_id = self.run_container(*FOREVER,
                                          limit=limits.Limits(pids=50))
        self.assertNotIn('.scope', place.cgroup(container_id))
        self.assertEqual(
            '50', (_group(container_id) / 'pids.max').read_text().strip())
        self.assertIn(state.read(container_id).monitor.pid, cgroup.monitors())
