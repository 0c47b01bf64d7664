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


import dataclasses
import types
import unittest

from nova_container.compute import maintenance


def service(disabled: bool, reason: str | None) -> types.SimpleNamespace:
    return types.SimpleNamespace(disabled=disabled, disabled_reason=reason)


class ReasonTest(unittest.TestCase):

    def test_what_it_was_before_is_kept(self):
        for disabled, reason, before in (
                (False, None, None), (True, None, ''), (True, '', ''),
                (True, 'fan', 'fan'), (True, 'a] [b', 'a] [b'),
                (True, 'a\nb', 'a\nb'), (True, 255 * 'x', 100 * 'x')):
            now = service(disabled, reason)
            self.assertIsNone(maintenance.Reason.of(now))
            for text in ('begins', 'no server is left', 'servers to move: 2',
                         'servers that stay: 1: ' + 300 * 'y'):
                found = dataclasses.replace(maintenance.Reason.begin(now),
                                            text=text)
                self.assertLessEqual(len(str(found)), 255)
                now = service(True, str(found))
                self.assertEqual(before, maintenance.Reason.of(now).before)

    def test_somebody_else_decides(self):
        reason = str(maintenance.Reason('no server is left'))
        self.assertIsNone(maintenance.Reason.of(service(False, reason)))
        for theirs in ('fan', 'maintenance mode: fan',
                       'maintenance mode: begins at noon',
                       'maintenance mode: no server is left to me'):
            self.assertIsNone(maintenance.Reason.of(service(True, theirs)))
