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

from nova_container.privileged import console_log
from nova_container.privileged import place
from nova_container.runtime import console
from nova_container.runtime import engine
from nova_container.runtime import state
from tests.functional import base

_SIZE = 3 << 20


class ConsoleLogTest(base.RuntimeTestCase):

    def setUp(self):
        super().setUp()
        base.CONF.set_override('log_size', _SIZE, 'container')
        self.addCleanup(base.CONF.clear_override, 'log_size', 'container')

    def sizes(self, container_id):
        """Bytes of the log's files, each file once."""
        path = place.container_state(container_id)
        found = {}
        for name in os.listdir(path):
            if name.startswith('log'):
                stat = os.stat(os.path.join(path, name))
                found[stat.st_ino] = stat.st_size
        return sum(found.values())

    def flood(self, megabytes):
        container_id = self.run_container(
            '/bin/sh', '-c', 'echo first line; yes 0123456789 | '
            f'head -n {megabytes * 100000}; echo last line')
        self.finish(container_id)
        return container_id

    def test_first_and_last_lines_of_a_flood(self):
        container_id = self.flood(12)
        for step in (lambda: None, console_log.keep_all,
                     lambda: engine.halt(container_id)):
            step()
            self.assertTrue(console.head(container_id, 1000).startswith(
                b'first line\n0123456789\n'))
            self.assertTrue(self.text(container_id).endswith(
                '0123456789\nlast line\n'))
            self.assertLessEqual(self.sizes(container_id),
                                 _SIZE + console_log.HEAD_SIZE)

    def test_tail_reaches_into_the_previous_file(self):
        container_id = self.flood(2)
        engine.halt(container_id)
        current = os.path.getsize(place.container_state(container_id, 'log'))
        text = console.text(container_id, current + 100000)
        lines = text.decode().splitlines()
        self.assertEqual({'0123456789', 'last line'}, set(lines))
        self.assertGreater(len(text), 10000)

    def test_starts_of_one_container_share_the_limit(self):
        container_id = self.flood(1)
        for _ in range(6):
            engine.halt(container_id)
            engine.create(container_id)
            engine.start(container_id)
            self.finish(container_id)
        engine.halt(container_id)
        self.assertLessEqual(self.sizes(container_id),
                             _SIZE + console_log.HEAD_SIZE)
        self.assertTrue(console.head(container_id, 1000).startswith(
            b'first line'))

    def test_head_of_a_short_log(self):
        container_id = self.run_container('/bin/sh', '-c', 'echo a; echo b')
        self.finish(container_id)
        self.assertEqual(b'a\nb\n', console.head(container_id, 10000))
        self.assertEqual(b'a\n', console.head(container_id, 60))

    def test_monitor_killed(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'echo before; exec sleep 100000')
        while 'before' not in self.text(container_id):
            self.assertIsNotNone(state.read(container_id).process)
        os.kill(state.read(container_id).monitor.pid, 9)
        console_log.keep_all()
        self.assertEqual('before\n', self.text(container_id))

    def test_keeper_runs_by_itself(self):
        keeper = console.LogKeeper()
        self.addCleanup(keeper.stop)
        container_id = self.flood(4)
        self.assertTrue(console.head(container_id, 100).startswith(b'first'))
