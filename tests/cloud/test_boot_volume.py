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

"""Servers whose root disk is a volume."""

from openstack import exceptions
from openstack import utils

from tests import archives
from tests.cloud import base
from tests.cloud import test_volumes


# Without ever asking for it to be brought to a disk.
_COUNT = """setsid sh -c '
n=0; while :; do n=$((n+1)); echo $n >> /srv/n; echo $n >> /data/n; done
' </dev/null >/dev/null 2>&1 & echo $! > /tmp/counter
until [ -s /data/n ]; do sleep 0.1; done"""


class BootVolumeTest(test_volumes.VolumeTestCase):

    def from_volume(self, source: str, uuid: str, kind: str | None = None,
                    delete: bool = False, **fields):
        """A server, asked for, whose volume Nova makes or takes."""
        root = {'boot_index': 0, 'source_type': source, 'uuid': uuid,
                'destination_type': 'volume', 'volume_size': 1,
                'delete_on_termination': delete}
        if kind is not None:
            root['volume_type'] = kind
        server = self.boot(None, block_device_mapping=[root], **fields)
        return server

    def root_of(self, server):
        """Its volume."""
        return self.volumes_of(server)['/dev/vda']

    def volumes_of(self, server) -> dict:
        """Its volumes, by device."""
        return {found.device: self.cinder.get_volume(found.volume_id)
                for found in self.user.compute.volume_attachments(server)}

    def check(self, server, status: str = 'ACTIVE') -> None:
        self.assertEqual(status, self.settled(server))
        self.assertEqual('kept 33 34', self.shell(
            server, 'echo $(cat /srv/file) $(stat -c "%u %g" /srv/file)'))
        # Of the image.
        self.shell(server, 'test -x /bin/busybox')

    def keep(self, server) -> None:
        self.shell(server, 'echo kept > /srv/file; chown 33:34 /srv/file; '
                           'sync')

    def test_life(self):
        """From an image, through everything, to a copy of what became of it.
        """
        server = self.active(self.from_volume(
            'image', self.busybox(), 'rbd', delete=True))
        volume = self.root_of(server)
        self.assertEqual('/dev/vda', volume.attachments[0]['device'])
        self.keep(server)
        for kind in ('SOFT', 'HARD'):
            self.user.compute.reboot_server(server, kind)
            self.check(server)
        self.user.compute.stop_server(server)
        self.status(server, 'SHUTOFF')
        self.user.compute.start_server(server)
        self.check(server)
        # Another image; what was written is gone with the old one.
        self.user.compute.rebuild_server(server, image=self.upload(
            base.busybox_archive(archives.tar(archives.entry(
                'srv/of-the-image', b'yes\n'))), properties={
                    'img_hv_type': 'docker', 'os_require_quiesce': 'true'}))
        self.status(server, 'REBUILD')
        self.status(server, 'ACTIVE')
        self.assertEqual('of-the-image', self.shell(server, 'ls /srv'))
        self.keep(server)
        # To the other host, back, and there for good.
        host = self.host(server)
        self.migrate(server)
        self.check(server, 'VERIFY_RESIZE')
        self.user.compute.revert_server_resize(server)
        self.check(server)
        self.assertEqual(host, self.host(server))
        self.migrate(server)
        self.confirm(server)
        self.check(server)
        self.assertNotEqual(host, self.host(server))
        image, snapshots = self.snapshot(server)
        self.shell(server, 'echo lost > /srv/file')
        copy = self.active(self.boot(image.id, name='copy', metadata={
            'container:mount:vdb': '/data'}))
        copied = self.volumes_of(copy)
        self.check(copy)
        self.check_numbers(copy)
        # It names an image, which is empty.
        self.migrate(copy)
        self.confirm(copy)
        self.check(copy)
        self.delete(copy)
        for each in copied.values():
            self.gone(each)
        for snapshot in snapshots:
            self.delete_snapshot(snapshot)
        self.delete(server)
        self.gone(volume)

    def snapshot(self, server):
        """"openstack server image create": snapshots of the volumes, while a
        process writes to both; the image, and the snapshots.
        """
        self.user.compute.set_server_metadata(
            server, **{'container:mount:vdb': '/data'})
        data = self.volume('rbd')
        self.attach(server, data, delete_on_termination=True)
        self.volumes.remove(data)
        self.shell(server, _COUNT)
        self.written = int(self.shell(server, 'tail -n 1 /data/n'))
        image = self.user.compute.create_server_image(
            server, 'test-boot-volume', wait=True)
        self.addCleanup(self.user.image.delete_image, image)
        snapshots = []
        for volume in self.volumes_of(server).values():
            (snapshot,) = self.cinder.snapshots(volume_id=volume.id)
            self.addCleanup(self.delete_snapshot, snapshot)
            snapshots.append(self.becomes(snapshot, 'available'))
        for _ in utils.iterate_timeout(30, 'it is still held', wait=0.2):
            done = self.execute(server, '/bin/sh', '-c', 'tail -n 1 /data/n; '
                                'sleep 0.3; tail -n 1 /data/n', check=False)
            if done.returncode == 0:
                break
        before, after = map(int, done.stdout.split())
        self.assertGreater(after, before)
        self.shell(server, 'kill -9 $(cat /tmp/counter)')
        return image, snapshots

    def check_numbers(self, server) -> None:
        """All that was written is there, up to one moment on both."""
        root, data = (int(self.shell(server, f'tail -n 1 /{name}/n'))
                      for name in ('srv', 'data'))
        self.assertGreaterEqual(data, self.written)
        self.assertIn(root - data, (0, 1))

    def test_volume_outlives_servers(self):
        """On a share; the second server is on whatever host."""
        volume = self.volume('nfs', image_id=self.busybox())
        first = self.active(self.from_volume('volume', volume.id))
        self.keep(first)
        self.delete(first)
        self.becomes(volume, 'available')
        second = self.active(self.from_volume('volume', volume.id))
        self.check(second)
        self.evacuate(second)
        self.check(second)
        with self.assertRaises(exceptions.HttpException):
            self.user.compute.rescue_server(second)
        self.delete(second)

    def test_nothing_to_boot(self):
        volume = self.volume('rbd')
        self.cinder.set_volume_bootable_status(volume, True)
        self.assertIn('not made of an image', self.fault(
            self.from_volume('volume', volume.id)))
