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

import os
import pathlib
from unittest import mock

from nova_container import exception
from nova_container.privileged import implied
from tests.unit import base


class ProvideTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.top = pathlib.Path(self.directory())
        for name in ('upper', 'work'):
            (self.top / name).mkdir()

    def provide(self, *layers: implied.Layer) -> int:
        """How many files were looked at."""
        with mock.patch.object(os, 'lstat', wraps=os.lstat) as lstat:
            implied.provide(layers, str(self.top / 'upper'),
                            str(self.top / 'work'), 0)
        return lstat.call_count

    def layer(self, *paths: str) -> implied.Layer:
        """One that implies all its directories."""
        tree = pathlib.Path(self.directory())
        for path in paths:
            (tree / path).mkdir(parents=True)
        return implied.Layer(str(tree), frozenset(
            str(path.relative_to(tree)) for path in tree.rglob('*')))

    def test_layers_are_not_asked_for_what_is_below_nothing(self):
        layers = [self.layer(*(f'{number}/{below}' for below in range(20)))
                  for number in range(30)]
        self.assertLess(self.provide(*layers), 30 * 31 + 30 * 20 + 1)

    def test_deep_directories_are_looked_at_once(self):
        self.assertLess(self.provide(self.layer('/'.join(['d'] * 200))), 500)

    def test_too_many_are_refused_before_the_first(self):
        layers = [implied.Layer('nowhere', frozenset(
            f'{number}/{below}' for below in range(50)))
            for number in range(500)]
        with self.assertRaisesRegex(exception.ImageInvalid, 'fewer layers'):
            self.provide(*layers)
