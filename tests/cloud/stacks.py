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

"""A test with stacks of Heat, as a user."""

import json
import pathlib
import signal
import uuid

from openstack import exceptions
from openstack.orchestration.v1 import stack as stack_
from openstack import utils
import yaml

import heat_plugin
from tests.cloud import base

TEMPLATES = pathlib.Path(heat_plugin.__file__).parent / 'templates'

_TIMEOUT = 300

# Ends at once when it is asked to.
SLEEP = 'trap "exit 0" TERM; sleep 1000000 & wait'


class StackTestCase(base.CloudTestCase):
    """Stacks of one test, and nothing of them afterwards."""

    def setUp(self):
        super().setUp()
        before = self.resources()
        self.addCleanup(lambda: self.assertEqual(
            before, self.resources(), 'left in the project'))

    def resources(self) -> dict[str, set[str]]:
        """What the project has, by kind."""
        network = self.user.network
        return {
            'servers': {s.id for s in self.user.compute.servers()},
            'ports': {p.id for p in network.ports()
                      if p.device_owner.startswith('compute:')},
            'groups': {g.id for g in network.security_groups()},
            'floating IPs': {ip.id for ip in network.ips()},
            'networks': {n.id for n in network.networks()},
            'routers': {r.id for r in network.routers()},
            'volumes': {v.id for v in self.user.block_storage.volumes()}
            if base.cloud()['volumes'] else set(),
        }

    def container(self, script: str = SLEEP, **more) -> dict:
        """A resource: busybox that runs a script."""
        return {'type': 'NovaContainer::Container', 'properties': {
            'image': self.busybox(), 'flavor': 'c1.tiny',
            'command': ['/bin/sh', '-c', script],
            'networks': [{'network': 'private'}], **more}}

    @staticmethod
    def template(outputs=None, **resources) -> str:
        """A template; outputs are attributes: name -> [resource, attribute].
        """
        return yaml.safe_dump({
            'heat_template_version': 'wallaby', 'resources': resources,
            'outputs': {name: {'value': {'get_attr': path}}
                        for name, path in (outputs or {}).items()}})

    def create(self, template: str, **parameters):
        """A stack that is on its way; removed after the test."""
        stack = self.user.orchestration.create_stack(
            name=f'test-{uuid.uuid4().hex[:8]}', template=template,
            parameters=parameters, timeout_mins=_TIMEOUT // 60)
        self.addCleanup(self.remove, stack)
        return stack

    def seen(self, stack_id: str) -> stack_.Stack:
        """A stack now; to openstacksdk an adopted one is none."""
        return stack_.Stack.existing(**self.request(
            'GET', f'/stacks/{stack_id}').json()['stack'])

    def settled(self, stack):
        """The stack, once nothing is in progress."""
        for _ in utils.iterate_timeout(
                _TIMEOUT, 'the stack is still at work', wait=0.5):
            found = self.seen(stack.id)
            if not found.status.endswith('IN_PROGRESS'):
                return found

    def complete(self, stack, action: str):
        """The stack, once an action is complete."""
        found = self.settled(stack)
        self.assertEqual(f'{action}_COMPLETE', found.status,
                         found.status_reason)
        return found

    def physical(self, stack) -> dict[str, str]:
        """Ids of the resources."""
        return {r.name: r.physical_resource_id
                for r in self.user.orchestration.resources(stack)}

    def reason(self, stack, name: str) -> str:
        """Why a resource has failed."""
        (found,) = (r for r in self.user.orchestration.resources(stack)
                    if r.name == name)
        return found.status_reason

    def update(self, stack, template: str, files=None, **parameters):
        """The stack, once it is as in another template."""
        self._begin_update(stack, template=template, files=files or {},
                           parameters=parameters)
        return self.complete(stack, 'UPDATE')

    def update_in_vain(self, stack, template: str):
        """The stack, once its update has failed."""
        self._begin_update(stack, template=template)
        found = self.settled(stack)
        self.assertEqual('UPDATE_FAILED', found.status, found.status_reason)
        return found

    def roll_back(self, stack, template: str):
        """The stack, once Heat has taken back an update that failed."""
        self._begin_update(stack, template=template,
                           is_rollback_disabled=False)
        for _ in utils.iterate_timeout(
                _TIMEOUT, 'the update is not rolled back', wait=0.5):
            found = self.seen(stack.id)
            self.assertNotIn(found.status,
                             ('UPDATE_COMPLETE', 'ROLLBACK_FAILED'),
                             found.status_reason)
            if found.status == 'ROLLBACK_COMPLETE':
                return found

    def _begin_update(self, stack, **fields) -> None:
        before = self.seen(stack.id).updated_at
        self.user.orchestration.update_stack(stack, **fields)
        self._await_begin(stack, before)

    def _await_begin(self, stack, before: str | None) -> None:
        """Wait until a stack is no longer what was updated last before."""
        for _ in utils.iterate_timeout(
                _TIMEOUT, 'nothing begins', wait=0.2):
            if self.seen(stack.id).updated_at != before:
                return

    def remove(self, stack) -> None:
        """Delete a stack, and wait until it is gone."""
        if not self._gone(stack):
            self.user.orchestration.delete_stack(stack, ignore_missing=True)
        self._await_end(stack)

    def _await_end(self, stack) -> None:
        for _ in utils.iterate_timeout(
                _TIMEOUT, 'the stack is not deleted', wait=0.5):
            if self._gone(stack):
                return
            found = self.seen(stack.id)
            self.assertNotEqual('DELETE_FAILED', found.status,
                                found.status_reason)

    def _gone(self, stack) -> bool:
        try:
            return self.seen(stack.id).status == 'DELETE_COMPLETE'
        except exceptions.NotFoundException:
            return True

    def end_from_inside(self, server) -> None:
        """Have process 1 end; back once it is started again and healthy."""
        # Process 1 takes all others with it, and kill may be one of them.
        done = self.execute(server, 'kill', '1', check=False)
        self.assertIn(done.returncode, (0, 128 + signal.SIGKILL), done.stderr)
        for _ in utils.iterate_timeout(
                _TIMEOUT, 'it does not come back', wait=0.3):
            seen = self.user.compute.get_server(server.id).metadata
            if (seen.get('container:exit_code') == '0'
                    and seen.get('container:health') == 'healthy'):
                return

    def sleep_and_wake(self, stack, *servers) -> None:
        """Suspend a stack, see that its servers are, and resume it."""
        self.user.orchestration.suspend_stack(stack)
        self.complete(stack, 'SUSPEND')
        for server in servers:
            self.assertEqual('SUSPENDED', self.user.compute.get_server(
                server.id).status)
        self.user.orchestration.resume_stack(stack)
        self.complete(stack, 'RESUME')

    def check(self, stack):
        """The stack, once Heat has compared it with what is there."""
        before = self.seen(stack.id).updated_at
        self.user.orchestration.check_stack(stack)
        self._await_begin(stack, before)
        return self.settled(stack)

    def request(self, method: str, path: str, **fields):
        """What Heat answers, where openstacksdk has no call for it."""
        answer = self.user.orchestration.request(
            path, method, json=fields or None)
        exceptions.raise_from_response(answer)
        return answer

    def abandon(self, stack) -> dict:
        """Have Heat forget a stack and leave what it has made."""
        data = self.user.orchestration.abandon_stack(stack)
        self._await_end(stack)
        return data

    def adopt(self, data: dict):
        """A stack of what another had; removed after the test."""
        made = self.request(
            'POST', '/stacks', stack_name=f'test-{uuid.uuid4().hex[:8]}',
            adopt_stack_data=json.dumps(data), files={}, environment={},
            parameters={}, disable_rollback=True,
            timeout_mins=_TIMEOUT // 60).json()['stack']
        stack = self.seen(made['id'])
        self.addCleanup(self.remove, stack)
        return stack

    def snapshot(self, stack) -> str:
        """The path of a new snapshot of a stack."""
        path = f'/stacks/{stack.name}/{stack.id}/snapshots'
        made = self.request('POST', path, name='test').json()
        self.complete(stack, 'SNAPSHOT')
        return f'{path}/{made["id"]}'

    def restore(self, stack, snapshot: str):
        """The stack, once it is as in a snapshot."""
        self.request('POST', f'{snapshot}/restore')
        return self.complete(stack, 'RESTORE')

    def forget(self, snapshot: str) -> None:
        """Delete a snapshot, and wait until it is gone."""
        self.request('DELETE', snapshot)
        for _ in utils.iterate_timeout(
                _TIMEOUT, 'the snapshot is not deleted', wait=0.5):
            try:
                self.request('GET', snapshot)
            except exceptions.NotFoundException:
                return

    def images(self) -> set[str]:
        """Ids of the images of the project."""
        return {image.id for image in self.user.image.images(
            owner=self.user.current_project_id)}

    @staticmethod
    def outputs(stack) -> dict:
        return {entry['output_key']: entry.get('output_value')
                for entry in stack.outputs}
