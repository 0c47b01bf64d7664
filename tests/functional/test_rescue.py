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

"""Rescue and suspension, on the real kernel."""

import dataclasses
import os
import pathlib

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import definition
from nova_container.privileged import host
from nova_container.privileged import place
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import command
from nova_container.spec import container
from nova_container.spec import disk
from tests.functional import base

FOREVER = ('/bin/sleep', '1000000')
_MIB = 1 << 20


class RescueTest(base.RuntimeTestCase):

    def sh(self, container_id, script):
        done = engine.execute(container_id,
                              command.Command(('/bin/sh', '-c', script)))
        return done.exit_code, (done.stdout + done.stderr).decode().strip()

    def boot(self, container_id):
        engine.create(container_id)
        engine.start(container_id)

    def rescue(self, container_id, *args):
        engine.halt(container_id)
        engine.rescue(dataclasses.replace(
            definition.load_own(container_id),
            process=container.Process(args or FOREVER)))
        self.boot(container_id)

    def broken(self, size=disk.Disk(root=64 * _MIB, ephemeral=16 * _MIB)):
        """A container with files of its own that is rescued."""
        container_id = self.run_container(*FOREVER, size=size)
        self.assertEqual((0, ''), self.sh(
            container_id, 'echo broken >/etc/app.conf; chown web /etc/app.conf'
            '; rm /etc/group; echo more >/mnt/more'))
        self.rescue(container_id)
        return container_id

    def test_root_file_system_is_there_to_be_repaired(self):
        container_id = self.broken()
        self.assertTrue(state.rescued(container_id))
        self.assertEqual((0, 'broken\nweb\nmore'), self.sh(
            container_id, 'cat /rescue/etc/app.conf; '
            'stat -c %U /rescue/etc/app.conf; cat /rescue/mnt/more'))
        self.assertEqual((0, ''), self.sh(
            container_id, 'test -e /etc/group && ! test -e /rescue/etc/group'
            ' && ! test -e /etc/app.conf && test -x /rescue/bin/busybox'
            ' && echo mended >/rescue/etc/app.conf && touch /here'))
        engine.halt(container_id)
        engine.unrescue(container_id)
        self.boot(container_id)
        self.assertEqual((0, 'mended\nweb'), self.sh(
            container_id, 'cat /etc/app.conf; stat -c %U /etc/app.conf'))
        self.assertEqual((1, ''), self.sh(
            container_id, 'test -e /here || test -e /rescue/etc'))

    def test_stays_rescued_over_a_restart_with_what_was_written(self):
        container_id = self.broken()
        self.sh(container_id, 'echo note >/note')
        engine.stop(container_id, 1)
        engine.define(definition.load_own(container_id))
        self.assertEqual([], host.recover())
        self.boot(container_id)
        self.assertEqual((0, 'note\nbroken'), self.sh(
            container_id, 'cat /note /rescue/etc/app.conf'))

    def test_full_root_disk_does_not_hinder(self):
        container_id = self.run_container(
            *FOREVER, size=disk.Disk(root=32 * _MIB))
        self.sh(container_id, 'cat /dev/zero >/big')
        self.rescue(container_id)
        self.assertEqual((0, ''), self.sh(
            container_id, 'echo x >/note && rm /rescue/big'))

    def test_nothing_is_left_of_a_rescue(self):
        for size in (disk.Disk(), disk.Disk(root=32 * _MIB)):
            container_id = self.run_container(*FOREVER, size=size)
            before = self.files(container_id)
            self.rescue(container_id)
            self.assertNotEqual(before, self.files(container_id))
            engine.halt(container_id)
            engine.unrescue(container_id)
            self.assertEqual(before, self.files(container_id))

    def files(self, container_id):
        return set(os.listdir(place.container_state(container_id))) - {
            'exit.json', 'log'}

    def test_service_killed_half_way(self):
        container_id = self.run_container(*FOREVER)
        engine.halt(container_id)
        own = definition.load_own(container_id)
        before = self.files(container_id)
        engine.rescue(own)
        os.unlink(place.container_state(container_id, 'rescue.json'))
        host.recover()
        self.assertEqual(before, self.files(container_id))
        self.assertFalse(state.rescued(container_id))

    def test_not_while_it_runs(self):
        container_id = self.run_container(*FOREVER)
        with self.assertRaises(exception.StateConflict):
            engine.rescue(definition.load_own(container_id))
        with self.assertRaises(exception.StateConflict):
            engine.unrescue(container_id)

    def test_layers_of_both_are_in_use(self):
        container_id = self.run_container(*FOREVER)
        own = definition.load_own(container_id)
        self.rescue(container_id)
        self.assertLessEqual(set(own.layers), set(engine.layers_in_use()))


class SuspendTest(base.RuntimeTestCase):

    def memory(self, container_id):
        group = place.cgroup(container_id)
        for path in (f'{cgroup.ROOT}{group}/memory.current',
                     f'{cgroup.ROOT}/memory{group}/memory.usage_in_bytes'):
            if os.path.exists(path):
                return int(pathlib.Path(path).read_text())

    def test_suspended_gives_memory_back_and_resumes_where_it_was(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'dd if=/dev/zero of=/srv/big bs=1M count=48 '
            '2>/dev/null; sync; echo ready; exec sleep 1000000')
        while 'ready' not in self.text(container_id):
            self.assertIsNotNone(state.read(container_id).process)
        process = state.read(container_id).process
        before = self.memory(container_id)
        engine.suspend(container_id)
        suspended = state.read(container_id)
        self.assertIs(state.Status.SUSPENDED, suspended.status)
        self.assertLess(self.memory(container_id), before / 2)
        engine.resume(container_id)
        resumed = state.read(container_id)
        self.assertIs(state.Status.RUNNING, resumed.status)
        self.assertEqual(process, resumed.process)

    def test_pause_after_suspend_is_a_pause(self):
        container_id = self.run_container(*FOREVER)
        engine.suspend(container_id)
        engine.resume(container_id)
        engine.pause(container_id)
        self.assertIs(state.Status.PAUSED, state.read(container_id).status)

    def test_suspended_can_be_stopped_and_removed(self):
        container_id = self.run_container(*FOREVER)
        engine.suspend(container_id)
        engine.stop(container_id, 5)
        self.assertIs(state.Status.STOPPED, state.read(container_id).status)
