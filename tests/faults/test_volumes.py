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

from openstack import exceptions
from openstack import utils

from tests.cloud import base
from tests.cloud import test_volumes


class KillTest(test_volumes.VolumeTestCase):
    """nova-compute killed while it is at work on volumes."""

    def settled_volume(self, volume) -> str:
        """Its status, once Nova and Cinder are done with it."""
        for _ in utils.iterate_timeout(
                test_volumes.TIMEOUT, 'it does not settle', wait=0.5):
            status = self.cinder.get_volume(volume).status
            if status in ('available', 'in-use', 'error'):
                return status

    def test_attach_and_detach(self):
        server = self.active(self.boot(self.busybox()))
        for kind in test_volumes.BACKENDS:
            volume = self.volume(kind)
            for moment in (0.3, 1.2):
                self.user.compute.create_volume_attachment(
                    server, volume_id=volume.id)
                base.kill_computes(moment)
                status = self.settled_volume(volume)
                self.assertIn(status, ('available', 'in-use'), moment)
                if status == 'available':
                    self.attach(server, volume)
                self.shell(server, 'dd if=/dev/zero of=/dev/vdb bs=4k '
                                   'count=1 conv=fsync 2>/dev/null')
                self.user.compute.delete_volume_attachment(server, volume)
                base.kill_computes(moment)
                status = self.settled_volume(volume)
                self.assertIn(status, ('available', 'in-use'), moment)
                if status == 'in-use':
                    with contextlib.suppress(exceptions.NotFoundException):
                        self.detach(server, volume)
                self.assertEqual('gone', self.shell(
                    server, 'test -e /dev/vdb || echo gone'))

    def test_boot(self):
        volume = self.volume('nfs', image_id=self.busybox())
        for moment in (0.5, 1.5, 3.0):
            server = self.boot(None, block_device_mapping=[{
                'boot_index': 0, 'uuid': volume.id, 'source_type': 'volume',
                'destination_type': 'volume'}])
            base.kill_computes(moment)
            self.assertIn(self.settled(server), ('ACTIVE', 'ERROR'), moment)
            self.delete(server)
            self.becomes(volume, 'available')
            self.assertEqual(self.before, base.host_state(), moment)
