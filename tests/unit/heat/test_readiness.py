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

from heat_plugin import readiness
from tests.unit import base


class WaitingTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.now = 0.0

    def waiting(self, wait_for=None) -> readiness.Waiting:
        return readiness.Waiting(readiness.Wanted.parse(wait_for),
                                 lambda: self.now)

    def over(self, waiting, status='ACTIVE', after=0.0, power=1, **said):
        self.now += after
        return waiting.is_over(readiness.Observation(
            status, power, {f'container:{key}': value
                            for key, value in said.items()}))

    def test_running_is_to_stay_running(self):
        waiting = self.waiting()
        self.assertFalse(self.over(waiting, 'BUILD', power=0))
        self.assertFalse(self.over(waiting, after=9))
        self.assertTrue(self.over(waiting, after=readiness.SETTLE))

    def test_restarted_is_to_stay_longer(self):
        waiting = self.waiting()
        self.assertFalse(self.over(waiting))
        self.assertFalse(self.over(waiting, after=1, power=0, exit_code='1'))
        self.assertFalse(self.over(waiting, after=1, exit_code='1'))
        self.assertFalse(self.over(waiting, after=5, exit_code='1'))
        self.assertTrue(self.over(waiting, after=5, exit_code='1'))

    def test_restarted_for_ever_fails(self):
        waiting = self.waiting()
        for _ in range(10):
            self.assertFalse(self.over(waiting, after=5, exit_code='1'))
            self.assertFalse(self.over(waiting, after=1, power=0,
                                       exit_code='1'))
        self.assertRaisesRegex(
            readiness.Failed, 'exited with code 1, whenever', self.over,
            waiting, power=0, after=readiness.STRUGGLE, exit_code='1',
            exit_reason='exited with code 1')

    def test_an_end_before_a_rebuild_does_not_count(self):
        waiting = self.waiting()
        self.assertFalse(self.over(waiting, exit_code='137'))
        self.assertTrue(self.over(waiting, after=3, exit_code='137'))

    def test_healthy(self):
        for wait_for in (None, 'healthy'):
            waiting = self.waiting(wait_for)
            self.assertFalse(self.over(waiting, health='starting'))
            self.assertFalse(self.over(waiting, after=99, health='starting'))
            self.assertTrue(self.over(waiting, health='healthy'))

    def test_health_may_be_of_no_interest(self):
        waiting = self.waiting('running')
        self.over(waiting, health='unhealthy')
        self.assertTrue(self.over(waiting, after=3, health='unhealthy'))

    def test_unhealthy_fails(self):
        self.assertRaisesRegex(
            readiness.Failed, 'health check failed', self.over,
            self.waiting(), health='unhealthy')

    def test_healthy_without_a_check_fails(self):
        waiting = self.waiting('healthy')
        self.assertFalse(self.over(waiting, after=5))
        self.assertRaisesRegex(readiness.Failed, 'no health check', self.over,
                               waiting, after=readiness.PATIENCE + 1)

    def test_exited(self):
        waiting = self.waiting('exited:3')
        self.assertFalse(self.over(waiting, after=99))
        self.assertFalse(self.over(waiting, 'SHUTOFF', power=4))
        self.assertTrue(self.over(waiting, 'SHUTOFF', power=4, exit_code='3'))
        self.assertRaisesRegex(
            readiness.Failed, 'exited with code 0', self.over, waiting,
            'SHUTOFF', exit_code='0', exit_reason='exited with code 0')

    def test_ended_while_it_should_run(self):
        self.assertRaises(readiness.Failed, self.over, self.waiting(),
                          'SHUTOFF', exit_code='0')

    def test_stopped_by_a_user(self):
        waiting = self.waiting()
        self.assertFalse(self.over(waiting, 'SHUTOFF'))
        self.assertRaisesRegex(readiness.Failed, 'stopped', self.over,
                               waiting, 'SHUTOFF',
                               after=readiness.PATIENCE + 1)


class ConditionsTest(base.TestCase):

    def conditions(self, wait_for=None, status='ACTIVE', **said):
        """What differs: name -> seen, wanted."""
        found = readiness.conditions(
            readiness.Wanted.parse(wait_for), readiness.Observation(
                status, 1, {f'container:{key}': value
                            for key, value in said.items()}))
        return {entry['attr']: (entry['current'], entry['expected'])
                for entry in found}

    def test_a_service_has_to_run(self):
        self.assertEqual({'state': ('exited', 'running')},
                         self.conditions(status='SHUTOFF', exit_code='0'))

    def test_health_may_still_be_found_out(self):
        for health in ('healthy', 'starting', 'unhealthy'):
            seen, wanted = self.conditions(health=health)['health']
            self.assertEqual(health != 'unhealthy', seen in wanted)

    def test_health_is_nothing_to_who_asks_that_it_runs(self):
        self.assertEqual({'state': ('running', 'running')},
                         self.conditions('running', health='unhealthy'))

    def test_a_job_has_to_have_ended_as_wanted(self):
        self.assertEqual(
            {'state': ('exited', 'exited'), 'exit_code': (1, 0)},
            self.conditions('exited:0', 'SHUTOFF', exit_code='1'))
