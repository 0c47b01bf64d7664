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

"""The compute driver over the real runtime; Nova's database is in memory."""

import contextlib
import dataclasses
import threading
from unittest import mock
import uuid

from nova.compute import power_state
from nova.compute import task_states
from nova.compute import vm_states
from nova import exception as nova_exception
from nova.network import model
from nova import objects
from nova.virt import event as virtevent
import os_vif

from nova_container.compute import intent
from nova_container.compute import lifecycle
from nova_container.compute import port
from nova_container.compute import volumes
from nova_container import driver as container_driver
from nova_container.privileged import definition
from nova_container.privileged import process as processes
from nova_container.runtime import engine
from nova_container.runtime import monitor
from nova_container.runtime import state
from nova_container.runtime import volume
from nova_container.spec import command
from nova_container.spec import container
from nova_container.spec import disk
from nova_container.spec import health
from nova_container.spec import network
from nova_container.spec import restart
from tests.functional import base
from tests.functional import test_volume

objects.register_all()
os_vif.initialize()

_TIMEOUT = 60
_WELL = ('/bin/sh', '-c', 'touch /srv/well; exec sleep 1000000')


class Database:
    """Servers by id, as nova-conductor would give and take them."""

    def __init__(self):
        self.changed = threading.Condition()
        self.metadata = {}
        self.vm_state = {}
        self.task_state = {}

    def get(self, context, uuid, expected_attrs=None, **kwargs):
        with self.changed:
            if uuid not in self.metadata:
                raise nova_exception.InstanceNotFound(instance_id=uuid)
            instance = objects.Instance(
                context, uuid=uuid, id=1, project_id='p',
                metadata=dict(self.metadata[uuid]), system_metadata={},
                user_data=None, image_ref='i',
                vm_state=self.vm_state[uuid],
                task_state=self.task_state[uuid],
                flavor=objects.Flavor(extra_specs={}),
                info_cache=objects.InstanceInfoCache(
                    network_info=model.NetworkInfo([])))
        instance.save = lambda: self.put(instance)
        return instance

    def put(self, instance):
        with self.changed:
            self.metadata[instance.uuid] = dict(instance.metadata)
            self.changed.notify_all()


class VirtApi:
    """Servers without ports wait for no event."""

    def wait_for_instance_event(self, instance, events, **kwargs):
        return contextlib.nullcontext()


class DriverTestCase(base.RuntimeTestCase):
    """A driver whose Nova is this test."""

    def setUp(self):
        super().setUp()
        self.database = Database()
        self.events = []
        self.enterContext(mock.patch.object(objects.Instance, 'get_by_uuid',
                                            self.database.get))
        self.enterContext(mock.patch('nova.image.glance.API',
                                     autospec=True))
        self.driver = None
        self.begin_service()
        self.addCleanup(lambda: self.driver.cleanup_host('host'))

    def begin_service(self):
        self.driver = container_driver.ContainerDriver(VirtApi())
        self.driver.emit_event = self.on_event
        self.driver.init_host('host')

    def on_event(self, event):
        if event.get_transition() == virtevent.EVENT_LIFECYCLE_STOPPED:
            with self.database.changed:
                self.events.append(event.get_instance_uuid())
                self.database.changed.notify_all()

    def boot(self, *args, **fields):
        container_id = self.define(*args)
        self.redefine(container_id, **fields)
        return self.boot_defined(container_id)

    def boot_defined(self, container_id):
        self.database.metadata[container_id] = {'mine': 'kept'}
        self.database.vm_state[container_id] = vm_states.ACTIVE
        self.database.task_state[container_id] = None
        instance = self.database.get(None, container_id)
        self.addCleanup(self.driver.destroy, None, instance, [])
        self.driver._boot(instance, [])
        return instance

    def await_metadata(self, instance, **words):
        wanted = {f'container:{key}': value for key, value in words.items()}
        with self.database.changed:
            self.assertTrue(self.database.changed.wait_for(
                lambda: wanted.items()
                <= self.database.metadata[instance.uuid].items(), _TIMEOUT),
                self.database.metadata)
        self.assertEqual('kept', self.database.metadata[instance.uuid]['mine'])

    def await_started_again(self, instance, before):
        """Wait until the container has another process."""
        deadline = threading.Event()
        for _ in range(_TIMEOUT * 20):
            current = state.read(instance.uuid)
            if (current.status is state.Status.RUNNING
                    and current.process != before):
                return
            deadline.wait(0.05)
        self.fail(f'{current} was not started again')

    def power(self, instance):
        return self.driver.get_info(instance).state


class DriverTest(DriverTestCase):

    def test_exit_is_told_and_written_to_metadata(self):
        instance = self.boot('/bin/sh', '-c', 'exit 3')
        self.await_metadata(instance, exit_code='3',
                            exit_reason='exited with code 3')
        with self.database.changed:
            self.assertTrue(self.database.changed.wait_for(
                lambda: instance.uuid in self.events, _TIMEOUT))
        self.assertEqual(power_state.SHUTDOWN, self.power(instance))

    def test_restart_policy_keeps_it_running(self):
        instance = self.boot('/bin/sleep', '1000000',
                             restart=restart.RestartPolicy('always'))
        before = state.read(instance.uuid).process
        processes.send_signal(before, 9)
        self.await_started_again(instance, before)
        self.await_metadata(instance, exit_code='137',
                            exit_reason='ended by SIGKILL')
        self.assertEqual([], self.events)
        self.assertEqual(power_state.RUNNING, self.power(instance))

    def test_power_off_ends_it_for_good(self):
        instance = self.boot(
            '/bin/sh', '-c', 'trap "exit 0" TERM; echo ready; '
            'while :; do sleep 0.1; done',
            restart=restart.RestartPolicy('always'))
        self.await_text(instance.uuid, 'ready')
        self.driver.power_off(instance, timeout=20)
        self.await_metadata(instance, exit_code='0')
        self.assertEqual(power_state.SHUTDOWN, self.power(instance))
        self.assertFalse(self.driver._restarter.pending(instance.uuid))

    def test_rebuild_after_one_that_has_left_no_container(self):
        instance = self.boot('/bin/sleep', '1000000')
        engine.undefine(instance.uuid)
        with self.assertRaises(nova_exception.InstanceNotFound):
            self.driver.power_off(instance, timeout=20)
        # Nova's rebuild begins with this.
        instance.task_state = task_states.REBUILDING
        self.driver.power_off(instance, timeout=20)

    def test_crash_loop_is_not_powered_off_and_can_be(self):
        instance = self.boot('/bin/false',
                             restart=restart.RestartPolicy('always'))
        while state.read(instance.uuid).restarts < 4:
            self.assertIn(self.power(instance),
                          (power_state.NOSTATE, power_state.RUNNING))
        self.driver.power_off(instance)
        self.assertEqual(power_state.SHUTDOWN, self.power(instance))
        self.assertIsNone(state.read(instance.uuid).process)

    def test_not_started_again_once_nova_has_stopped_it(self):
        instance = self.boot('/bin/sleep', '1000000',
                             restart=restart.RestartPolicy('always'))
        self.database.vm_state[instance.uuid] = vm_states.STOPPED
        processes.send_signal(state.read(instance.uuid).process, 9)
        self.await_metadata(instance, exit_code='137')
        while self.driver._restarter.pending(instance.uuid):
            pass
        self.assertIsNone(state.read(instance.uuid).process)

    def test_ended_while_the_service_was_away(self):
        instance = self.boot('/bin/sleep', '1000000',
                             restart=restart.RestartPolicy('on-failure'))
        self.driver.cleanup_host('host')
        before = state.read(instance.uuid).process
        processes.send_signal(before, 9)
        self.finish(instance.uuid)
        self.begin_service()
        self.await_started_again(instance, before)

    def test_service_killed_in_the_middle_of_a_restart(self):
        instance = self.boot('/bin/sleep', '1000000',
                             restart=restart.RestartPolicy('always'))
        self.driver.cleanup_host('host')
        before = state.read(instance.uuid).process
        engine.halt(instance.uuid, 1)
        self.begin_service()
        self.await_started_again(instance, before)

    def test_removed_while_the_service_starts(self):
        """By the helper of the service that was killed."""
        container_id = self.run_container('/bin/sleep', '1000000')
        self.driver.cleanup_host('host')
        watch = monitor.ExitMonitor.watch

        def remove(own, found):
            engine.undefine(container_id)
            watch(own, found)

        with mock.patch.object(monitor.ExitMonitor, 'watch', remove):
            self.begin_service()

    def test_ends_while_the_service_starts(self):
        """Nova's start takes no error here: no other server would come up."""
        instance = self.boot('/bin/sleep', '1000000')
        interface = network.NetworkInterface('eth0', 'nct0',
                                             'fa:16:3e:00:00:01', 1442)

        def plug(*_):
            processes.send_signal(state.read(instance.uuid).process, 9)
            self.finish(instance.uuid)
            engine.plug(instance.uuid, interface)

        with mock.patch.object(port, 'plug', autospec=True,
                               side_effect=plug) as called:
            self.driver.plug_vifs(instance, [])
        called.assert_called_once()

    def test_interfaces_wait_for_who_starts_it(self):
        instance = self.boot('/bin/sleep', '1000000')
        plugged = threading.Event()
        self.enterContext(mock.patch.object(
            port, 'plug', lambda *_: plugged.set()))
        thread = threading.Thread(target=self.driver.plug_vifs,
                                  args=(instance, []))
        with lifecycle.exclusive(instance.uuid):
            thread.start()
            self.assertFalse(plugged.wait(1))
        thread.join(_TIMEOUT)
        self.assertTrue(plugged.is_set())

    def test_health_is_written_to_metadata(self):
        instance = self.boot(*_WELL, health=health.Healthcheck(
            ('/bin/test', '-e', '/srv/well'), interval=1.0, retries=1))
        self.await_metadata(instance, health='healthy')
        self.driver.power_off(instance)
        self.await_metadata(instance, exit_code='137')
        self.assertNotIn('container:health',
                         self.database.metadata[instance.uuid])


class RescueTest(DriverTestCase):

    def setUp(self):
        super().setUp()
        for name, found in (('ensure', self.image), ('properties', {}),
                            ('of', None)):
            self.enterContext(mock.patch.object(
                self.driver._images, name, autospec=True,
                return_value=found))

    def rescue(self, instance, *args):
        spec = dataclasses.replace(definition.load_own(instance.uuid),
                                   process=container.Process(args))
        with mock.patch.object(intent, 'rescue', autospec=True,
                               return_value=spec):
            self.driver.rescue(None, instance, [], objects.ImageMeta(id='i'),
                               'secret', None, None)

    def system(self, instance):
        """Which one runs."""
        return engine.execute(instance.uuid, command.Command((
            '/bin/sh', '-c', 'test -e /rescue/bin && echo rescue || echo own'
        ))).stdout.decode().strip()

    def test_failed_one_is_over(self):
        instance = self.boot('/bin/sleep', '1000000')
        with self.assertRaises(nova_exception.InvalidInput):
            self.rescue(instance, '/bin/nothing')
        self.assertEqual(power_state.SHUTDOWN, self.power(instance))
        self.assertFalse(state.rescued(instance.uuid))
        instance.vm_state = vm_states.ERROR
        self.driver.reboot(None, instance, [], 'HARD')
        self.assertEqual('own', self.system(instance))

    def test_ends_with_a_hard_reboot_if_nova_does_not_know_of_it(self):
        instance = self.boot('/bin/sleep', '1000000')
        self.rescue(instance, '/bin/sleep', '1000000')
        self.driver.reboot(None, instance, [], 'HARD')
        self.assertEqual('own', self.system(instance))

    def test_goes_on_after_a_restart_of_the_host(self):
        instance = self.boot('/bin/sleep', '1000000')
        self.rescue(instance, '/bin/sleep', '1000000')
        instance.vm_state = vm_states.RESCUED
        engine.halt(instance.uuid)
        self.driver.resume_state_on_host_boot(None, instance, [], None)
        self.assertEqual('rescue', self.system(instance))


class RebuildTest(test_volume.VolumeTestCase, DriverTestCase):
    """A server that boots from a volume, and has another one."""

    OFFSET = 1 << 20

    def setUp(self):
        super().setUp()
        self.paths = {str(uuid.uuid4()): self.device(96 << 20)
                      for _ in range(2)}
        self.boot_volume, self.data_volume = self.paths
        with open(self.paths[self.boot_volume], 'r+b') as file:
            file.write(b'archive')
        self.enterContext(mock.patch.object(
            volumes, '_brick', autospec=True, side_effect=self.brick))

    def brick(self, connection_info):
        return mock.Mock(connect_volume=lambda properties: {
            'path': self.paths[connection_info['serial']]})

    @staticmethod
    def connection(name):
        return {'driver_volume_type': 'iscsi', 'data': {}, 'serial': name}

    def boot_from_volume(self, *args):
        container_id = self.define(*args, size=disk.Disk(
            boot=disk.BootVolume(self.boot_volume, self.OFFSET)))
        volumes.connect(None, container_id, self.connection(self.boot_volume))
        instance = self.boot_defined(container_id)
        volumes.attach(None, instance, self.connection(self.data_volume),
                       '/dev/vdb')
        self.inside(container_id, 'echo kept >/srv/file')
        return instance

    def rebuild(self, instance, **fields):
        """As far as the driver goes; Nova does the rest."""
        with self.assertRaises(NotImplementedError):
            self.driver.rebuild(
                context=None, instance=instance, network_info=[],
                block_device_info={'block_device_mapping': [
                    {'boot_index': index,
                     'connection_info': self.connection(name)}
                    for index, name in ((None, self.data_volume),
                                        (0, self.boot_volume))]}, **fields)

    def content(self, name):
        with open(self.paths[name], 'rb') as file:
            return file.read().strip(b'\0')

    def test_processes_end_as_they_wish(self):
        instance = self.boot_from_volume(
            '/bin/sh', '-c', 'trap "echo ended | dd of=/dev/vdb conv=fsync; '
            'exit 0" TERM; echo ready; while :; do sleep 0.1; done')
        self.await_text(instance.uuid, 'ready')
        self.rebuild(instance, reimage_boot_volume=True)
        self.assertEqual(b'', self.content(self.boot_volume))
        self.assertEqual(b'ended\n', self.content(self.data_volume))

    def test_refused_one_leaves_all_as_it_is(self):
        instance = self.boot_from_volume('/bin/sleep', '1000000')
        self.rebuild(instance, reimage_boot_volume=True,
                     preserve_ephemeral=True)
        self.rebuild(instance, reimage_boot_volume=False)
        self.assertEqual('kept', self.inside(instance.uuid, 'cat /srv/file'))

    def test_after_a_restart_of_the_host(self):
        instance = self.boot_from_volume('/bin/sleep', '1000000')
        self.driver.power_off(instance)
        for name in self.paths:
            volume.disconnect(name)
        self.rebuild(instance, reimage_boot_volume=True)
        self.assertEqual(b'', self.content(self.boot_volume))

    def test_back_from_another_host(self):
        instance = self.boot_from_volume('/bin/sleep', '1000000')
        self.driver.power_off(instance)
        volumes.disconnect_all(None, instance)
        self.rebuild(instance, reimage_boot_volume=True)
        self.assertEqual(b'', self.content(self.boot_volume))

    def test_once_more_after_one_that_failed(self):
        instance = self.boot_from_volume('/bin/sleep', '1000000')
        self.driver.destroy(None, instance, [])
        self.rebuild(instance, reimage_boot_volume=True)
        self.assertEqual(b'', self.content(self.boot_volume))
