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

from unittest import mock

from nova.compute import vm_states
import nova.conf
from nova.objects import trusted_certs as nova_certs
from oslo_config import fixture
import testtools

from nova_container.compute import images
from nova_container import exception
from nova_container.image import trust
from tests.unit import base


class TrustTest(base.TestCase):
    """As nova.image.glance reads its options."""

    def check(self, certificates, trusted_certs=None, **options):
        config = self.useFixture(fixture.Config(nova.conf.CONF))
        config.config(group='glance', **options)
        self.assertEqual(
            trust.Trust(None if certificates is None
                        else frozenset(certificates)),
            images._trust(trusted_certs))

    def test_nothing_is_asked_for(self):
        self.assertIsNone(images._trust(None))

    def test_any_signature(self):
        self.check(None, verify_glance_signatures=True)

    def test_certificates_of_the_operator(self):
        self.check(['a'], verify_glance_signatures=True,
                   enable_certificate_validation=True,
                   default_trusted_certificate_ids=['a'])

    def test_certificates_of_the_user(self):
        self.check(['b'], nova_certs.TrustedCerts(ids=['b']),
                   verify_glance_signatures=True,
                   enable_certificate_validation=True,
                   default_trusted_certificate_ids=['a'])
        self.check(['b'], nova_certs.TrustedCerts(ids=['b']))

    def test_no_certificate_at_all(self):
        self.check([], verify_glance_signatures=True,
                   enable_certificate_validation=True)


class ShelvedTest(base.TestCase):
    """The image and what is written may fill the flavor's disk each."""

    def setUp(self):
        super().setUp()
        self.images = images.Images(mock.MagicMock())
        self.instance = mock.MagicMock(
            uuid='u', image_ref='i', vm_state=vm_states.ACTIVE)
        self.instance.flavor.root_gb = 1

    def limit(self):
        meta = mock.MagicMock(
            container_format='docker', disk_format='raw', size=None)
        self.images.ensure(None, self.instance, meta)
        return self.images.store.ensure.call_args.kwargs['max_bytes']

    def test_what_a_host_takes(self):
        self.assertEqual(1 << 30, self.limit())
        self.instance.vm_state = vm_states.SHELVED_OFFLOADED
        self.assertEqual(2 << 30, self.limit())
        self.instance.flavor.root_gb = 0
        self.assertIsNone(self.limit())

    def shelve(self, image: int, written: int | None):
        self.images.store.get.return_value.size = image
        with mock.patch.object(images.stats, 'disk_used', autospec=True,
                               return_value=written):
            self.images.require_shelvable(self.instance)

    def test_what_is_shelved(self):
        self.shelve(1 << 30, 1 << 30)
        self.shelve(3 << 30, None)
        with testtools.ExpectedException(exception.ImageTooBig,
                                         '.*larger flavor'):
            self.shelve(1 << 30, (1 << 30) + 1)
        self.instance.flavor.root_gb = 0
        self.shelve(3 << 30, 1 << 30)
