# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The passwords and keys of this cloud, made once."""

import base64
import json
import os
import secrets

from onenode import marks
from onenode import plan

_NAMES = ('admin', 'demo', 'service', 'database', 'rabbitmq', 'metadata',
          'heat', 'horizon', 'erlang', 'barbican')


def load(layout: plan.Layout) -> dict[str, str]:
    """Read the passwords, making those that are missing.

    :returns: name to value, 32 hexadecimal digits each.
    """
    path = layout.data / 'passwords.json'
    try:
        have = json.loads(path.read_text())
    except FileNotFoundError:
        have = {}
    want = {name: have.get(name) or secrets.token_hex(16) for name in _NAMES}
    marks.write(path, json.dumps(want, indent=1), 0o600)
    return want


def fernet_key(password: str) -> str:
    """A password of 32 digits as a key that Fernet takes."""
    return base64.urlsafe_b64encode(password.encode()).decode()


def create_key_repository(path: os.PathLike) -> None:
    """Fill a key repository of keystone's, as keystone-manage does.

    Source: keystone's administrator guide, "Fernet - Frequently Asked
    Questions": key 0 is the staged one, the highest number the primary.
    """
    os.makedirs(path, 0o700, exist_ok=True)
    for index in ('1', '0'):
        key = os.path.join(path, index)
        if not os.path.exists(key):
            descriptor = os.open(key + '.new', os.O_WRONLY | os.O_CREAT
                                 | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, 'wb') as file:
                file.write(base64.urlsafe_b64encode(os.urandom(32)))
            os.rename(key + '.new', key)
