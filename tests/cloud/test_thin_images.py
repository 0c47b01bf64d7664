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

"""Images whose layers are images: who may use a layer that a host has."""

import io
import os
import uuid

import psutil

from nova_container.image import thin
from nova_container.oci import digest
from nova_container.oci import manifest
from tests import archives
from tests.cloud import base
from tests.functional import base as functional

_TYPE = 'application/vnd.oci.image.layer.v1.tar'
_LARGE = 16 << 20


def descriptor(layer: bytes) -> manifest.Descriptor:
    return manifest.Descriptor(_TYPE, digest.Digest.of(layer), len(layer))


def thin_archive(*layers: bytes) -> bytes:
    return thin.build(
        archives.config(layers, config={'Cmd': ['/bin/sleep', '1000000']}),
        [descriptor(layer) for layer in layers])


class ThinImageTest(base.CloudTestCase):
    """Tenants A, the demo user, and B, the same user in another project."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        project = cls.new_project()
        cls.other = base.connect_to(project.name)
        cls.other_project = project.id

    def upload_to(self, tenant, data: bytes, **fields):
        image = tenant.image.create_image(
            data=io.BytesIO(data), allow_duplicates=True,
            **{'name': 'test-thin', 'container_format': 'docker',
               'disk_format': 'raw', 'img_hv_type': 'docker', **fields})
        self.addCleanup(tenant.image.delete_image, image,
                        ignore_missing=True)
        return image

    def upload_layer(self, tenant, layer: bytes, data: bytes | None = None):
        """The layer's image, or one that only says so."""
        fields = thin.layer_fields(descriptor(layer), digest.Digest.of(layer))
        hidden = fields.pop('os_hidden')
        image = self.upload_to(tenant, data or layer, **fields)
        # The SDK would send it as a text.
        return tenant.image.update_image(image, is_hidden=hidden)

    def as_other(self, call, *args):
        mine, self.user = self.user, self.other
        try:
            return call(*args)
        finally:
            self.user = mine

    def boot_other(self, image):
        server = self.other.compute.create_server(
            name='test-other', image_id=image.id, networks='none',
            flavor_id=self.other.compute.find_flavor('c1.tiny').id)
        self.addCleanup(self.as_other, self.delete, server)
        return server

    def test_a_layer_is_used_by_who_may_read_it(self):
        low = functional.busybox_layer()
        secret = archives.files({'secret': uuid.uuid4().bytes})
        layers = [self.upload_layer(self.user, layer)
                  for layer in (low, secret)]
        image = self.upload_to(self.user, thin_archive(low, secret))
        self.active(self.boot(image.id, networks='none'))

        # B names the layer, which the host has; then has an image that says
        # it is that, as long as the layer is.
        copy = self.upload_to(self.other, thin_archive(low, secret))
        self.upload_layer(self.other, low)
        fault = self.as_other(self.fault, self.boot_other(copy))
        for word in (descriptor(secret).digest.short, 'may read',
                     'its owner has to share'):
            self.assertIn(word, fault)
        fake = self.upload_layer(self.other, secret, bytes(len(secret)))
        fault = self.as_other(self.fault, self.boot_other(copy))
        self.assertIn('digest', fault)

        # Shared by A, image and layers, it can be booted by B.
        for item in (*layers, image):
            self.user.image.update_image(item, visibility='shared')
            self.user.image.add_member(item, member=self.other_project)
        self.as_other(self.active, self.boot_other(image))
        # The image alone is not enough.
        self.other.image.delete_image(fake)
        self.user.image.remove_member(
            member=self.other_project, image=layers[1])
        fault = self.as_other(self.fault, self.boot_other(image))
        self.assertIn('may read', fault)

    @staticmethod
    def read_by_glance() -> int:
        """Bytes that Glance has read from files so far: proc_pid_io(5)."""
        master = psutil.Process(base.service_pid('glance'))
        return sum(process.io_counters().read_chars
                   for process in (master, *master.children(recursive=True)))

    def test_second_boot_moves_no_layer(self):
        low = functional.busybox_layer()
        group = self.user.compute.create_server_group(
            name='test-one-host', policy='affinity')
        self.addCleanup(self.user.compute.delete_server_group, group)
        for thin_image in (False, True):
            layers = (low, archives.files({'data': os.urandom(_LARGE)}))
            if thin_image:
                for layer in layers:
                    self.upload_layer(self.user, layer)
                image = self.upload_to(self.user, thin_archive(*layers))
            else:
                image = self.upload_to(
                    self.user, base.busybox_archive(layers[1]))
            moved = []
            for _ in range(2):
                before = self.read_by_glance()
                self.active(self.boot(
                    image.id, networks='none',
                    scheduler_hints={'group': group.id}))
                moved.append(self.read_by_glance() - before)
            with self.subTest(thin=thin_image, moved=moved):
                self.assertGreater(moved[0], _LARGE)
                self.assertLess(moved[1], _LARGE // 100)
