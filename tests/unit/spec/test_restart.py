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
from nova_container.spec import restart

parse = restart.RestartPolicy.parse


class RestartPolicyTest(unittest.TestCase):

    def test_words(self):
        self.assertEqual(restart.RestartPolicy(), parse('no'))
        self.assertEqual(restart.RestartPolicy('always'), parse(' Always '))
        self.assertEqual(restart.RestartPolicy('on-failure', 5),
                         parse('on-failure:5'))

    def test_other_words_are_refused(self):
        for text in ('', 'yes', 'on-failure:', 'on-failure:x', 'always:3',
                     'on-failure:0', 'on-failure:-1', 'no:1'):
            with self.assertRaises(exception.InvalidSpec, msg=text):
                parse(text)

    def test_when_it_wants_another_start(self):
        for text, code, restarts, wanted in (
                ('no', 1, 0, False), ('always', 0, 99, True),
                ('on-failure', 0, 0, False), ('on-failure', 1, 99, True),
                ('on-failure', None, 0, True), ('on-failure:2', 1, 1, True),
                ('on-failure:2', 1, 2, False)):
            self.assertEqual(wanted, parse(text).wants(code, restarts),
                             (text, code, restarts))

    def test_delay_grows_to_a_minute(self):
        self.assertEqual([0.1, 0.2, 0.4],
                         [restart.delay(n) for n in range(3)])
        self.assertEqual(60, restart.delay(10 ** 9))
