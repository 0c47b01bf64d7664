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

import unittest
from unittest import mock

from os_brick import encryptors

from nova_container.compute import encryption
from nova_container import exception


class KeyTest(unittest.TestCase):

    def key(self, provider: str | None) -> str:
        with mock.patch.object(
                encryptors, 'get_encryption_metadata', autospec=True,
                return_value={'provider': provider, 'encryption_key_id': 'k',
                              'control_location': 'front-end'}), \
                mock.patch('nova.volume.cinder.API', autospec=True), \
                mock.patch('castellan.key_manager.API',
                           autospec=True) as manager:
            secret = manager.return_value.get.return_value
            secret.get_encoded.return_value = b'\x01\xab'
            return encryption.key(None, 'v', {'data': {'encrypted': True}})

    def test_every_name_of_the_same_format(self):
        for provider in ('luks', 'luks2',
                         'nova.volume.encryptors.luks.LuksEncryptor'):
            self.assertEqual('01ab', self.key(provider), provider)

    def test_other_formats_are_refused(self):
        for provider in ('plain', 'CryptsetupEncryptor', None):
            with self.assertRaisesRegex(exception.InvalidSpec, 'luks2'):
                self.key(provider)
