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

import textwrap
import uuid

from openstack import exceptions
from openstack import utils
import yaml

from tests.cloud import base

_TIMEOUT = 300

# Ends at once when it is asked to.
_SLEEP = 'trap "exit 0" TERM; sleep 1000000 & wait'


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
        }

    def container(self, script: str = _SLEEP, **more) -> dict:
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

    def settled(self, stack):
        """The stack, once nothing is in progress."""
        for _ in utils.iterate_timeout(
                _TIMEOUT, 'the stack is still at work', wait=0.5):
            found = self.user.orchestration.get_stack(stack.id)
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

    def update(self, stack, template: str):
        """The stack, once it is as in another template."""
        before = stack.updated_at
        self.user.orchestration.update_stack(stack, template=template)
        for _ in utils.iterate_timeout(
                _TIMEOUT, 'the update does not begin', wait=0.2):
            found = self.user.orchestration.get_stack(stack.id)
            if found.updated_at != before:
                break
        return self.complete(stack, 'UPDATE')

    def remove(self, stack) -> None:
        """Delete a stack, and wait until it is gone."""
        orchestration = self.user.orchestration
        orchestration.delete_stack(stack, ignore_missing=True)
        for _ in utils.iterate_timeout(
                _TIMEOUT, 'the stack is not deleted', wait=0.5):
            try:
                found = orchestration.get_stack(stack.id)
            except exceptions.NotFoundException:
                return
            if found.status == 'DELETE_COMPLETE':
                return
            self.assertNotEqual('DELETE_FAILED', found.status,
                                found.status_reason)

    @staticmethod
    def outputs(stack) -> dict:
        return {entry['output_key']: entry.get('output_value')
                for entry in stack.outputs}


class ContainerTest(StackTestCase):

    def test_from_creation_to_deletion(self):
        """Two containers, the second of which reads the first one's log."""
        def template(**web):
            return self.template(
                {'head': ['db', 'logs_head'], 'tail': ['web', 'logs_tail'],
                 'state': ['db', 'state'], 'health': ['web', 'health'],
                 'address': ['web', 'first_address'],
                 'floating': ['web', 'floating_ip']},
                db=self.container(f'echo secret; echo more; {_SLEEP}'),
                web=self.container(
                    'mkdir /w; echo "$WORD" > /w/index.html; '
                    'httpd -h /w; echo serving "$WORD"; ' + _SLEEP,
                    environment={'WORD': {'get_attr': ['db', 'logs_head']},
                                 **web.pop('environment', {})},
                    expose=['80'], floating_network='public', **web))

        stack = self.complete(self.create(template()), 'CREATE')
        made = self.physical(stack)
        outputs = self.outputs(stack)
        self.assertEqual('secret', outputs['head'])
        self.assertEqual('serving secret', outputs['tail'])
        self.assertEqual('running', outputs['state'])
        self.assertEqual('secret', base.curl(outputs['floating']).strip())

        with self.subTest('the name alone changes in place'):
            stack = self.update(stack, template(name='other'))
            self.assertEqual(made, self.physical(stack))
            self.assertEqual('other', self.user.compute.get_server(
                made['web']).name)

        with self.subTest('the environment is taken up, addresses stay'):
            stack = self.update(stack, template(
                name='other', environment={'WORD': 'changed'},
                metadata={'tier': 'web'}))
            self.assertEqual(made, self.physical(stack))
            after = self.outputs(stack)
            self.assertEqual('serving changed', after['tail'])
            self.assertEqual(outputs['address'], after['address'])
            self.assertEqual('changed', base.curl(after['floating']).strip())
            self.assertEqual('web', self.user.compute.get_server(
                made['web']).metadata['tier'])

    def test_ends_as_wanted_or_fails(self):
        stack = self.settled(self.create(self.template(
            job=self.container('echo done; exit 3', wait_for='exited:3'),
            bad=self.container('echo "what was wrong" >&2; exit 7'))))
        self.assertEqual('CREATE_FAILED', stack.status)
        self.assertIn('what was wrong', self.reason(stack, 'bad'))
        self.assertIn('exited with code 7', self.reason(stack, 'bad'))

    def test_wrong_properties_are_refused_by_name(self):
        for name, value in (
                ('command', {'a': 'b'}), ('command', 'a "b'),
                ('environment', {'a b': 'c'}),
                ('restart_policy', 'sometimes'), ('wait_for', 'tomorrow'),
                ('expose', ['http']), ('expose', ['70000']),
                ('image', 'no such'), ('flavor', 'no such'),
                ('floating_network', 'no such'), ('working_dir', 'tmp'),
                ('hostname', '_'), ('metadata', {'container:user': 'x'}),
                ('health_check', {'interval': 'often'}),
                ('health_check', {'test': ['CMD']}),
                ('stop_grace_period', '-1'), ('nonsense', 1)):
            with self.subTest(name, value=value):
                with self.assertRaisesRegex(
                        exceptions.BadRequestException, name):
                    self.create(self.template(
                        web=self.container(**{name: value})))


class ComposeTest(StackTestCase):

    def compose(self, text: str, **properties) -> str:
        return self.template(
            {'addresses': ['app', 'addresses'], 'states': ['app', 'states'],
             'floating': ['app', 'floating_ips']},
            app={'type': 'NovaContainer::Compose', 'properties': {
                'file': textwrap.dedent(text), 'flavor': 'c1.tiny',
                'network': 'private', 'floating_network': 'public',
                'images': {'busybox:latest': self.busybox()},
                **properties}})

    _FILE = '''
        services:
          job:
            image: busybox:latest
            command: [sh, -c, "exit 0"]
          web:
            image: busybox:latest
            command:
              - sh
              - -c
              - |
                mkdir /w; echo "$$WORD" > /w/index.html
                trap "exit 0" TERM
                httpd -h /w; sleep 1000000 & wait
            environment: {WORD: "${WORD:?}"}
            ports: ["80:80"]
            depends_on:
              job: {condition: service_completed_successfully}
            healthcheck:
              test: wget -q -O /dev/null http://127.0.0.1/
              interval: 1s
              retries: 30
            restart: always
        '''

    def test_one_service_and_then_more_of_it(self):
        """A job, a service that waits for it, and one more replica."""
        def template(count):
            return self.compose(self._FILE, environment={'WORD': 'from heat'},
                                scale={'web': count})

        stack = self.complete(self.create(template(1)), 'CREATE')
        outputs = self.outputs(stack)
        self.assertEqual({'job': 'exited', 'web': 'running'},
                         outputs['states'])
        self.assertEqual('from heat', base.curl(
            outputs['floating']['web']).strip())

        stack = self.update(stack, template(2))
        after = self.outputs(stack)
        self.assertEqual({'job', 'web', 'web-2'}, set(after['states']))
        self.assertEqual(outputs['addresses']['web'],
                         after['addresses']['web'])

    def test_refused_by_line(self):
        for words, text in (
                ('line 5: services.web.privileged', '''
                    services:
                      web:
                        image: busybox:latest
                        privileged: true
                    '''),
                ('a cycle: a -> b -> a', '''
                    services:
                      a: {image: busybox:latest, depends_on: [b]}
                      b: {image: busybox:latest, depends_on: [a]}
                    ''')):
            with self.subTest(words):
                with self.assertRaisesRegex(
                        exceptions.BadRequestException, words):
                    self.create(self.compose(text))
