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

"""What the support matrix claims is proved by tests that are there."""

import ast
import configparser
import pathlib
import re
import unittest

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_MATRIX = _REPOSITORY / 'doc' / 'source' / 'user' / 'support-matrix.ini'
_OURS = 'nova-container'
_TEST = re.compile(r'\btests(?:\.\w+)+')


def _there(name: str) -> bool:
    """Whether a module, class or method of the tests exists."""
    path, rest = _REPOSITORY, name.split('.')
    while rest and (path / rest[0]).is_dir():
        path /= rest.pop(0)
    module = path / f'{rest.pop(0)}.py'
    if not module.exists():
        return False
    body = ast.parse(module.read_text()).body
    for part in rest:
        found = [node for node in body if getattr(node, 'name', '') == part]
        if not found:
            return False
        body = found[0].body
    return True


class SupportMatrixTest(unittest.TestCase):

    def setUp(self):
        super().setUp()
        matrix = configparser.RawConfigParser()
        matrix.read(_MATRIX)
        self.rows = {name: row for name, row in matrix.items()
                     if row.get('title') and not name.startswith('driver.')}

    def test_every_row_of_nova(self):
        self.assertEqual(59, len(self.rows))

    def test_the_page_counts_right(self):
        counted = [int(number) for number in re.findall(
            r'^\w[^\n]* (\d+)$', _MATRIX.with_suffix('.rst').read_text(),
            re.MULTILINE)]
        self.assertEqual(sorted((
            sum(row[f'driver.{driver}'] == 'complete'
                for row in self.rows.values())
            for driver in (_OURS, 'libvirt-kvm-x86', 'libvirt-lxc',
                           'libvirt-vz-ct', 'vmware')), reverse=True),
            counted)

    def test_tests_exist(self):
        for name, row in self.rows.items():
            for test in _TEST.findall(row.get(f'driver-notes.{_OURS}', '')):
                self.assertTrue(_there(test), f'{name}: {test}')

    def test_complete_is_proved_in_the_cloud(self):
        for name, row in self.rows.items():
            level = row[f'driver.{_OURS}']
            notes = row.get(f'driver-notes.{_OURS}', '')
            self.assertIn(level, ('complete', 'partial', 'missing'), name)
            if level == 'complete':
                self.assertIn('tests.cloud.', notes, name)
            elif level == 'partial':
                self.assertRegex(notes, _TEST, name)
