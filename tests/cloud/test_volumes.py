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
import json
import os
import subprocess

from openstack import exceptions
from openstack import resource
from openstack import utils

from nova_container.runtime import engine
from nova_container.runtime import state
from tests import archives
from tests.cloud import base

TIMEOUT = 120
BACKENDS = ('rbd', 'nfs')


class VolumeTestCase(base.CloudTestCase):
    """Volumes of one test, on a cloud that has them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        assert base.cloud()['volumes'], 'run tools/cloud up --volumes first'
        cls.cinder = cls.user.block_storage

    def setUp(self):
        super().setUp()
        self.volumes = []
        # After the servers that still have them.
        self.addCleanup(self.delete_volumes)

    def boot(self, image, *args, metadata=None, **fields):
        """One that does not take its time to stop."""
        return super().boot(image, *args, metadata={
            'container:stop_signal': 'SIGKILL', **(metadata or {})}, **fields)

    def volume(self, kind: str, size: int = 1, **fields):
        """A new volume, removed after the test."""
        volume = self.cinder.create_volume(size=size, volume_type=kind,
                                           **fields)
        self.volumes.append(volume)
        return self.becomes(volume, 'available')

    def delete_volumes(self) -> None:
        for volume in self.volumes:
            self.becomes(volume, 'available', ())
            self.cinder.delete_volume(volume)
        for volume in self.volumes:
            self.gone(volume)

    def gone(self, volume) -> None:
        """Wait until there is no such volume any more."""
        resource.wait_for_delete(self.cinder, volume, interval=0.5,
                                 wait=TIMEOUT)

    def delete_snapshot(self, snapshot) -> None:
        self.cinder.delete_snapshot(snapshot, ignore_missing=True)
        resource.wait_for_delete(self.cinder, snapshot, interval=0.5,
                                 wait=TIMEOUT)

    def becomes(self, volume, status: str, failures=('error',)):
        return resource.wait_for_status(
            self.cinder, volume, status, list(failures), interval=0.3,
            wait=TIMEOUT)

    def attach(self, server, volume, **fields) -> str:
        """Attach a volume and wait; the device's path."""
        self.user.compute.create_volume_attachment(
            server, volume_id=volume.id, **fields)
        found = self.becomes(volume, 'in-use')
        (device,) = (each['device'] for each in found.attachments
                     if each['server_id'] == server.id)
        return device

    def detach(self, server, volume) -> None:
        self.user.compute.delete_volume_attachment(server, volume)
        self.becomes(volume, 'available')

    def shell(self, server, script: str) -> str:
        return self.execute(server, '/bin/sh', '-ec', script).stdout.strip()

    def failed_event(self, server, action: str) -> str:
        """What Nova says of an action of the server's that failed."""
        for _ in utils.iterate_timeout(TIMEOUT, f'no {action} failed',
                                       wait=0.5):
            for entry in self.admin.compute.server_actions(server):
                if entry.action != action:
                    continue
                full = self.admin.compute.get_server_action(
                    entry.request_id, server)
                for event in full.events or ():
                    if event['result'] == 'Error':
                        return event['details'] or event['traceback']

    def tags(self, server) -> dict[str, list[str]]:
        """What the metadata service says of the server's volumes."""
        found = json.loads(self.shell(
            server, 'wget -qO- '
            'http://169.254.169.254/openstack/latest/meta_data.json'))
        return {each['path']: each['tags']
                for each in found.get('devices', ())
                if each['type'] == 'disk'}

    def host(self, server) -> str:
        return self.admin.compute.get_server(server).hypervisor_hostname

    def migrate(self, server) -> None:
        """To the other host, not confirmed yet."""
        host = self.host(server)
        self.admin.compute.migrate_server(server, host=next(
            node['name'] for node in base.cloud()['nodes']
            if node['name'] != host))
        self.status(server, 'VERIFY_RESIZE')
        self.assertEqual('VERIFY_RESIZE', self.settled(server))
        self.assertNotEqual(host, self.host(server))

    def confirm(self, server) -> None:
        """Nova names no task while it confirms."""
        self.user.compute.confirm_server_resize(server)
        self.status(server, 'ACTIVE')

    @contextlib.contextmanager
    def lost(self, host: str):
        """Nova is told that a host is down; it comes back afterwards."""
        (service,) = self.admin.compute.services(binary='nova-compute',
                                                 host=host)
        self.admin.compute.update_service_forced_down(service, forced=True)
        try:
            yield
        finally:
            name = f'nova-compute@{host}'
            pid = base.service_pid(name)
            base.kill_group(pid)
            # Nova refuses until the host has seen to what was evacuated.
            for _ in utils.iterate_timeout(TIMEOUT, 'it stays down',
                                           wait=1):
                with contextlib.suppress(exceptions.BadRequestException):
                    self.admin.compute.update_service_forced_down(
                        service, forced=False)
                    break
            base.await_new_pid(name, pid)

    def evacuate(self, server) -> None:
        """Its host is lost, with what was running there."""
        host = self.host(server)
        base.visit(host)
        engine.halt(server.id)
        with self.lost(host):
            self.admin.compute.evacuate_server(server)
            self.status(server, 'REBUILD')
            self.status(server, 'ACTIVE')
            self.assertNotEqual(host, self.host(server))
        for _ in utils.iterate_timeout(TIMEOUT, 'it is still there',
                                       wait=0.5):
            if server.id not in state.ids():
                return


class DeviceTest(VolumeTestCase):
    """A volume is a block device of the container's."""

    def test_life_of_a_device(self):
        server = self.active(self.boot(self.busybox()))
        volumes = [self.volume(kind) for kind in BACKENDS]
        devices = [self.attach(server, volume) for volume in volumes]
        self.assertEqual(['/dev/vdb', '/dev/vdc'], devices)
        sums = []
        for device in devices:
            self.assertEqual('0 0', self.shell(
                server, f'stat -c "%u %g" {device}'))
            self.assertEqual(str(1 << 30), self.shell(
                server, f'blockdev --getsize64 {device}'))
            sums.append(self.shell(
                server, f'dd if=/dev/urandom of={device} bs=1M count=4 '
                f'seek=100 conv=fsync 2>/dev/null; {self.sum_of(device)}'))

        def same(where: str) -> None:
            for device, known in zip(devices, sums):
                self.assertEqual(known, self.shell(
                    server, self.sum_of(device)), where)

        self.user.compute.reboot_server(server, 'SOFT')
        self.wait_settled(server)
        same('soft reboot')
        self.user.compute.reboot_server(server, 'HARD')
        self.wait_settled(server)
        same('hard reboot')
        self.user.compute.stop_server(server)
        self.status(server, 'SHUTOFF')
        third = self.volume('rbd')
        self.assertEqual('/dev/vdd', self.attach(server, third))
        self.user.compute.start_server(server)
        self.active(server)
        same('stop and start')
        self.shell(server, 'dd if=/dev/zero of=/dev/vdd bs=4k count=1 '
                           'conv=fsync 2>/dev/null')
        base.restart(f'nova-compute@{self.host(server)}')
        same('restart of nova-compute')
        for volume, device in zip(volumes, devices):
            self.detach(server, volume)
            self.assertEqual('gone', self.shell(
                server, f'test -e {device} || echo gone'))
        # To another server, under another name.
        other = self.active(self.boot(self.busybox()))
        for volume, known in zip(reversed(volumes), reversed(sums)):
            device = self.attach(other, volume)
            self.assertEqual(known, self.shell(other, self.sum_of(device)))
        # A server that goes lets go of its volumes.
        self.delete(other)
        self.delete(server)
        for volume in (*volumes, third):
            self.becomes(volume, 'available')

    def sum_of(self, device: str) -> str:
        return (f'dd if={device} bs=1M skip=100 count=4 2>/dev/null '
                '| sha256sum')

    def wait_settled(self, server) -> None:
        self.assertEqual('ACTIVE', self.settled(server))

    def test_no_device_but_its_own(self):
        server = self.active(self.boot(self.busybox()))
        device = self.attach(server, self.volume('rbd'))
        number = self.shell(server, f'stat -c "%t %T" {device}')
        major, minor = (int(text, 16) for text in number.split())
        for name, node in (('root', '7 0'), ('same', f'{major} {minor}')):
            made = self.execute(server, '/bin/sh', '-c',
                                f'mknod /tmp/{name} b {node}', check=False)
            self.assertNotEqual(0, made.returncode)

    def test_open_device_is_not_detached(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:command': '/bin/sh -c "until [ -e /dev/vdb ]; do '
                                 'sleep 0.2; done; exec sleep 1000000 '
                                 '</dev/vdb"'}))
        volume = self.volume('nfs')
        self.attach(server, volume)
        for _ in utils.iterate_timeout(30, 'the device is not opened',
                                       wait=0.2):
            if 'vdb' in self.shell(server, 'ls -l /proc/1/fd'):
                break
        self.user.compute.delete_volume_attachment(server, volume)
        self.failed_event(server, 'detach_volume')
        self.becomes(volume, 'in-use')
        self.user.compute.stop_server(server)
        self.status(server, 'SHUTOFF')
        self.detach(server, volume)

    def test_multiattach(self):
        volume = self.volume('multiattach')
        # On one host: the nodes of this cloud have one /dev.
        group = self.user.compute.create_server_group(
            name='test', policy='affinity')
        self.addCleanup(self.user.compute.delete_server_group, group)
        servers = [self.boot(self.busybox(), scheduler_hints={
            'group': group.id}) for _ in '12']
        first, second = map(self.active, servers)
        self.attach(first, volume)
        self.user.compute.create_volume_attachment(second,
                                                   volume_id=volume.id)
        for _ in utils.iterate_timeout(TIMEOUT, 'not attached twice',
                                       wait=0.5):
            if len(self.cinder.get_volume(volume).attachments) == 2:
                break
        self.becomes(volume, 'in-use')
        self.shell(first, 'echo hello | dd of=/dev/vdb conv=fsync '
                          '2>/dev/null')
        hello = 'dd if=/dev/vdb bs=5 count=1 2>/dev/null'
        self.assertEqual('hello', self.shell(second, hello))
        self.user.compute.delete_volume_attachment(first, volume)
        for _ in utils.iterate_timeout(TIMEOUT, 'still attached twice',
                                       wait=0.5):
            if len(self.cinder.get_volume(volume).attachments) == 1:
                break
        self.assertEqual('hello', self.shell(second, hello))
        self.detach(second, volume)

    def test_extend(self):
        server = self.active(self.boot(self.busybox()))
        volume = self.volume('rbd')
        device = self.attach(server, volume, tag='db')
        self.assertEqual({device: ['db']}, self.tags(server))
        self.extend(volume, 2)
        for _ in utils.iterate_timeout(30, 'the device does not grow',
                                       wait=0.5):
            if self.shell(server, f'blockdev --getsize64 {device}') == str(
                    2 << 30):
                break

    def extend(self, volume, size: int) -> None:
        self.cinder.extend_volume(volume, size)
        self.becomes(volume, 'in-use')
        for _ in utils.iterate_timeout(TIMEOUT, 'it does not grow',
                                       wait=0.5):
            if self.cinder.get_volume(volume).size == size:
                return

    def test_another_type_while_attached(self):
        """Cinder moves the volume, and has the driver copy it."""
        server = self.active(self.boot(self.busybox()))
        volume = self.volume('rbd')
        device = self.attach(server, volume)
        known = self.shell(
            server, f'dd if=/dev/urandom of={device} bs=1M count=4 '
            f'seek=100 conv=fsync 2>/dev/null; {self.sum_of(device)}')
        self.admin.block_storage.retype_volume(volume, 'nfs', 'on-demand')
        for _ in utils.iterate_timeout(TIMEOUT, 'it is not moved',
                                       wait=0.5):
            found = self.cinder.get_volume(volume)
            if (found.volume_type, found.status) == ('nfs', 'in-use'):
                break
        self.assertEqual(known, self.shell(server, self.sum_of(device)))
        self.detach(server, volume)

    def test_killed_while_it_gets_another_type(self):
        server = self.active(self.boot(self.busybox()))
        volume = self.volume('nfs')
        device = self.attach(server, volume)
        known = self.shell(
            server, f'dd if=/dev/urandom of={device} bs=1M count=300 '
            f'conv=fsync 2>/dev/null; {self.sum_of(device)}')
        node = next(node for node in base.cloud()['nodes']
                    if node['name'] == self.host(server))
        base.visit(node['name'])
        pid = state.read(server.id).process.pid
        self.admin.block_storage.retype_volume(volume, 'rbd', 'on-demand')
        for _ in utils.iterate_timeout(TIMEOUT, 'it stays', wait=0.02):
            if not os.path.exists(f'/proc/{pid}/root{device}'):
                break
        base.kill_computes(0, [node])
        for _ in utils.iterate_timeout(TIMEOUT, 'it stays away', wait=0.5):
            if os.path.exists(f'/proc/{pid}/root{device}'):
                break
        self.assertEqual(known, self.shell(server, self.sum_of(device)))
        # Cinder waits for ever.
        self.admin.block_storage.reset_volume_status(
            volume, status='in-use', attach_status='attached',
            migration_status='none')
        self.detach(server, volume)

    def test_snapshot_of_an_attached_volume(self):
        server = self.active(self.boot(self.busybox()))
        on_ceph, on_share = (self.volume(kind) for kind in BACKENDS)
        for volume in (on_ceph, on_share):
            self.attach(server, volume)
        good = self.cinder.create_snapshot(volume_id=on_ceph.id,
                                           is_forced=True)
        self.addCleanup(self.delete_snapshot, good)
        self.becomes(good, 'available')
        # Only the hypervisor of a virtual machine could do this one.
        bad = self.cinder.create_snapshot(volume_id=on_share.id,
                                          is_forced=True)
        self.addCleanup(self.delete_snapshot, bad)
        self.becomes(bad, 'error', ())
        self.shell(server, 'dd if=/dev/zero of=/dev/vdc bs=4k count=1 '
                           'conv=fsync 2>/dev/null')
        for volume in (on_ceph, on_share):
            self.detach(server, volume)


class MountTest(VolumeTestCase):
    """A volume's file system is mounted in the container."""

    def test_from_the_start(self):
        """The process finds the volumes that came with the request."""
        image = self.upload(base.busybox_archive(archives.tar(
            archives.directory('var/www', uid=33, gid=34))))
        volumes = [self.volume(kind) for kind in BACKENDS]
        servers = []
        for _ in '12':
            server = self.active(self.boot(
                image, block_device_mapping=[
                    {'boot_index': 0, 'uuid': image,
                     'source_type': 'image', 'destination_type': 'local'},
                    *({'uuid': volume.id, 'source_type': 'volume',
                       'destination_type': 'volume', 'tag': tag}
                      for volume, tag in zip(volumes, ('db', 'logs')))],
                metadata={
                    'container:user': 'web',
                    'container:mount:db': '/var/www',
                    f'container:mount:{volumes[1].id}': '/srv/logs',
                    'container:command':
                        '/bin/sh -c "echo $HOSTNAME >> /var/www/starts && '
                        'exec sleep 1000000"'}))
            servers.append(server)
            self.shell(server, f'until [ "$(wc -l < /var/www/starts)" = '
                       f'{len(servers)} ]; do sleep 0.1; done')
            self.assertEqual({'/dev/vdb': ['db'], '/dev/vdc': ['logs']},
                             self.tags(server))
            # Its owner is as that of the image's directory, and no device
            # can be written to behind the file system's back.
            self.assertEqual('33', self.shell(
                server, 'stat -c %u /var/www/starts'))
            self.assertEqual('gone', self.shell(
                server, 'test -e /dev/vdb || echo gone'))
            self.assertIn('nosuid,nodev', self.shell(
                server, 'grep " /srv/logs ext4 " /proc/mounts'))
            self.delete(server)
            for volume in volumes:
                self.becomes(volume, 'available')

    def test_while_it_runs(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:mount:vdb': '/data',
            'container:mount:vdc': '/srv/more:ro'}))
        first, second = self.volume('nfs'), self.volume('rbd')
        self.attach(server, first)
        self.shell(server, 'echo kept > /data/file; chown 33:34 /data/file')
        self.assertEqual('file', self.shell(server, 'ls /data'))
        self.user.compute.reboot_server(server, 'SOFT')
        self.assertEqual('ACTIVE', self.settled(server))
        self.assertEqual('kept', self.shell(server, 'cat /data/file'))
        # Blank and read-only makes no sense.
        self.user.compute.create_volume_attachment(server,
                                                   volume_id=second.id)
        self.assertIn('read-only', self.failed_event(server,
                                                     'attach_volume'))
        self.becomes(second, 'available')
        # In use it stays.
        with self.using(server, '/data/file'):
            self.user.compute.delete_volume_attachment(server, first)
            self.failed_event(server, 'detach_volume')
            self.becomes(first, 'in-use')
        self.detach(server, first)
        self.assertEqual('', self.shell(server, 'ls /data'))
        # The owner inside is the same on another server.
        other = self.active(self.boot(self.busybox(), metadata={
            f'container:mount:{first.id}': '/elsewhere'}))
        self.attach(other, first)
        self.assertEqual('kept 33 34', self.shell(
            other, 'echo $(cat /elsewhere/file) '
            '$(stat -c "%u %g" /elsewhere/file)'))

    @contextlib.contextmanager
    def using(self, server, path: str):
        pid = self.shell(server, f'sleep 1000000 < {path} > /dev/null 2>&1 '
                                 '& echo $!')
        yield
        self.shell(server, f'kill {pid}; while [ -e /proc/{pid}/fd/0 ]; do '
                           'sleep 0.1; done')

    def test_grown_volume_has_a_grown_file_system(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:mount:vdb': '/data'}))
        volume = self.volume('rbd')
        self.attach(server, volume)
        self.cinder.extend_volume(volume, 2)
        for _ in utils.iterate_timeout(TIMEOUT, 'it does not grow',
                                       wait=0.5):
            if self.cinder.get_volume(volume).size == 2:
                break
        self.becomes(volume, 'in-use')
        self.user.compute.reboot_server(server, 'HARD')
        self.assertEqual('ACTIVE', self.settled(server))
        blocks = int(self.shell(
            server, 'df -k /data | tail -1').split()[1])
        self.assertGreater(blocks, 1900 * 1024)

    def test_refusals(self):
        volume = self.volume('rbd')
        scribbled = self.active(self.boot(self.busybox()))
        self.attach(scribbled, volume)
        self.shell(scribbled, 'echo "not a file system" | dd of=/dev/vdb '
                              'conv=fsync 2>/dev/null')
        self.detach(scribbled, volume)
        server = self.active(self.boot(self.busybox(), metadata={
            'container:mount:vdb': '/data'}))
        self.user.compute.create_volume_attachment(server,
                                                   volume_id=volume.id)
        self.assertIn('neither ext4 nor xfs', self.failed_event(
            server, 'attach_volume'))
        self.becomes(volume, 'available')
        for value in ('data', '/proc/x', '/a/../b', '/data:rx'):
            fault = self.fault(self.boot(self.busybox(), metadata={
                'container:mount:vdb': value}))
            self.assertIn('container:mount:vdb', fault)


class EncryptedTest(VolumeTestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        assert base.cloud()['key_manager'], (
            'run tools/cloud up --volumes --key-manager first')
        cinder = cls.admin.block_storage
        kind = cinder.create_type(
            name='encrypted', extra_specs={'volume_backend_name': 'rbd'})
        cls.addClassCleanup(cinder.delete_type, kind)
        cinder.create_type_encryption(
            kind, provider='luks', cipher='aes-xts-plain64', key_size=256,
            control_location='front-end')

    def test_life(self):
        """Readable in the container alone, and the same next time."""
        volume = self.volume('encrypted')
        server = self.active(self.boot(self.busybox()))
        path = self.attach(server, volume)
        self.shell(server, 'yes words | head -c 1048576 | '
                   f'dd of={path} bs=64k conv=fsync')
        with open(f'/dev/rbd/volumes/volume-{volume.id}', 'rb') as file:
            content = file.read(64 << 20)
        self.assertEqual(b'LUKS', content[:4])
        self.assertNotIn(b'words', content)
        for again in (
                lambda: self.user.compute.reboot_server(server, 'HARD'),
                lambda: (self.user.compute.stop_server(server),
                         self.status(server, 'SHUTOFF'),
                         self.user.compute.start_server(server))):
            again()
            self.assertEqual('ACTIVE', self.settled(server))
            self.assertEqual('words', self.shell(server, f'head -n 1 {path}'))
        self.detach(server, volume)
        path = self.attach(server, volume)
        self.assertEqual('words', self.shell(server, f'head -n 1 {path}'))


class MovingTest(VolumeTestCase):
    """Volumes go where their server goes."""

    def test_they_move_along(self):
        on_share, on_ceph = self.volume('nfs'), self.volume('rbd')
        server = self.active(self.boot(self.busybox(), metadata={
            'container:mount:vdb': '/srv/data'}))
        self.attach(server, on_share)
        device = self.attach(server, on_ceph)
        self.shell(server, 'echo file > /srv/data/file; sync')
        self.shell(server, f'echo block | dd of={device} conv=fsync '
                           '2>/dev/null')

        def check() -> None:
            self.assertEqual('file', self.shell(server,
                                                'cat /srv/data/file'))
            self.assertEqual('block', self.shell(
                server, f'dd if={device} bs=5 count=1 2>/dev/null'))

        self.user.compute.resize_server(
            server, self.user.compute.find_flavor('c1.small').id)
        self.status(server, 'VERIFY_RESIZE')
        self.assertEqual('VERIFY_RESIZE', self.settled(server))
        check()
        self.confirm(server)
        self.migrate(server)
        check()
        self.user.compute.revert_server_resize(server)
        self.assertEqual('ACTIVE', self.settled(server))
        check()
        self.migrate(server)
        self.confirm(server)
        check()
        # All nodes of this cloud have one /dev/rbd.
        self.detach(server, on_ceph)
        self.evacuate(server)
        self.assertEqual('file', self.shell(server, 'cat /srv/data/file'))
        self.detach(server, on_share)

    def test_a_move_that_failed(self):
        """What arrived without starting has its volumes once it starts."""
        volume = self.volume('nfs')
        server = self.active(self.boot(self.busybox(), metadata={
            'container:mount:vdb': '/srv/data'}))
        self.attach(server, volume)
        self.shell(server, 'echo file > /srv/data/file; sync')
        (there,) = (node for node in base.cloud()['nodes']
                    if node['name'] != self.host(server))
        with self.no_new_containers(there):
            self.admin.compute.migrate_server(server, host=there['name'])
            self.assertEqual('ERROR', self.settled(server))
        self.becomes(volume, 'attaching')
        self.user.compute.reboot_server(server, 'HARD')
        self.assertEqual('ACTIVE', self.settled(server))
        self.assertEqual(there['name'], self.host(server))
        self.becomes(volume, 'in-use')
        self.assertEqual('file', self.shell(server, 'cat /srv/data/file'))
        self.detach(server, volume)
        self.delete(server)
        # A host looks once a minute for what has moved away for good.
        for _ in utils.iterate_timeout(TIMEOUT, 'it is left', wait=1):
            if base.host_state() == self.before:
                break

    @contextlib.contextmanager
    def no_new_containers(self, node):
        path = f'{node["state_path"]}/containers'
        subprocess.run(['chattr', '+i', path], check=True)
        try:
            yield
        finally:
            subprocess.run(['chattr', '-i', path], check=True)
