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

"""What an operator decides about images."""

import io
import pathlib
import tarfile

from tests.cloud import base
from tests.cloud import test_signed_images


class ImageOptionsTest(test_signed_images.SignedImageTestCase):
    """A host that takes signed images alone, and makes whole snapshots."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        node, other = base.cloud()['nodes'][:2]
        cls.node, cls.other = node['name'], other['name']
        config = pathlib.Path(node['config'])
        before = config.read_text()
        cls.addClassCleanup(cls.restart)
        cls.addClassCleanup(config.write_text, before)
        config.write_text(before.replace(
            '[glance]\n',
            '[glance]\nverify_glance_signatures = true\n'
            'enable_certificate_validation = true\n'
            f'default_trusted_certificate_ids = {cls.authority.id}\n'
        ).replace('[container]\n',
                  '[container]\nsnapshot_format = archive\n'))
        cls.restart()

    @classmethod
    def restart(cls) -> None:
        """Restart the service, and wait until it is there for work."""
        name = f'nova-compute@{cls.node}'
        before = base.service_pid(name)
        base.restart(name)
        base.await_new_pid(name, before)

    def test_only_signed_images_boot(self):
        archive = self.archive()
        for signer, words in ((None, 'img_signature'),
                              (self.stranger, self.stranger.id)):
            image = self.upload_signed(archive, signer)
            self.assertIn(words, self.refused(image, host=self.node))
            self.assertFalse(self.stored(image))
        image = self.upload_signed(archive, self.known)
        server = self.active(self.boot_trusting(image, host=self.node))
        # What others vouch for is for the user to say.
        self.assertIn(self.known.id, self.refused(image, self.stranger,
                                                  host=self.node))
        # What a server is made of is known by its digests.
        self.user.compute.reboot_server(server, 'HARD')
        self.assertEqual('ACTIVE', self.settled(server))
        image = self.upload_signed(self.archive(), self.known)
        server = self.active(self.boot_trusting(image, host=self.other))
        self.admin.compute.migrate_server(server, host=self.node)
        self.status(server, 'VERIFY_RESIZE')
        self.user.compute.confirm_server_resize(server)
        self.status(server, 'ACTIVE')
        self.assertEqual(self.node, self.host(server))

    def test_a_snapshot_that_needs_no_other_image(self):
        image = self.upload_signed(self.archive(), self.known)
        server = self.active(self.boot_trusting(image, host=self.node))
        self.execute(server, 'sh', '-c', 'echo kept > /srv/kept; rm /new')
        snapshot = self.user.compute.create_server_image(
            server, 'test-archive', wait=True, timeout=base._TIMEOUT)
        self.addCleanup(self.user.image.delete_image, snapshot)
        self.assertEqual('archive', snapshot.properties['container_layout'])
        with tarfile.open(fileobj=io.BytesIO(
                self.user.image.download_image(snapshot).content)) as archive:
            # Layers of the image, that of the snapshot, manifest and config.
            self.assertEqual(5, sum(name.startswith('blobs/')
                                    for name in archive.getnames()))
        self.delete(server)
        # Nobody has signed it.
        self.assertIn('img_signature', self.refused(snapshot.id,
                                                    host=self.node))
        again = self.active(self.boot_trusting(snapshot.id, host=self.other))
        self.assertEqual('kept\n', self.execute(
            again, 'sh', '-c', '[ ! -e /new ] && cat /srv/kept').stdout)
