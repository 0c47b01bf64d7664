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

"""Services that are killed in the middle of what users ask for.

Run by name, since it takes long::

    tools/test faults
    FAULT_OPERATIONS=200 FAULT_SEED=7 tools/test faults -- RandomTest

It prints the fault table at its end: what was killed, during what, how often a
user saw an error, and what was left behind.
"""

import collections
import dataclasses
import itertools
import os
import random
import sys
import time

from openstack import exceptions

from tests.cloud import base
from tests.cloud import test_snapshot

_SEED = int(os.environ.get('FAULT_SEED', '1'))
_OPERATIONS = int(os.environ.get('FAULT_OPERATIONS', '20'))

# Seconds from the answer of the API to the kill.
_LATEST = 3.0

_SERVICES = ('rabbitmq', 'mariadb', 'glance', 'neutron-api', 'vswitchd@',
             'nova-compute@', 'privsep-helper')


@dataclasses.dataclass
class Row:
    """One line of the table.

    :ivar errors: operations that a user saw fail
    :ivar helped: of them, those that a hard reboot, or a restart of
        nova-compute, mended
    :ivar leaks: kinds of things left on the nodes afterwards
    """

    operations: int = 0
    errors: int = 0
    helped: int = 0
    leaks: tuple[str, ...] = ()


_TABLE: dict[tuple[str, str], Row] = collections.defaultdict(Row)


def _print_table() -> None:
    lines = [f'{"killed":<16}{"during":<12}{"operations":>10}{"errors":>8}'
             f'{"mended":>8}  leaks']
    lines += [f'{fault:<16}{operation:<12}{row.operations:>10}'
              f'{row.errors:>8}{row.helped:>8}  {", ".join(row.leaks) or "-"}'
              for (fault, operation), row in sorted(_TABLE.items())]
    print('\n'.join(('', *lines)), file=sys.stderr)


def _kill(fault: str) -> None:
    """Kill a service wherever it runs, and wait until it serves again."""
    if fault == 'privsep-helper':
        for node in base.cloud()['nodes']:
            for process in base.privileged_helpers(node):
                process.kill()
        return
    names = [row['name'] for row in base.cloud()['services']
             if row['name'] == fault or (fault.endswith('@')
                                         and row['name'].startswith(fault))]
    pids = {name: base.service_pid(name) for name in names}
    for pid in pids.values():
        base.kill_group(pid)
    for name, pid in pids.items():
        base.await_new_pid(name, pid)


class FaultTestCase(base.CloudTestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.random = random.Random(_SEED)
        tiny, small = (cls.user.compute.find_flavor(name, ignore_missing=False)
                       for name in ('c1.tiny', 'c1.small'))
        cls.flavors = {tiny.name: small.id, small.name: tiny.id}
        layers = set(test_snapshot.layer_images(cls.user))
        cls.addClassCleanup(lambda: [
            cls.user.image.delete_image(image) for image in
            set(test_snapshot.layer_images(cls.user)) - layers])
        cls.addClassCleanup(_print_table)

    def operate(self, operation: str, server) -> None:
        """Ask for something; what it answers at once counts, too."""
        if operation == 'migrate':
            self.admin.compute.migrate_server(server)
        elif operation == 'delete':
            self.user.compute.delete_server(server)
        elif operation == 'reboot':
            self.user.compute.reboot_server(server, 'HARD')
        elif operation == 'rebuild':
            self.user.compute.rebuild_server(server, image=self.busybox())
        elif operation == 'resize':
            now = self.user.compute.get_server(server).flavor.name
            self.user.compute.resize_server(server, self.flavors[now])
        elif operation == 'snapshot':
            image = self.user.compute.create_server_image(server, 'test')
            self.addCleanup(self.user.image.delete_image, image,
                            ignore_missing=True)
        else:
            getattr(self.user.compute, f'{operation}_server')(server)

    def rest(self, server, wait: int = 300,
             left: str | None = None) -> str | None:
        """The status once nothing is under way; DELETED when it is gone.

        None if that does not come: Nova has given up, and could not even
        write that down.

        :param wait: seconds
        :param left: a status that is under way to another one
        """
        try:
            for _ in base.utils.iterate_timeout(
                    wait, f'server {server.id} is still at work', wait=1):
                try:
                    found = self.user.compute.get_server(server)
                except exceptions.NotFoundException:
                    return 'DELETED'
                except exceptions.SDKException:
                    continue
                if (found.task_state is None
                        and found.status not in ('BUILD', left)):
                    return found.status
        except exceptions.ResourceTimeout:
            return None

    def again(self, action, *args) -> None:
        """What a user does who sees an error: the same once more."""
        for _ in base.utils.iterate_timeout(120, 'it is refused', wait=2):
            try:
                return action(*args)
            except exceptions.NotFoundException:
                return
            except exceptions.SDKException:
                continue

    def end(self, server, row: Row) -> None:
        """Remove the server, and count what it leaves."""
        if self.rest(server, 60) == 'VERIFY_RESIZE':
            self.again(self.user.compute.confirm_server_resize, server)
            self.rest(server, left='VERIFY_RESIZE')
        self.again(self.user.compute.delete_server, server)
        self.user.compute.wait_for_delete(server, interval=1, wait=300)
        found = {}
        # A host looks once a minute for what has moved away for good.
        for _ in range(90):
            found = base.host_state()
            if found == self.before:
                break
            time.sleep(1)
        leaks = {kind for kind in found
                 if found[kind] != self.before.get(kind)}
        if base.transfers():
            leaks.add('transfers')
        if base.nova_manage('placement', 'audit').returncode:
            leaks.add('allocations')
        row.leaks = tuple(sorted({*row.leaks, *leaks}))
        self.assertEqual(set(), leaks, found)


class ServiceTest(FaultTestCase):
    """Each service during each kind of operation."""

    def case(self, fault: str, operation: str) -> None:
        row = _TABLE[fault, operation]
        row.operations += 1
        server = self.boot(self.busybox(), metadata={
            'container:stop_signal': 'SIGKILL'})
        if operation != 'boot':
            self.active(server)
            self.operate(operation, server)
        time.sleep(self.random.uniform(0, _LATEST))
        _kill(fault)
        wanted = {'boot': 'ACTIVE', 'migrate': 'VERIFY_RESIZE',
                  'delete': 'DELETED'}[operation]
        status = self.rest(server)
        stuck = status is None
        if stuck:
            base.kill_computes(0)
            status = self.rest(server, 60)
        if stuck or status != wanted:
            row.errors += 1
            if operation == 'migrate' and status != wanted:
                # It is where it was, or goes on where it was to go.
                if status == 'ERROR':
                    self.again(self.user.compute.reboot_server, server,
                               'HARD')
                    status = self.rest(server)
                self.assertEqual('ACTIVE', status)
            row.helped += status not in ('ERROR', None)
        self.end(server, row)


def _case(fault, operation):
    def test(self):
        self.case(fault, operation)
    return test


for _fault, _operation in itertools.product(
        _SERVICES, ('boot', 'delete', 'migrate')):
    setattr(ServiceTest, f'test_{_fault.strip("@").replace("-", "_")}_during_'
            f'{_operation}', _case(_fault, _operation))


class RandomTest(FaultTestCase):
    """nova-compute killed at random moments of many operations."""

    # Seconds.
    timeout = max(base.CloudTestCase.timeout, 30 * _OPERATIONS)

    def test_known_state_after_every_kill(self):
        row = _TABLE['nova-compute@', 'random']
        server = None
        for number in range(_OPERATIONS):
            if server is None:
                server = self.active(self.boot(self.busybox(), metadata={
                    'container:stop_signal': 'SIGKILL'}))
            status = self.rest(server)
            self.assertIsNotNone(status, f'{server.id} is still at work')
            operation = self.random.choice({
                'ACTIVE': ('reboot', 'stop', 'pause', 'suspend', 'rescue',
                           'migrate', 'resize', 'rebuild', 'snapshot',
                           'delete'),
                'SHUTOFF': ('start', 'migrate'), 'PAUSED': ('unpause',),
                'SUSPENDED': ('resume',), 'RESCUE': ('unrescue',),
                'VERIFY_RESIZE': ('confirm_server_resize',
                                  'revert_server_resize'),
                'ERROR': ('reboot', 'rebuild')}[status])
            row.operations += 1
            row.errors += status == 'ERROR'
            with self.subTest(number=number, operation=operation):
                if '_' in operation:
                    self.again(getattr(self.user.compute, operation), server)
                else:
                    self.again(self.operate, operation, server)
                if self.random.random() < 0.5:
                    time.sleep(self.random.uniform(0, _LATEST))
                    _kill('nova-compute@')
                # While a move is confirmed, Nova gives the server no task.
                if self.rest(server, left='VERIFY_RESIZE'
                             if operation == 'confirm_server_resize'
                             else None) == 'DELETED':
                    server = None
        if server is not None:
            self.end(server, row)
