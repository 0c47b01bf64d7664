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
from nova_container.spec import health


class HealthTest(unittest.TestCase):

    def statuses(self, codes, running=100.0, **wishes):
        check = health.Healthcheck(('x',), **wishes)
        found, said = health.Health(), []
        for code in codes:
            found = found.after(check, code, '', running)
            said.append(found.status)
        return said

    def test_failures_in_a_row_make_it_unhealthy(self):
        self.assertEqual(
            ['starting', 'healthy', 'healthy', 'healthy', 'unhealthy',
             'unhealthy', 'healthy'],
            self.statuses([1, 0, 1, None, 1, 1, 0], retries=3))

    def test_unhealthy_without_ever_having_been_well(self):
        self.assertEqual(['starting', 'unhealthy'],
                         self.statuses([1, 1], retries=2))

    def test_start_period_counts_success_only(self):
        self.assertEqual(['starting'] * 3,
                         self.statuses([1] * 3, retries=1,
                                       start_period=200.0))
        self.assertEqual(['healthy', 'unhealthy'],
                         self.statuses([0, 1], retries=1,
                                       start_period=200.0))

    def test_pause_is_shorter_while_it_starts(self):
        check = health.Healthcheck(('x',), interval=30.0, start_period=10.0,
                                   start_interval=2.0)
        self.assertEqual((2, 30), (check.pause(9), check.pause(10)))

    def test_values_that_make_no_sense(self):
        for wishes in ({'interval': 0.1}, {'timeout': 0.0}, {'retries': 0},
                       {'timeout': 3600.0}, {'start_period': -1.0}):
            with self.assertRaises(exception.InvalidSpec, msg=wishes):
                health.Healthcheck(('x',), **wishes)
        with self.assertRaises(exception.InvalidSpec):
            health.Healthcheck(())
