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

"""What earlier versions have written is read.

A version that is released adds its files here, and nobody changes them:
containers that it has defined run on hosts that are upgraded.
"""

import json
import pathlib
import unittest

from nova_container.spec import codec
from nova_container.spec import container
from nova_container.spec import policy

_WRITTEN = pathlib.Path(__file__).with_name('written')


def _contains(whole, part) -> bool:
    """Whether every value of a document is in another one, unchanged."""
    if isinstance(part, dict):
        return all(key in whole and _contains(whole[key], value)
                   for key, value in part.items())
    return whole == part


class UpgradeTest(unittest.TestCase):

    def test_definitions(self):
        for kind, cls in (('spec', container.ContainerSpec),
                          ('policy', policy.Policy)):
            files = list(_WRITTEN.glob(f'{kind}-*.json'))
            self.assertTrue(files)
            for file in files:
                with self.subTest(file.name):
                    written = json.loads(file.read_text())
                    found = codec.decode(cls, written)
                    again = json.loads(json.dumps(codec.encode(found)))
                    self.assertTrue(_contains(again, written), again)
