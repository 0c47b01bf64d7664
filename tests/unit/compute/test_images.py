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


import nova.conf
from nova.objects import trusted_certs as nova_certs
from oslo_config import fixture

from nova_container.compute import images
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
