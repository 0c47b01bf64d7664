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

from tests import archives
from tests.cloud import base
from tests.cloud import test_volumes


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
        (attachment,) = self.user.compute.volume_attachments(server)
        return self.cinder.get_volume(attachment.volume_id)

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
                'srv/of-the-image', b'yes\n')))))
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
        # "openstack server image create": a snapshot of the volume.
        image = self.user.compute.create_server_image(
            server, 'test-boot-volume', wait=True)
        self.addCleanup(self.user.image.delete_image, image)
        (snapshot,) = self.cinder.snapshots(volume_id=volume.id)
        self.addCleanup(self.delete_snapshot, snapshot)
        self.becomes(snapshot, 'available')
        self.shell(server, 'echo lost > /srv/file')
        copy = self.active(self.boot(image.id, name='copy'))
        copied = self.root_of(copy)
        self.check(copy)
        # It names an image, which is empty.
        self.migrate(copy)
        self.confirm(copy)
        self.check(copy)
        self.delete(copy)
        self.gone(copied)
        self.delete_snapshot(snapshot)
        self.delete(server)
        self.gone(volume)

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
