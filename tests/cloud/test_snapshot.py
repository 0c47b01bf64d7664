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

"""Snapshots of servers, through Nova and Glance."""

import io
import json
import pathlib
import tarfile

from openstack import utils

from nova_container.image import thin
from nova_container.oci import digest
from tests.cloud import base


def load_thin(data: bytes) -> tuple[dict, dict]:
    """Manifest and config of a thin image."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        def load(name: str) -> dict:
            return json.load(archive.extractfile(name))

        top = load('index.json')['manifests'][0]
        manifest = load(thin.blob_name(digest.Digest(top['digest'])))
        return manifest, load(thin.blob_name(digest.Digest(
            manifest['config']['digest'])))


def layer_images(user) -> dict[str, object]:
    """The layer images of a project, by id."""
    found = user.image.images(os_hidden=True, **{thin.PROPERTY: thin.LAYER})
    return {image.id: image for image in found}


class SnapshotTest(base.CloudTestCase):

    def setUp(self):
        super().setUp()
        self.layers = layer_images(self.user)
        self.addCleanup(self.remove_layers)

    def remove_layers(self) -> None:
        for image_id in set(layer_images(self.user)) - set(self.layers):
            self.user.image.delete_image(image_id)

    def new_layers(self) -> list:
        """The layer images that were not there before."""
        found = layer_images(self.user)
        new = [image for image_id, image in found.items()
               if image_id not in self.layers]
        self.layers |= {image.id: image for image in new}
        self.addCleanup(lambda: [self.user.image.delete_image(
            image, ignore_missing=True) for image in new])
        return new

    def snapshot(self, server):
        """An image of a server."""
        image = self.user.compute.create_server_image(
            server, 'test-snapshot', wait=True, timeout=base._TIMEOUT)
        self.addCleanup(self.user.image.delete_image, image,
                        ignore_missing=True)
        self.assertEqual('ACTIVE', self.settled(server))
        return image

    def run_script(self, image: str, script: str):
        """A server that runs a script, then sleeps."""
        server = self.active(self.boot(image, networks='none', metadata={
            'container:entrypoint': '["/bin/sh", "-c"]',
            'container:command': json.dumps([f'{script}; echo done; exec '
                                             'sleep 1000000'])}))
        self.await_console(server, 'done')
        return server

    def test_what_has_changed_becomes_one_layer(self):
        base_id = self.upload(base.busybox_archive())
        server = self.run_script(
            base_id, 'echo one > /one; rm /etc/group; mkdir /srv/d')
        image = self.snapshot(server)
        self.assertEqual(('docker', 'raw', base_id, 'docker'), (
            image.container_format, image.disk_format,
            image.properties['base_image_ref'],
            image.properties['img_hv_type']))
        data = self.user.image.download_image(image).content
        manifest, config = load_thin(data)
        self.assertEqual(2, len(manifest['layers']))
        self.assertEqual(['/bin/sleep', '1000000'], config['config']['Cmd'])
        self.assertEqual(
            (2, 2, f'snapshot of server {server.id}'),
            (len(config['rootfs']['diff_ids']), len(config['history']),
             config['history'][1]['comment']))
        # The base was an archive: its layer has become an image, too.
        self.new_layers()
        new = {layer.name: layer for layer in self.layers.values()}
        self.assertLessEqual(
            {layer['digest'] for layer in manifest['layers']}, set(new))
        self.assertEqual({(True, 'private')}, {
            (layer.is_hidden, layer.visibility) for layer in new.values()})
        self.assertLess(new[manifest['layers'][1]['digest']].size, 4096)
        self.assertNotIn(image.id, new)

        # Once, and no more.
        again = self.snapshot(server)
        self.assertLessEqual(len(self.new_layers()), 1)
        self.user.image.delete_image(base_id)

        # It needs neither the server nor its image.
        self.delete(server)
        second = self.run_script(
            again.id, 'cat /one; ls /etc /srv; rm /one; echo two > /two')
        said = self.console(second).replace('\r', '').splitlines()
        self.assertEqual('one', said[0])
        self.assertLessEqual({'passwd', 'd'}, set(said))
        self.assertNotIn('group', said)
        deeper = self.snapshot(second)
        manifest, config = load_thin(
            self.user.image.download_image(deeper).content)
        self.assertEqual(3, len(manifest['layers']))
        (layer,) = self.new_layers()
        self.assertEqual(manifest['layers'][2]['digest'], layer.name)

    def test_one_that_fails_leaves_nothing(self):
        image_id = self.upload(base.busybox_archive())
        server = self.active(self.boot(image_id, networks='none'))
        (node,) = [node for node in base.cloud()['nodes']
                   if node['name'] == self.admin.compute.get_server(
                       server).compute_host]
        # The service may not write there any more.
        spool = pathlib.Path(node['state_path'], 'spool')
        self.addCleanup(spool.chmod, spool.stat().st_mode & 0o777)
        spool.chmod(0o500)
        # Not what asks for the image then, which may be gone by now.
        image = server.create_image(self.user.compute, 'test-fails')
        for _ in utils.iterate_timeout(
                base._TIMEOUT, 'the snapshot stays', wait=0.5):
            if self.user.image.find_image(image) is None:
                break
        self.assertEqual('ACTIVE', self.settled(server))
        # Nor can it write the list of changes.
        name = f'changes of {server.name}'
        done = base.openstack_command('container', 'diff', server.id)
        self.assertEqual(1, done.returncode)
        self.assertIn('ask the operator', done.stderr)
        self.assertIsNone(self.user.image.find_image(name))
        self.assertEqual('ACTIVE', self.settled(server))
        self.assertEqual([], self.new_layers())
