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

from nova_container.runtime import console

LOG = (b'2026-01-01T00:00:00.0+00:00 stdout F first\n'
       b'2026-01-01T00:00:00.1+00:00 stderr P half a \n'
       b'2026-01-01T00:00:00.1+00:00 stderr F line\n'
       b'2026-01-01T00:00:00.2+00:00 stdout F \n'
       b'2026-01-01T00:00:00.3+00:00 stdout F with  spaces\n')


class PlainTest(unittest.TestCase):

    def test_text_as_it_was_written(self):
        self.assertEqual(b'first\nhalf a line\n\nwith  spaces\n',
                         console.plain(LOG, 100000))

    def test_first_line_that_was_cut_is_dropped(self):
        tail = LOG[-90:]
        self.assertEqual(b'\nwith  spaces\n', console.plain(tail, 90))

    def test_nothing_written(self):
        self.assertEqual(b'', console.plain(b'', 100))
