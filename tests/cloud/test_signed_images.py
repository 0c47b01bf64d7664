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

"""Images with signatures, checked with real keys."""

import base64
import datetime
import json
import pathlib
import tempfile
import uuid

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization
from cryptography import x509

from tests import archives
from tests.cloud import base

_HASH = hashes.SHA256()


class Signer:
    """A key with a certificate that is in the key manager.

    :param user: openstacksdk's connection of whom it belongs to
    :param issuer: who issues the certificate; None for itself
    :ivar id: of the certificate in the key manager
    """

    def __init__(self, user, issuer: 'Signer | None' = None):
        self.name = x509.Name([x509.NameAttribute(
            x509.NameOID.COMMON_NAME, f'test-{uuid.uuid4().hex[:8]}')])
        self.key = (rsa.generate_private_key(65537, 2048) if issuer
                    else ec.generate_private_key(ec.SECP384R1()))
        signs = issuer is None
        issuer = issuer or self
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(1)
        certificate = x509.CertificateBuilder(
            issuer.name, self.name, self.key.public_key(),
            x509.random_serial_number(), now - day, now + day,
        ).add_extension(
            x509.BasicConstraints(ca=signs, path_length=None), critical=True,
        ).add_extension(x509.KeyUsage(
            digital_signature=not signs, key_cert_sign=signs,
            content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, crl_sign=False,
            encipher_only=False, decipher_only=False), critical=True,
        ).sign(issuer.key, _HASH)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.secret = user.key_manager.create_secret(
            name=certificate.subject.rfc4514_string(),
            secret_type='certificate', payload=base64.b64encode(pem).decode(),
            payload_content_type='application/octet-stream',
            payload_content_encoding='base64')
        self.id = self.secret.secret_id

    def properties(self, data: bytes) -> dict[str, str]:
        """Those of an image with this data."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            kind = 'RSA-PSS'
            signature = self.key.sign(data, padding.PSS(
                padding.MGF1(_HASH), padding.PSS.MAX_LENGTH), _HASH)
        else:
            kind = 'ECC_SECP384R1'
            signature = self.key.sign(data, ec.ECDSA(_HASH))
        return {'img_signature': base64.b64encode(signature).decode(),
                'img_signature_hash_method': 'SHA-256',
                'img_signature_key_type': kind,
                'img_signature_certificate_uuid': self.id}


class SignedImageTestCase(base.CloudTestCase):
    """A certificate authority, one whose certificate it has issued, and a
    stranger.
    """

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Who may say on which node.
        cls.chief = base.connect_to('demo', 'admin')
        cls.authority = cls.signer()
        cls.known = cls.signer(cls.authority)
        cls.stranger = cls.signer()

    @classmethod
    def signer(cls, issuer: Signer | None = None) -> Signer:
        made = Signer(cls.user, issuer)
        cls.addClassCleanup(cls.user.key_manager.delete_secret, made.id)
        return made

    @classmethod
    def upload_signed(cls, archive: bytes, signer: Signer | None = None,
                      properties: dict[str, str] | None = None) -> str:
        """An image, signed before Glance has it, which checks it as well."""
        signed = signer.properties(archive) if signer else {}
        return cls.upload(archive, properties={
            'img_hv_type': 'docker', **signed, **(properties or {})})

    @staticmethod
    def archive() -> bytes:
        """One that no host has yet."""
        return base.busybox_archive(archives.files({
            'new': uuid.uuid4().bytes}))

    def boot_trusting(self, image: str, *signers: Signer,
                      host: str | None = None):
        """A server of an image that one of the signers must vouch for."""
        fields = {}
        if signers:
            fields['trusted_image_certificates'] = [
                signer.id for signer in signers]
        server = self.chief.compute.create_server(
            name='test-signed', image_id=image, networks='none',
            flavor_id=self.user.compute.find_flavor('c1.tiny').id,
            metadata={'container:stop_signal': 'SIGKILL'},
            **fields, **({'host': host} if host else {}))
        self.addCleanup(self.delete, server)
        return server

    def refused(self, image: str, *signers: Signer,
                host: str | None = None) -> str:
        """What a server is told that must not boot."""
        before = base.host_state()
        server = self.boot_trusting(image, *signers, host=host)
        fault = self.fault(server)
        self.delete(server)
        self.assertEqual(before, base.host_state())
        return fault

    def host(self, server) -> str:
        return self.admin.compute.get_server(server.id).hypervisor_hostname

    def stored(self, image: str) -> bool:
        """Whether a host has something of an image."""
        return any(pathlib.Path(
            node['state_path'], 'images', f'{image}.json').exists()
            for node in base.cloud()['nodes'])


class TrustedCertificatesTest(SignedImageTestCase):
    """What a user asks for, on hosts that ask for nothing themselves."""

    def test_signed_by_one_whom_a_trusted_certificate_vouches_for(self):
        archive = self.archive()
        image = self.upload_signed(archive, self.known)
        done = base.openstack_command(
            'server', 'create', '--image', image, '--flavor', 'c1.tiny',
            '--nic', 'none', '--trusted-image-cert', self.authority.id,
            '--format', 'json', 'test-signed', OS_COMPUTE_API_VERSION='2.93')
        self.assertEqual(0, done.returncode, done.stderr)
        server = self.user.compute.get_server(json.loads(done.stdout)['id'])
        self.addCleanup(self.delete, server)
        server = self.active(server)
        self.assertEqual([self.authority.id],
                         server.trusted_image_certificates)

        # It is on that host now, checked: not for whoever trusts another.
        host = self.host(server)
        self.assertIn('certificate', self.refused(image, self.stranger,
                                                  host=host))
        self.active(self.boot_trusting(image, self.stranger, self.authority,
                                       host=host))

        # Who moves it has no access to the certificates, and needs none.
        self.admin.compute.migrate_server(server)
        self.status(server, 'VERIFY_RESIZE')
        self.admin.compute.confirm_server_resize(server)
        self.status(server, 'ACTIVE')
        self.assertNotEqual(host, self.host(server))

    def test_what_is_not_signed_so_is_refused_and_leaves_nothing(self):
        archive = self.archive()
        good = self.known.properties(archive)
        tampered = self.upload_signed(archive)
        self.user.image.update_image(
            tampered, **self.known.properties(archive + b'more'))
        for image, signer, words in (
                (self.upload_signed(archive), self.authority,
                 'img_signature'),
                (tampered, self.authority, 'is not what was signed'),
                (self.upload_signed(archive, self.stranger), self.authority,
                 self.stranger.id),
                (self.upload_signed(archive, self.known), self.stranger,
                 self.known.id),
                # What issued nothing vouches for nothing.
                (self.upload_signed(archive, self.known), self.known,
                 self.known.id)):
            with self.subTest(words):
                fault = self.refused(image, signer)
                self.assertIn(words, fault)
                self.assertIn('sign', fault)
                self.assertFalse(self.stored(image))
        # Of a certificate that is nowhere.
        lost = self.upload_signed(archive)
        self.user.image.update_image(lost, **{
            **good, 'img_signature_certificate_uuid': str(uuid.uuid4())})
        self.assertIn('ertificate', self.refused(lost, self.authority))

    def test_an_image_that_is_on_the_host_is_checked_all_the_same(self):
        image = self.upload_signed(self.archive())
        server = self.active(self.boot_trusting(image))
        host = self.host(server)
        self.assertIn('img_signature', self.refused(image, self.authority,
                                                    host=host))
        # Whoever asks for nothing still has it.
        self.active(self.boot_trusting(image, host=host))

    def test_the_signature_of_a_thin_image_covers_its_layers(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.archive())
            file.flush()
            done = base.openstack_command(
                'container', 'image', 'push', f'docker-archive:{file.name}',
                'test-signed', '--format', 'json')
        self.assertEqual(0, done.returncode, done.stderr)
        image = json.loads(done.stdout)['id']
        self.addCleanup(base.openstack_command, 'container', 'image',
                        'delete', '--yes', image)
        manifest = self.user.image.download_image(image).content
        self.user.image.update_image(image,
                                     **self.known.properties(manifest))
        server = self.active(self.boot_trusting(image, self.authority))
        self.assertIn('certificate', self.refused(
            image, self.stranger, host=self.host(server)))
