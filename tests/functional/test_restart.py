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
import signal
import threading
import time

from nova_container import exception
from nova_container.privileged import place
from nova_container.privileged import process as processes
from nova_container.runtime import engine
from nova_container.runtime import monitor
from nova_container.runtime import restart
from nova_container.runtime import state
from nova_container.spec import restart as policy
from tests.functional import base

_TIMEOUT = 60


class RestartTestCase(base.RuntimeTestCase):
    """A service that watches containers and starts them again."""

    def setUp(self):
        super().setUp()
        self.changed = threading.Condition()
        self.starts = []
        self.given_up = []
        self.begin_service()
        self.addCleanup(self.end_service)

    def begin_service(self):
        self.restarter = restart.Restarter(self.start, self.give_up)
        self.monitor = monitor.ExitMonitor(self.restarter.ended)

    def end_service(self):
        self.monitor.stop()
        self.restarter.stop()

    def start(self, container_id, restarts):
        engine.halt(container_id, restarts)
        engine.create(container_id, restarts)
        engine.start(container_id)
        with self.changed:
            self.starts.append(restarts)
            self.changed.notify_all()
        self.monitor.watch(container_id)

    def give_up(self, container_id):
        with self.changed:
            self.given_up.append(container_id)
            self.changed.notify_all()

    def run_with(self, wish, *args):
        container_id = self.define(*args)
        self.redefine(container_id, restart=policy.RestartPolicy.parse(wish))
        # Before the container is removed.
        self.addCleanup(self.restarter.cancel, container_id)
        engine.create(container_id)
        engine.start(container_id)
        return container_id

    def await_starts(self, count):
        with self.changed:
            self.assertTrue(self.changed.wait_for(
                lambda: len(self.starts) >= count, _TIMEOUT), self.starts)

    def await_given_up(self, container_id):
        with self.changed:
            self.assertTrue(self.changed.wait_for(
                lambda: container_id in self.given_up, _TIMEOUT))


class RestartTest(RestartTestCase):

    def test_no(self):
        container_id = self.run_with('no', '/bin/false')
        self.monitor.watch(container_id)
        self.await_given_up(container_id)
        self.assertEqual([], self.starts)

    def test_always_after_success_too(self):
        container_id = self.run_with('always', '/bin/sh', '-c', 'echo run')
        self.monitor.watch(container_id)
        self.await_starts(3)
        self.restarter.cancel(container_id)
        self.assertEqual([1, 2, 3], self.starts[:3])
        self.assertGreaterEqual(self.text(container_id).count('run'), 3)

    def test_on_failure_a_number_of_times(self):
        container_id = self.run_with('on-failure:2', '/bin/sh', '-c',
                                     'echo run; exit 3')
        self.monitor.watch(container_id)
        self.await_given_up(container_id)
        self.assertEqual([1, 2], self.starts)
        self.assertEqual(3, self.text(container_id).count('run'))
        self.assertEqual((3, 2), (state.read(container_id).exit_code,
                                  state.read(container_id).restarts))

    def test_on_failure_not_after_success(self):
        container_id = self.run_with(
            'on-failure', '/bin/sh', '-c',
            'test -e /srv/x && exit 0; touch /srv/x; exit 1')
        self.monitor.watch(container_id)
        self.await_given_up(container_id)
        self.assertEqual([1], self.starts)

    def test_not_after_it_was_halted_on_purpose(self):
        container_id = self.run_with('always', '/bin/sleep', '1000000')
        self.monitor.watch(container_id)
        engine.halt(container_id)
        self.await_given_up(container_id)
        self.assertEqual([], self.starts)

    def test_not_after_it_was_asked_to_end(self):
        container_id = self.run_with(
            'always', '/bin/sh', '-c', 'trap "exit 0" TERM; echo ready; '
            'while :; do sleep 0.1; done')
        self.await_text(container_id, 'ready')
        self.monitor.watch(container_id)
        engine.stop(container_id, 20)
        self.await_given_up(container_id)
        self.assertEqual(([], 0), (self.starts,
                                   state.read(container_id).exit_code))

    def test_monitor_and_process_killed(self):
        container_id = self.run_with('on-failure', '/bin/sleep', '1000000')
        self.monitor.watch(container_id)
        running = state.read(container_id)
        for victim in (running.monitor, running.process):
            processes.send_signal(victim, signal.SIGKILL)
        self.await_starts(1)
        again = state.read(container_id)
        self.assertIs(state.Status.RUNNING, again.status)
        self.assertNotEqual(running.process, again.process)

    def test_ended_while_the_service_was_away(self):
        container_id = self.run_with('on-failure:3', '/bin/sh', '-c',
                                     'sleep 0.2; exit 1')
        self.monitor.watch(container_id)
        self.await_starts(1)
        self.end_service()
        self.finish(container_id)
        self.assertTrue(state.ended_unattended(container_id))
        self.begin_service()
        self.monitor.watch(container_id)
        self.await_given_up(container_id)
        self.assertEqual([1, 2, 3], self.starts)

    def test_start_that_fails_is_tried_again(self):
        broken = threading.Event()
        whole = self.start

        def start(container_id, restarts):
            if not broken.is_set():
                broken.set()
                engine.halt(container_id, restarts)
                raise exception.NetworkFailed('the network is away')
            whole(container_id, restarts)

        self.restarter._start = start
        container_id = self.run_with('always', '/bin/sh', '-c',
                                     'test -e /srv/x && exec sleep 1000; '
                                     'touch /srv/x')
        self.monitor.watch(container_id)
        self.await_starts(1)
        self.assertEqual([2], self.starts)
        self.assertIs(state.Status.RUNNING, state.read(container_id).status)

    def test_server_that_nova_is_at_work_on_is_waited_for(self):
        whole, busy = self.start, [True, True]

        def start(container_id, restarts):
            if busy:
                busy.pop()
                raise exception.ServerBusy('it is being built')
            whole(container_id, restarts)

        self.restarter._start = start
        container_id = self.run_with('on-failure:2', '/bin/false')
        self.monitor.watch(container_id)
        self.await_given_up(container_id)
        self.assertEqual([1, 2], self.starts)

    def test_service_killed_between_end_and_start(self):
        container_id = self.run_with('always', '/bin/sleep', '1000000')
        steps = (
            lambda: engine.halt(container_id, 7),
            lambda: (engine.halt(container_id, 7),
                     engine.create(container_id, 7)),
            lambda: pathlib.Path(place.container_run(
                container_id, 'halting')).write_text('7'))
        for step in steps:
            step()
            engine.setup(0, 0)
            self.assertEqual(7, restart.plan(container_id).restarts)
            self.assertIsNone(state.read(container_id).process)
            engine.create(container_id, 7)
            engine.start(container_id)
            self.assertIsNone(restart.plan(container_id))
        engine.halt(container_id, 8)
        engine.halt(container_id)
        self.assertIsNone(restart.plan(container_id))

    def test_pending_until_it_runs(self):
        container_id = self.run_with('on-failure:20', '/bin/false')
        self.finish(container_id)
        engine.halt(container_id)
        engine.create(container_id, 12)
        engine.start(container_id)
        self.finish(container_id)
        self.restarter.ended(container_id)
        self.assertTrue(self.restarter.pending(container_id))
        self.restarter.cancel(container_id)
        self.assertFalse(self.restarter.pending(container_id))


class PlanTest(base.RuntimeTestCase):

    def ended(self, wish, restarts, ran):
        container_id = self.define('/bin/false')
        self.redefine(container_id, restart=policy.RestartPolicy.parse(wish))
        engine.create(container_id, restarts)
        engine.start(container_id)
        self.finish(container_id)
        ended = os.stat(place.exit_file(container_id)).st_mtime
        path = pathlib.Path(place.container_run(container_id, 'started'))
        path.write_text(str(time.clock_gettime(time.CLOCK_BOOTTIME)
                            - (time.time() - ended) - ran))
        return restart.plan(container_id)

    def test_waits_longer_each_time(self):
        delays = [self.ended('always', count, 0).delay for count in
                  (0, 1, 5, 20)]
        self.assertEqual([0.1, 0.2, 3.2, 60.0], delays)

    def test_counts_afresh_after_a_stable_run(self):
        found = self.ended('on-failure:5', 5, 11)
        self.assertEqual((1, 0.1), (found.restarts, found.delay))
        self.assertIsNone(self.ended('on-failure:5', 5, 9))
