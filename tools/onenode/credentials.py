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

"""How to log in to the cloud."""

import pathlib

from onenode import configuration
from onenode import passwords
from onenode import plan

USERS = ('admin', 'demo')


def of(layout: plan.Layout, user: str) -> dict[str, str]:
    """Keystone's password credentials of a user, in the user's project."""
    return {'auth_url': configuration.url('keystone', '/v3'),
            'username': user,
            'password': passwords.load(layout)[user],
            'project_name': user,
            'user_domain_name': 'Default',
            'project_domain_name': 'Default',
            'region_name': plan.REGION}


def sdk(layout: plan.Layout, user: str) -> dict[str, object]:
    """Keyword arguments for ``openstack.connect``."""
    auth = of(layout, user)
    region = auth.pop('region_name')
    return {'auth': auth, 'region_name': region, 'load_yaml_config': False,
            'load_envvars': False}


def openrc(layout: plan.Layout, user: str) -> str:
    """Shell commands that set up the clients."""
    lines = [f'export OS_{name.upper()}={value}'
             for name, value in of(layout, user).items()]
    lines.append('export OS_IDENTITY_API_VERSION=3')
    lines.append('unset OS_CLOUD OS_TOKEN OS_PROJECT_ID OS_TENANT_NAME')
    lines.append(f'case ":$PATH:" in *:{layout.bin}:*) ;; '
                 f'*) export PATH={layout.bin}:"$PATH" ;; esac')
    return '\n'.join(lines) + '\n'


def exist(layout: plan.Layout) -> bool:
    path: pathlib.Path = layout.data / 'passwords.json'
    return path.exists()
