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

from nova_container import exception
from nova_container.layer import changes


class ListTest(unittest.TestCase):

    def test_names_that_are_not_text(self):
        path = '/a\nb\udcff"\u20ac'
        line = changes.line(changes.ADDED, path)
        self.assertEqual(1, line.count(b'\n'))
        self.assertEqual(('A', path), changes.parse(line))

    def test_other_lines_are_refused(self):
        for text in (b'', b'A /x', b'["A"]', b'["B", "/x"]', b'["A", 1]',
                     b'[["A"], "/x"]', b'{"A": 1, "/x": 2}', b'["A", "/x'):
            with self.assertRaises(exception.ImageInvalid):
                changes.parse(text)

    def test_shown_without_control_characters(self):
        self.assertEqual("/a\\x1b[2J\\udcff\u20ac",
                         changes.shown('/a\x1b[2J\udcff\u20ac'))
