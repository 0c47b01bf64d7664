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

"""Keys of encrypted volumes: from Cinder's words to the key manager's secret.
"""

import binascii

from castellan.common import exception as castellan_exception
from castellan import key_manager
import nova.conf
from nova.volume import cinder
from os_brick import encryptors

from nova_container import exception

CONF = nova.conf.CONF

_PROVIDERS = (encryptors.LUKS, encryptors.LUKS2)


def is_encrypted(connection_info: dict) -> bool:
    return bool(connection_info['data'].get('encrypted'))


def key(context, name: str, connection_info: dict) -> str:
    """What opens a volume, as os-brick's encryptors have it.

    The user whose request it is must be allowed to read the key.

    :param name: the volume's id
    :raises InvalidSpec: it is encrypted in a way that is not known
    :raises StateConflict: the key manager does not give the key
    """
    metadata = encryptors.get_encryption_metadata(
        context, cinder.API(), name, connection_info)
    # Volume types of long ago name a class of Nova's.
    provider = encryptors.LEGACY_PROVIDER_CLASS_TO_FORMAT_MAP.get(
        metadata.get('provider'), metadata.get('provider'))
    if (provider not in _PROVIDERS
            or metadata.get('control_location') != 'front-end'):
        raise exception.InvalidSpec(
            f'volume {name} is encrypted with {provider}; the container '
            f'driver knows {" and ".join(_PROVIDERS)}, in the front end')
    try:
        found = key_manager.API(CONF).get(
            context, metadata['encryption_key_id'])
    except (castellan_exception.KeyManagerError,
            castellan_exception.ManagedObjectNotFoundError,
            castellan_exception.Forbidden) as e:
        raise exception.StateConflict(
            f'the key of volume {name} cannot be had: {e}; start the server '
            'as a user who may read the key')
    return binascii.hexlify(found.get_encoded() or b'').decode()
