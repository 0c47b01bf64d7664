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

import itertools

from tests.cloud import base

# Seconds after the API has answered; a boot takes two to four, a delete one.
_BOOT_MOMENTS = (0.1, 0.4, 0.7, 1.0, 1.3, 1.6, 1.9, 2.2, 2.6, 3.0)
_DELETE_MOMENTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


class KillTest(base.CloudTestCase):
    """nova-compute killed with SIGKILL, at ten moments each.

    Its supervisor starts it again. What a user asked for then comes to an
    end, and the nodes are as they were.
    """

    def test_during_boot(self):
        ends = []
        for moment in _BOOT_MOMENTS:
            server = self.boot(self.busybox())
            base.kill_computes(moment)
            ends.append(self.settled(server))
            self.delete(server)
            self.assertEqual(self.before, base.host_state(), moment)
        self.assertLessEqual(set(ends), {'ACTIVE', 'ERROR'})

    def test_during_delete(self):
        for moment in _DELETE_MOMENTS:
            server = self.active(self.boot(self.busybox()))
            self.user.compute.delete_server(server)
            base.kill_computes(moment)
            self.user.compute.wait_for_delete(server, interval=0.5, wait=120)
            self.assertEqual(self.before, base.host_state(), moment)

    def test_running_servers_do_not_notice(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:command':
                '/bin/sh -c "while :; do date +%s; sleep 1; done"'}))
        base.kill_computes(0)
        log = self.console_lines(server)
        for _ in base.utils.iterate_timeout(60, 'it stands still', wait=1):
            if len(self.console_lines(server)) > len(log) + 2:
                break
        times = [int(line) for line in self.console_lines(server)]
        self.assertLess(max(b - a for a, b in itertools.pairwise(times)), 4)

    def console_lines(self, server) -> list[str]:
        return self.console(server).split()
