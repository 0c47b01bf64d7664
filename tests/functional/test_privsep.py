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

import dataclasses
import uuid

from oslo_privsep import priv_context

from nova_container import exception
from nova_container.privileged import console_log
from nova_container.privileged import context
from nova_container.privileged import health as privileged_health
from nova_container.privileged import link
from nova_container.runtime import console
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.runtime import stats
from nova_container.spec import command
from nova_container.spec import disk
from nova_container.spec import health
from nova_container.spec import limits
from nova_container.spec import network
from tests import archives
from tests.functional import base


class DaemonTest(base.RuntimeTestCase):
    """Everything through the real daemon, with its capabilities alone."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        context.set_client_mode(True)
        cls.addClassCleanup(context.set_client_mode, False)
        context.start(priv_context.Method.FORK)
        cls.addClassCleanup(context.stop)

    def test_life_of_a_container(self):
        image = self.add_image(archives.docker_archive(
            base.busybox_layer(),
            archives.tar(archives.entry('etc/.wh.group'))))
        container_id = self.define('/bin/sleep', '100', image=image)
        engine.create(container_id)
        device = f'tap{container_id[:8]}'
        engine.plug(container_id, network.NetworkInterface(
            'eth0', device, 'fa:16:3e:00:00:01', 1400, ('10.9.9.9/24',),
            (network.Route('0.0.0.0/0', '10.9.9.1'),), False))
        engine.start(container_id)
        engine.pause(container_id)
        self.assertIs(state.Status.PAUSED, state.read(container_id).status)
        engine.resume(container_id)
        engine.stop(container_id, 0.1)
        engine.unplug(device)
        self.assertEqual(137, state.read(container_id).exit_code)

    def test_limits_and_disks(self):
        small = disk.Disk(root=32 << 20, ephemeral=32 << 20)
        container_id = self.define(
            '/bin/sh', '-c', 'echo x > /mnt/x; exec sleep 1000',
            size=small, limit=limits.Limits(
                memory=64 << 20, disk_write_bytes=1 << 20,
                network_out=limits.Bandwidth(100000)))
        engine.create(container_id)
        device = f'tap{container_id[:8]}'
        engine.plug(container_id, network.NetworkInterface(
            'eth0', device, 'fa:16:3e:00:00:01', 1400))
        engine.start(container_id)
        engine.update(container_id, limits.Limits(
            memory=32 << 20, network_in=limits.Bandwidth(100000)))
        self.assertEqual(32 << 20, stats.read(container_id).memory.limit)
        engine.halt(container_id)
        engine.unplug(device)
        engine.define(dataclasses.replace(
            self.defined, disk=disk.Disk(root=64 << 20, ephemeral=64 << 20)))
        self.assertEqual(disk.Disk(root=64 << 20, ephemeral=64 << 20),
                         engine.disks(container_id))
        engine.create(container_id)
        engine.start(container_id)

    def test_command_health_and_log(self):
        container_id = self.define('/bin/sh', '-c', 'echo first; sleep 1000')
        self.redefine(container_id, health=health.Healthcheck(
            ('/bin/true',)), kind='machine')
        engine.create(container_id)
        engine.start(container_id)
        done = engine.execute(container_id, command.Command(
            ('/bin/sh', '-c', 'echo out; echo err >&2; exit 3')))
        self.assertEqual(engine.Execution(3, b'out\n', b'err\n', False), done)
        with self.assertRaises(exception.ProcessInvalid):
            engine.execute(container_id, command.Command(('/nowhere',)))
        self.assertEqual('healthy', privileged_health.check(container_id))
        self.assertEqual('healthy', state.read(container_id).health)
        console_log.keep_all()
        while console.head(container_id, 100) != b'first\n':
            self.assertIsNotNone(state.read(container_id).process)
        engine.halt(container_id, 1)
        self.assertEqual(1, state.due(container_id))

    def test_errors_keep_their_class_and_words(self):
        container_id = self.define('/bin/nowhere')
        with self.assertRaisesRegex(exception.ProcessInvalid, 'nowhere'):
            engine.create(container_id)
        with self.assertRaises(exception.ContainerNotFound):
            engine.create(str(uuid.uuid4()))
        with self.assertRaises(exception.ImageInvalid):
            self.add_image(archives.docker_archive(archives.tar(
                archives.entry('../x', b'y'))))

    def test_what_a_caller_that_was_taken_over_may_try(self):
        for bad in ('../../etc', '/etc', '', None, 7):
            with self.assertRaises(exception.InvalidSpec):
                engine.halt(bad)
            with self.assertRaises(exception.InvalidSpec):
                engine.undefine(bad)
            with self.assertRaises(exception.InvalidSpec):
                privileged_health.check(bad)
            with self.assertRaises(exception.InvalidSpec):
                console_log.read_tail(bad, 1)
        with self.assertRaises(exception.NetworkFailed):
            link.unplug('lo')
