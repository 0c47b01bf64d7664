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

"""What a user needs to have volumes: types and quota.

Reads a JSON object from stdin: admin (keyword arguments of
``openstack.connect``).
"""

import json
import sys
import typing as ty

import openstack

TYPES = {
    'rbd': {'volume_backend_name': 'rbd'},
    'nfs': {'volume_backend_name': 'nfs'},
    'multiattach': {'volume_backend_name': 'rbd',
                    'multiattach': '<is> True'},
}


def main(wanted: dict[str, ty.Any]) -> None:
    admin = openstack.connect(**wanted['admin'])
    cinder = admin.block_storage
    have = {kind.name for kind in cinder.types()}
    for name, specs in TYPES.items():
        if name not in have:
            cinder.create_type(name=name, extra_specs=specs)
    for project in admin.identity.projects():
        if project.name in ('demo', 'admin'):
            admin.set_volume_quotas(project.id, volumes=500, snapshots=500,
                                    gigabytes=10000)


if __name__ == '__main__':
    main(json.load(sys.stdin))
