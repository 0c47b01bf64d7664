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

"""Resize and migration by the driver over the real runtime.

One host is both ends of a move; Glance is in memory.
"""

import os
from unittest import mock
import uuid

from nova.compute import vm_states
import nova.conf
from nova import exception as nova_exception
from nova.network import model
from nova import objects
import os_vif

from nova_container.compute import courier
from nova_container.compute import device_metadata
from nova_container.compute import recovery
from nova_container import driver as container_driver
from nova_container import exception
from nova_container.privileged import place
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import command
from nova_container.spec import disk
from tests import archives
from tests.functional import base

objects.register_all()
os_vif.initialize()

CONF = nova.conf.CONF

_HOST = 'here'
_ELSEWHERE = '198.51.100.1'


class Courier:
    """What is in Glance of each server."""

    def __init__(self):
        self._archives = {}

    def send(self, instance, file):
        self._archives[instance.uuid] = file.read()

    def waiting(self, instance):
        return instance.uuid in self._archives

    def fetch(self, instance, file):
        if not self.waiting(instance):
            raise exception.TransferFailed(f'{instance.uuid} is not there')
        file.write(self._archives[instance.uuid])

    def forget(self, server):
        self._archives.pop(server, None)


class MovingTest(base.RuntimeTestCase):

    def setUp(self):
        super().setUp()
        glance = self.enterContext(
            mock.patch('nova.image.glance.API', autospec=True))
        glance.return_value.get.return_value = {'status': 'active'}
        self.enterContext(mock.patch.object(courier, 'service_context',
                                            autospec=True))
        self.enterContext(mock.patch.object(courier, 'Courier', Courier))
        self.enterContext(mock.patch.object(
            objects.Instance, 'get_by_uuid', self.get_instance))
        self.enterContext(mock.patch.object(device_metadata, 'save',
                                            autospec=True))
        self.servers = {}
        self.neutron = mock.MagicMock()
        self.begin_service()
        self.addCleanup(lambda: self.driver.cleanup_host(_HOST))

    def begin_service(self):
        self.driver = container_driver.ContainerDriver(self.neutron)
        self.driver.init_host(_HOST)

    def get_instance(self, context, uuid, **kwargs):
        try:
            return self.servers[uuid]
        except KeyError:
            raise nova_exception.InstanceNotFound(instance_id=uuid)

    def boot(self, flavor=None, config_drive=''):
        image = self.add_image(archives.docker_archive(base.busybox_layer()))
        server = objects.Instance(
            id=1, uuid=str(uuid.uuid4()), project_id='p', host=_HOST,
            vm_state=vm_states.ACTIVE, task_state=None, hostname='test',
            image_ref=image.id, flavor=flavor or self.flavor(),
            metadata={'container:command': 'sleep 1000000'},
            system_metadata={}, user_data=None, key_data=None,
            numa_topology=None, trusted_certs=None, config_drive=config_drive,
            info_cache=objects.InstanceInfoCache(
                network_info=model.NetworkInfo([])))
        server.save = mock.Mock()
        self.servers[server.uuid] = server
        self.addCleanup(engine.discard, server.uuid)
        self.addCleanup(lambda: self.driver.destroy(None, server, []))
        self.driver.spawn(None, server, objects.ImageMeta(
            container_format='docker', disk_format='raw'), [], None, {})
        return server

    @staticmethod
    def flavor(root=0, ephemeral=0):
        return objects.Flavor(id=1, vcpus=1, memory_mb=128, swap=0,
                              root_gb=root, ephemeral_gb=ephemeral,
                              extra_specs={})

    def sh(self, server, script):
        done = engine.execute(server.uuid,
                              command.Command(('/bin/sh', '-c', script)))
        self.assertEqual(0, done.exit_code, done)
        return done.stdout.decode()

    def leave(self, server, dest=None, flavor=None):
        self.driver.migrate_disk_and_power_off(
            None, server, dest or CONF.my_ip, flavor or server.flavor, [])

    def arrive(self, server):
        self.driver.finish_migration(None, None, server, '{}', [], None,
                                     False, None)

    def reboot(self, server):
        self.driver.reboot(None, server, [], 'HARD')

    @staticmethod
    def spooled():
        return os.listdir(place.state('spool'))

    def test_back_on_its_host_with_what_it_has_there(self):
        server = self.boot()
        self.sh(server, 'echo old >/srv/which')
        self.leave(server)
        # Nova fails here, and the user goes on.
        self.reboot(server)
        self.sh(server, 'echo new >/srv/which')
        self.leave(server, _ELSEWHERE)
        # There it was confirmed, and what it sends back is the same.
        engine.discard(server.uuid)
        self.arrive(server)
        self.assertEqual('new\n', self.sh(server, 'cat /srv/which'))
        self.assertEqual([], self.spooled())

    def test_config_drive_stays_and_asks_nobody_at_a_reboot(self):
        drive = self.enterContext(mock.patch(
            'nova.api.metadata.base.InstanceMetadata', autospec=True))
        drive.return_value.metadata_for_config_drive.return_value = [
            ('openstack/latest/meta_data.json', 'first')]
        server = self.boot(config_drive='True')
        drive.side_effect = nova_exception.NovaException('Neutron is away')
        self.reboot(server)
        self.assertEqual('first', self.sh(
            server, 'cat /config-drive/openstack/latest/meta_data.json'))

    def test_service_ended_between_leaving_and_arriving(self):
        server = self.boot()
        self.sh(server, 'echo mine >/srv/which')
        self.leave(server)
        # As the end of its process does.
        self.driver._drop_kept(server)
        self.driver.cleanup_host(_HOST)
        self.begin_service()
        self.arrive(server)
        self.assertEqual('mine\n', self.sh(server, 'cat /srv/which'))
        self.assertEqual([], self.spooled())
        # It can go back, too.
        self.sh(server, 'echo lost >/srv/which')
        self.driver.destroy(None, server, [])
        self.driver.finish_revert_migration(None, server, [], None)
        self.assertEqual('mine\n', self.sh(server, 'cat /srv/which'))

    def test_image_by_the_id_of_a_server_is_no_server(self):
        """Whoever uploads an image may choose its id."""
        server = self.boot()
        mine = self.driver._images.of(server)
        store = self.driver._images.store
        fetched = []

        def fetch(file):
            fetched.append(file)
            layer = base.busybox_layer()
            file.write(archives.docker_archive(
                layer, raw_config=archives.config([layer], config={
                    'Cmd': ['/bin/theirs']})))

        theirs = store.ensure(server.uuid, fetch)
        self.assertEqual(1, len(fetched))
        self.assertEqual(('/bin/theirs',), theirs.config.cmd)
        self.assertEqual(mine, self.driver._images.of(server))

    def test_records_of_an_earlier_version(self):
        server = self.boot()
        store = self.driver._images.store
        own = f'server-{server.uuid}'
        known = store.record(own)
        for name in store.records():
            if name.startswith('server-'):
                store.remove(name)
        store.adopt(server.uuid, known)
        self.driver.cleanup_host(_HOST)
        self.begin_service()
        store = self.driver._images.store
        self.assertEqual(known, store.record(own))
        self.assertIsNone(store.record(server.uuid))

    def test_deleted_between_leaving_and_arriving(self):
        server = self.boot()
        self.leave(server)
        self.driver.destroy(None, server, [])
        self.assertEqual([], self.spooled())

    def test_only_copy_stays_whatever_state_the_server_is_given(self):
        server = self.boot()
        self.sh(server, 'echo mine >/srv/which')
        self.leave(server)
        server.vm_state = vm_states.ACTIVE
        recovery.sweep(None, _HOST, self.driver._courier)
        self.reboot(server)
        self.assertEqual('mine\n', self.sh(server, 'cat /srv/which'))

    def test_what_has_moved_for_good_is_removed(self):
        elsewhere, arrived, deleted = (self.boot() for _ in range(3))
        for server in (elsewhere, arrived):
            self.leave(server)
        self.leave(deleted, _ELSEWHERE)
        elsewhere.host = 'there'
        self.arrive(arrived)
        del self.servers[deleted.uuid]
        recovery.sweep(None, _HOST, self.driver._courier)
        self.assertEqual([], state.all_parked())
        self.assertFalse(self.driver._courier.waiting(deleted))
        self.assertEqual([arrived.uuid], state.ids())

    def test_goes_back_to_what_it_was_made_of_after_a_long_time(self):
        server = self.boot()
        self.leave(server, _ELSEWHERE)
        CONF.set_override('remove_unused_original_minimum_age_seconds', -1,
                          'image_cache')
        self.addCleanup(
            CONF.clear_override,
            'remove_unused_original_minimum_age_seconds', 'image_cache')
        self.driver.manage_image_cache(None, [])
        self.driver.finish_revert_migration(None, server, [], None)
        server.metadata = {'container:command': 'sleep 2000000'}
        self.reboot(server)
        self.assertIn('2000000', self.sh(server, 'cat /proc/1/cmdline'))
        self.leave(server, _ELSEWHERE)

    def test_goes_on_with_larger_disks_than_those_of_its_flavor(self):
        server = self.boot(self.flavor(root=1))
        self.sh(server, 'echo mine >/srv/which')
        larger = self.flavor(root=2, ephemeral=1)
        self.leave(server, flavor=larger)
        before, server.flavor = server.flavor, larger
        wait = self.neutron.wait_for_instance_event
        wait.side_effect = nova_exception.InstanceEventTimeout
        with self.assertRaises(nova_exception.NovaException):
            self.arrive(server)
        # Nova takes the flavor back.
        server.flavor, wait.side_effect = before, None
        self.reboot(server)
        self.assertEqual('mine\n', self.sh(server, 'cat /srv/which'))
        self.sh(server, 'fallocate -l 1200000000 /srv/data; echo >/mnt/file')
        engine.discard(server.uuid)

        # Of both disks, more than the flavor allows.
        for script in ('rm /srv/data', 'rm /mnt/file'):
            with self.assertRaisesRegex(nova_exception.InstanceFaultRollback,
                                        'remove files'):
                self.leave(server, _ELSEWHERE)
            self.sh(server, script)
        self.leave(server, _ELSEWHERE)
        engine.discard(server.uuid)
        self.arrive(server)
        self.assertEqual('mine\n', self.sh(server, 'cat /srv/which'))
        self.assertEqual(disk.Disk(root=1 << 30), engine.disks(server.uuid))
