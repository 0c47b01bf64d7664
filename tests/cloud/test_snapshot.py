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

"""Snapshots of servers, and images whose layers are images."""

import gzip
import io
import json
import tarfile
import uuid

import openstack

from nova_container.image import thin
from nova_container.oci import digest
from tests import archives
from tests.cloud import base
from tests.functional import base as functional


class SnapshotTestCase(base.CloudTestCase):

    def setUp(self):
        super().setUp()
        before = self.hidden()
        self.addCleanup(lambda: self.assertEqual(
            before, self.hidden() - self.kept, 'layer images left'))
        self.kept: set[str] = set()

    @classmethod
    def hidden(cls) -> set[str]:
        """Ids of the user's layer images."""
        return {image.id for image in cls.user.image.images(
            os_hidden=True, **{thin.PROPERTY: thin.LAYER})}

    def snapshot(self, server, name: str = 'test-snapshot'):
        """An image of a server, once it is active."""
        image = self.user.compute.create_server_image(server, name, wait=True,
                                                      timeout=base._TIMEOUT)
        self.addCleanup(self.user.image.delete_image, image,
                        ignore_missing=True)
        return self.user.image.get_image(image)

    def document(self, image) -> tuple[dict, dict]:
        """Manifest and config of a thin image."""
        data = self.user.image.download_image(image).content
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            def load(name: str) -> dict:
                return json.load(archive.extractfile(name))

            top = load('index.json')['manifests'][0]
            manifest = load(thin.blob_name(digest.Digest(top['digest'])))
            return manifest, load(thin.blob_name(digest.Digest(
                manifest['config']['digest'])))

    def layer_images(self, *digests: str) -> list:
        return [image for filters in thin.queries(map(digest.Digest, digests))
                for image in self.user.image.images(**filters)]
