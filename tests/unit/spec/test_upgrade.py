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

import dataclasses
import json
import pathlib
import shutil
import tempfile
import unittest

from nova_container.image import record
from nova_container.oci import digest
from nova_container.privileged import volume
from nova_container.spec import codec
from nova_container.spec import container
from nova_container.spec import health
from nova_container.spec import policy

_WRITTEN = pathlib.Path(__file__).with_name('written')


def _contains(whole, part) -> bool:
    """Whether every value of a document is in another one, unchanged."""
    if isinstance(part, dict):
        return all(key in whole and _contains(whole[key], value)
                   for key, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(_contains, whole, part))
    return whole == part


class UpgradeTest(unittest.TestCase):

    def files(self, kind: str) -> list[pathlib.Path]:
        """What each version has written of a kind."""
        files = list(_WRITTEN.glob(f'{kind}-*.json'))
        self.assertTrue(files)
        return files

    def assert_read(self, file: pathlib.Path, again: object) -> None:
        written = json.loads(file.read_text())
        self.assertTrue(_contains(json.loads(json.dumps(again)), written),
                        f'{file.name}: {again}')

    def test_definitions(self):
        for kind, cls in (('spec', container.ContainerSpec),
                          ('policy', policy.Policy),
                          ('health', health.Health)):
            for file in self.files(kind):
                found = codec.decode(cls, json.loads(file.read_text()))
                self.assert_read(file, codec.encode(found))

    def test_connected_volumes(self):
        for file in self.files('volume'):
            found = volume.Connected(**json.loads(file.read_text()))
            self.assert_read(file, dataclasses.asdict(found))

    def test_images_and_blobs(self):
        """Read, and written again under another name."""
        names = [digest.Digest(f'sha256:{number:064}') for number in (1, 2)]
        for kind, cls, (old, new) in (
                ('image', record.Images, [name.hex for name in names]),
                ('blob', record.Blobs, names)):
            for file in self.files(kind):
                place = self.enterContext(tempfile.TemporaryDirectory())
                shutil.copy(file, f'{place}/{names[0].hex}.json')
                records = cls(place)
                records.save(new, records.load(old))
                self.assert_read(file, json.loads(pathlib.Path(
                    place, f'{names[1].hex}.json').read_text()))
