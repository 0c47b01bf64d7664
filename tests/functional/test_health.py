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

from concurrent import futures
import os
import pathlib
import threading
import time
from unittest import mock

from nova_container import exception
from nova_container.privileged import execution
from nova_container.privileged import health as privileged
from nova_container.privileged import place
from nova_container.runtime import engine
from nova_container.runtime import health
from nova_container.runtime import state
from nova_container.spec import command
from nova_container.spec import health as spec
from tests.functional import base

FOREVER = ('/bin/sleep', '1000000')
# Healthy as long as /srv/well is there.
_WELL = ('/bin/test', '-e', '/srv/well')


class HealthTestCase(base.RuntimeTestCase):

    def run_checked(self, test=_WELL, script='touch /srv/well', **wishes):
        container_id = self.define('/bin/sh', '-c',
                                   f'{script}; echo ready; exec sleep 100000')
        self.redefine(container_id, health=spec.Healthcheck(test, **wishes))
        engine.create(container_id)
        engine.start(container_id)
        while 'ready' not in self.text(container_id):
            self.assertIsNotNone(state.read(container_id).process)
        return container_id

    def execute(self, container_id, *args):
        done = engine.execute(container_id, command.Command(args))
        self.assertEqual(0, done.exit_code)

    def check(self, container_id):
        said = privileged.check(container_id)
        self.assertEqual(said, state.read(container_id).health)
        return said


class HealthTest(HealthTestCase):

    def test_starting_then_healthy_then_unhealthy(self):
        container_id = self.run_checked(retries=2)
        self.assertEqual('starting', state.read(container_id).health)
        self.assertEqual('healthy', self.check(container_id))
        self.execute(container_id, '/bin/rm', '/srv/well')
        self.assertEqual('healthy', self.check(container_id))
        self.assertEqual('unhealthy', self.check(container_id))

    def test_one_success_makes_it_well_again(self):
        container_id = self.run_checked(script=':', retries=1)
        self.assertEqual('unhealthy', self.check(container_id))
        self.execute(container_id, '/bin/touch', '/srv/well')
        self.assertEqual('healthy', self.check(container_id))

    def test_failures_in_the_start_period_do_not_count(self):
        container_id = self.run_checked(script=':', retries=1,
                                        start_period=3600.0)
        self.assertEqual('starting', self.check(container_id))
        path = place.container_run(container_id, 'started')
        pathlib.Path(path).write_text(
            str(time.clock_gettime(time.CLOCK_BOOTTIME) - 3601))
        self.assertEqual('unhealthy', self.check(container_id))

    def test_clock_that_was_set_back_after_the_start(self):
        container_id = self.run_checked(script=':', retries=1)
        ahead = time.time() + 3600
        os.utime(place.container_run(container_id, 'started'),
                 (ahead, ahead))
        self.assertEqual('unhealthy', self.check(container_id))

    def test_timeout_is_a_failure(self):
        container_id = self.run_checked(('/bin/sleep', '1000'), retries=1,
                                        timeout=0.2)
        self.assertEqual('unhealthy', self.check(container_id))
        self.assertIn('no answer', privileged.read(container_id).output)

    def test_paused_meanwhile_is_no_failure(self):
        container_id = self.run_checked(
            ('/bin/sh', '-c', 'touch /srv/begun; exec sleep 1000'),
            retries=1, timeout=2.0)
        self.enterContext(mock.patch.object(execution, '_END_TIMEOUT', 0))
        with futures.ThreadPoolExecutor() as pool:
            checked = pool.submit(privileged.check, container_id)
            while not os.path.exists(self.upper(container_id, 'srv/begun')):
                self.assertFalse(checked.done())
            engine.pause(container_id)
            with self.assertRaisesRegex(exception.StateConflict, 'paused'):
                checked.result()
        with self.assertRaisesRegex(exception.StateConflict, 'paused'):
            privileged.check(container_id)
        engine.resume(container_id)
        self.assertEqual('starting', state.read(container_id).health)

    def test_command_that_is_not_there(self):
        container_id = self.run_checked(('/bin/nowhere',), retries=1)
        self.assertEqual('unhealthy', self.check(container_id))
        self.assertIn('nowhere', privileged.read(container_id).output)

    def test_output_is_kept(self):
        container_id = self.run_checked(('/bin/echo', 'all', 'well'))
        self.check(container_id)
        self.assertEqual('all well\n', privileged.read(container_id).output)

    def test_no_check_no_health(self):
        container_id = self.run_container(*FOREVER)
        self.assertIsNone(state.read(container_id).health)

    def test_starting_again_after_a_restart(self):
        container_id = self.run_checked()
        self.check(container_id)
        engine.halt(container_id)
        self.assertIsNone(state.read(container_id).health)
        engine.create(container_id)
        engine.start(container_id)
        self.assertEqual('starting', state.read(container_id).health)


class HealthMonitorTest(HealthTestCase):

    def setUp(self):
        super().setUp()
        self.heard = threading.Condition()
        self.said = {}
        self.monitor = health.HealthMonitor(self.on_change)
        self.addCleanup(self.monitor.stop)

    def on_change(self, container_id, status):
        with self.heard:
            self.said.setdefault(container_id, []).append(status)
            self.heard.notify_all()

    def await_status(self, container_id, *statuses):
        with self.heard:
            self.assertTrue(self.heard.wait_for(
                lambda: self.said.get(container_id) == list(statuses), 60),
                self.said)

    def test_changes_are_told_once(self):
        container_id = self.run_checked(interval=1.0, retries=2)
        self.monitor.watch(container_id)
        self.await_status(container_id, 'starting', 'healthy')
        self.execute(container_id, '/bin/rm', '/srv/well')
        self.await_status(container_id, 'starting', 'healthy', 'unhealthy')

    def test_service_that_was_restarted_goes_on(self):
        container_id = self.run_checked(interval=1.0, retries=1)
        self.check(container_id)
        self.monitor.watch(container_id)
        self.await_status(container_id, 'healthy')
        self.execute(container_id, '/bin/rm', '/srv/well')
        self.await_status(container_id, 'healthy', 'unhealthy')

    def test_threads_do_not_grow_with_the_containers(self):
        before = threading.active_count()
        for _ in range(10):
            self.monitor.watch(self.run_checked(interval=1.0))
        with self.heard:
            self.assertTrue(self.heard.wait_for(lambda: all(
                said == ['starting', 'healthy']
                for said in self.said.values()), 60), self.said)
        self.assertLessEqual(threading.active_count(), before + 8)

    def test_one_that_hangs_does_not_hold_up_the_others(self):
        slow = self.run_checked(('/bin/sleep', '1000'), interval=1.0,
                                timeout=60.0)
        self.monitor.watch(slow)
        container_id = self.run_checked(interval=1.0)
        self.monitor.watch(container_id)
        self.await_status(container_id, 'starting', 'healthy')
        engine.halt(slow)
