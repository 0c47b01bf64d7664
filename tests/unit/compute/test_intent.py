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

import json
import types
import unittest

from nova import objects

from nova_container.compute import intent
from nova_container.image import store
from nova_container.oci import image_config

objects.register_all()

ID = '11111111-2222-4333-8444-555555555555'
LAYER = 'sha256:' + '0' * 64


class HostNameTest(unittest.TestCase):

    def hostname(self, name: str | None) -> str:
        instance = types.SimpleNamespace(
            uuid=ID, hostname=name, metadata={}, user_data=None,
            system_metadata={}, numa_topology=None, key_data=None,
            flavor=objects.Flavor(vcpus=1, memory_mb=64, swap=0, root_gb=1,
                                  ephemeral_gb=0, extra_specs={}))
        raw = json.dumps({
            'os': 'linux', 'config': {'Cmd': ['sh']},
            'rootfs': {'type': 'layers', 'diff_ids': [LAYER]}})
        image = store.Image('x', image_config.ImageConfig.from_json(
            raw.encode()), (LAYER,), 1)
        return intent.build(instance, image, [], 10, drive=()).hostname

    def test_what_nova_takes_the_kernel_can_have(self):
        for name, expected in (
                ('web', 'web'), ('web.example.org', 'web.example.org'),
                ('m\u00fcller', 'muller'), ('_a_b.example', 'a-b.example'),
                ('web.' + 'x' * 61, 'web'), ('x' * 100, 'x' * 64),
                ('a' * 63 + '-' + 'b', 'a' * 63),
                (None, f'container-{ID}'), ('\u00df', f'container-{ID}')):
            self.assertEqual(expected, self.hostname(name), name)
