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

import contextlib
import itertools

import psutil

from tests.cloud import base

# Seconds after the API has answered the last request. It takes its time for
# each, so that those before are further; a boot takes two to four, a delete
# one.
_BOOT_MOMENTS = (0.1, 0.8, 1.6)
_DELETE_MOMENTS = (0.0, 0.1, 0.4)
_AT_ONCE = 4


class KillTest(base.CloudTestCase):
    """nova-compute killed with SIGKILL while it does several things, each
    further than the next.

    Its supervisor starts it again. What a user asked for then comes to an
    end, and the nodes are as they were.
    """

    def test_during_boots(self):
        ends = []
        for moment in _BOOT_MOMENTS:
            servers = [self.boot(self.busybox()) for _ in range(_AT_ONCE)]
            base.kill_computes(moment)
            ends += [self.settled(server) for server in servers]
            for server in servers:
                self.delete(server)
            self.assertEqual(self.before, base.host_state(), moment)
        self.assertLessEqual(set(ends), {'ACTIVE', 'ERROR'})

    def test_during_deletes(self):
        for moment in _DELETE_MOMENTS:
            servers = [self.boot(self.busybox()) for _ in range(_AT_ONCE)]
            for server in servers:
                self.active(server)
            for server in servers:
                self.user.compute.delete_server(server)
            base.kill_computes(moment)
            for server in servers:
                self.user.compute.wait_for_delete(server, interval=0.5,
                                                  wait=120)
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


class InterruptedTest(base.CloudTestCase):
    """What Nova itself would forget the end of.

    The privileged helpers are held, so that an operation is begun and cannot
    go on, when the services are killed.
    """

    def test_no_server_stays_in_its_task(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:stop_signal': 'SIGKILL'}))
        self.execute(server, 'sh', '-c', 'echo kept >/srv/kept')
        addresses = self.user.compute.get_server(server).addresses
        here = self.host(server)
        other = next((node['name'] for node in base.cloud()['nodes']
                      if node['name'] != here), here)

        self.assertEqual('ACTIVE', self.interrupted(
            'suspend_server', server, 'compute_suspend_instance'))
        self.user.compute.suspend_server(server)
        self.assertEqual('SUSPENDED', self.settled(server))
        self.assertEqual('SUSPENDED', self.interrupted(
            'resume_server', server, 'compute_resume_instance'))
        self.user.compute.resume_server(server)
        self.assertEqual('ACTIVE', self.settled(server))

        self.assertEqual('ACTIVE', self.interrupted(
            'rescue_server', server, 'compute_rescue_instance'))
        self.user.compute.rescue_server(server)
        self.assertEqual('RESCUE', self.settled(server))
        self.assertEqual('RESCUE', self.interrupted(
            'unrescue_server', server, 'compute_unrescue_instance'))
        self.user.compute.unrescue_server(server)
        self.assertEqual('ACTIVE', self.settled(server))

        # On its old host: it stays there.
        self.assertEqual('ACTIVE', self.interrupted(
            'migrate_server', server, 'compute_resize_instance', host=other))
        self.assertEqual(here, self.host(server))
        self.assertEqual({here}, self.allocated(server))
        # On its way back.
        self.admin.compute.migrate_server(server, host=other)
        self.status(server, 'VERIFY_RESIZE')
        self.assertEqual('ACTIVE', self.interrupted(
            'revert_server_resize', server, 'compute_finish_revert_resize',
            hosts=[here]))
        self.assertEqual({here}, self.allocated(server))
        # On its new one: it goes on there.
        self.assertEqual('VERIFY_RESIZE', self.interrupted(
            'migrate_server', server, 'compute_finish_resize', hosts=[other],
            task='resize_finish', host=other))
        self.user.compute.confirm_server_resize(server)
        self.status(server, 'ACTIVE')
        self.assertEqual(other, self.host(server))
        for _ in base.utils.iterate_timeout(60, 'not confirmed', wait=0.2):
            if self.ended(server, 'compute_confirm_resize'):
                break
        self.assertEqual({other}, self.allocated(server))
        self.assertEqual([], base.transfers())

        self.assertEqual('kept\n', self.execute(
            server, 'cat', '/srv/kept').stdout)
        self.assertEqual(addresses, self.user.compute.get_server(
            server).addresses)

    def test_a_helper_that_is_killed_during_delete(self):
        server = self.active(self.boot(self.busybox()))
        held = [helper for node in base.cloud()['nodes']
                for helper in base.privileged_helpers(node)]
        for helper in held:
            helper.suspend()
        try:
            self.user.compute.delete_server(server)
            self.await_begin(server, 'compute_terminate_instance')
        finally:
            for helper in held:
                helper.kill()
        self.user.compute.wait_for_delete(server, interval=0.5, wait=120)

    def interrupted(self, operation: str, server, event: str, hosts=None,
                    task: str | None = None, **fields) -> str:
        """The status in which a server is found again."""
        nodes = [node for node in base.cloud()['nodes']
                 if hosts is None or node['name'] in hosts]
        held = [helper for node in nodes
                for helper in base.privileged_helpers(node)]
        for helper in held:
            helper.suspend()
        try:
            compute = (self.admin if fields else self.user).compute
            getattr(compute, operation)(server, **fields)
            self.await_begin(server, event)
            if task is not None:
                self.await_task(server, task)
            base.kill_computes(0, nodes)
        finally:
            for helper in held:
                with contextlib.suppress(psutil.NoSuchProcess):
                    helper.kill()
        return self.settled(server)

    def await_begin(self, server, name: str) -> None:
        for _ in base.utils.iterate_timeout(60, f'no {name}', wait=0.1):
            if self.events(server, name):
                return

    def ended(self, server, name: str) -> bool:
        return any(event.finish_time is not None
                   for event in self.events(server, name))

    def events(self, server, name: str) -> list:
        """Those of the newest action that are called so."""
        newest = next(self.user.compute.server_actions(server))
        found = self.user.compute.get_server_action(newest.request_id, server)
        return [event for event in found.events if event.event == name]

    def await_task(self, server, name: str) -> None:
        for _ in base.utils.iterate_timeout(60, f'no {name}', wait=0.1):
            if self.user.compute.get_server(server).task_state == name:
                return

    def host(self, server) -> str:
        return self.admin.compute.get_server(server.id).hypervisor_hostname

    def allocated(self, server) -> set[str]:
        """Hosts whose resources the server and its migrations have."""
        consumers = [server.id, *(
            migration.uuid for migration in self.admin.compute.migrations(
                instance_uuid=server.id))]
        return {self.admin.placement.get_resource_provider(provider).name
                for consumer in consumers
                for provider in self.admin.placement.get(
                    f'/allocations/{consumer}').json()['allocations']}
