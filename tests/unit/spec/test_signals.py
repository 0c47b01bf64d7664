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

import signal
import unittest

from nova_container import exception
from nova_container.spec import signals


class SignalsTest(unittest.TestCase):

    def test_names(self):
        for name, number in (('SIGTERM', 15), ('term', 15), ('9', 9),
                             ('SIGRTMIN+3', signal.SIGRTMIN + 3),
                             ('RTMAX-1', signal.SIGRTMAX - 1)):
            self.assertEqual(number, signals.number(name))

    def test_refuses(self):
        for name in ('', 'SIGNOPE', '0', '65', 'SIGRTMIN-9', 'RTMIN+99',
                     'SIGTERM+1', 'CLD_EXITED'):
            with self.assertRaises(exception.ProcessInvalid, msg=name):
                signals.number(name)
