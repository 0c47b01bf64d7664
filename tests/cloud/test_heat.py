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

import base64
import textwrap
import uuid

from openstack import exceptions

from tests.cloud import base
from tests.cloud import stacks


class ContainerTest(stacks.StackTestCase):

    def test_from_creation_to_deletion(self):
        """Two containers, the second of which reads the first one's log."""
        def template(**web):
            return self.template(
                {'head': ['db', 'logs_head'], 'tail': ['web', 'logs_tail'],
                 'state': ['db', 'state'], 'health': ['web', 'health'],
                 'address': ['web', 'first_address'],
                 'floating': ['web', 'floating_ip'],
                 'console': ['web', 'console_urls', 'serial'],
                 'status': ['web', 'show', 'status']},
                init={'type': 'OS::Heat::CloudConfig', 'properties': {
                    'cloud_config': {'final_message': 'done'}}},
                db=self.container(f'echo secret; echo more; {stacks.SLEEP}',
                                  user_data={'get_resource': 'init'}),
                web=self.container(
                    'mkdir /w; echo "$WORD" > /w/index.html; '
                    'httpd -h /w; echo serving "$WORD"; ' + stacks.SLEEP,
                    environment={'WORD': {'get_attr': ['db', 'logs_head']},
                                 **web.pop('environment', {})},
                    expose=['80'], floating_network='public', **web))

        stack = self.complete(self.create(template()), 'CREATE')
        made = self.physical(stack)
        outputs = self.outputs(stack)
        self.assertEqual('secret', outputs['head'])
        self.assertEqual('serving secret', outputs['tail'])
        self.assertEqual('running', outputs['state'])
        self.assertEqual('ACTIVE', outputs['status'])
        self.assertTrue(outputs['console'].startswith('ws'))
        self.assertEqual('secret', base.curl(outputs['floating']).strip())
        self.assertEqual(
            b'#cloud-config\nfinal_message: done\n', base64.b64decode(
                self.admin.compute.get_server(made['db']).user_data))

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

        with self.subTest('a larger flavor is a resize'):
            stack = self.update(stack, template(
                name='other', environment={'WORD': 'changed'},
                metadata={'tier': 'web'}, flavor='c1.small'))
            self.assertEqual(made, self.physical(stack))
            self.assertEqual('c1.small', self.user.compute.get_server(
                made['web']).flavor.original_name)
            self.assertEqual('changed', base.curl(after['floating']).strip())

        with self.subTest('checked: all is well, then one is stopped'):
            self.assertEqual('CHECK_COMPLETE', self.check(stack).status)
            self.user.compute.stop_server(made['web'])
            self.status(self.user.compute.get_server(made['web']), 'SHUTOFF')
            self.assertEqual('CHECK_FAILED', self.check(stack).status)
            self.assertIn("'running'", self.reason(stack, 'web'))

    def test_lives_on(self):
        """Ended, suspended, built anew, replaced: found by its name."""
        def template(word: str, generation: str) -> str:
            return self.template(
                db=self.container(
                    'mkdir -p /w; echo "$WORD" > /w/index.html; httpd -h /w; '
                    + stacks.SLEEP, environment={'WORD': word},
                    health_check={
                        'test': 'wget -q -O /dev/null http://127.0.0.1/',
                        'interval': '1s', 'retries': 30},
                    restart_policy='always',
                    scheduler_hints={'generation': generation}),
                web=self.container(links=[{'get_resource': 'db'}]))

        stack = self.complete(self.create(template('first', '1')), 'CREATE')
        made = self.physical(stack)
        db = self.user.compute.get_server(made['db'])
        web = self.user.compute.get_server(made['web'])

        def assert_found(word: str) -> None:
            address = next(
                entry['addr'] for entry in self.user.compute.get_server(
                    self.physical(stack)['db']).addresses['private']
                if entry['version'] == 4)
            self.assertIn(address, self.execute(
                web, 'nslookup', 'db').stdout)
            self.assertEqual(word, self.execute(
                web, 'sh', '-c',
                f'printf "GET / HTTP/1.0\\r\\n\\r\\n" | nc -w 10 {address} 80'
            ).stdout.splitlines()[-1])

        assert_found('first')
        with self.subTest('ended from inside'):
            self.end_from_inside(db)
            assert_found('first')
        with self.subTest('suspended and resumed'):
            self.sleep_and_wake(stack, db, web)
            assert_found('first')
        with self.subTest('built anew'):
            stack = self.update(stack, template('second', '1'))
            self.assertEqual(made, self.physical(stack))
            assert_found('second')
        with self.subTest('replaced'):
            stack = self.update(stack, template('third', '2'))
            after = self.physical(stack)
            self.assertNotEqual(made['db'], after['db'])
            self.assertEqual(made['web'], after['web'])
            assert_found('third')

    def test_updates_that_fail_are_taken_back(self):
        """By their author or by Heat; what was known of it stays."""
        def template(word: str, *more, **properties) -> str:
            web = self.container(
                'echo first "$WORD"; [ "$WORD" = good ] || exit 1; '
                'mkdir -p /w; echo "$WORD" > /w/index.html; httpd -h /w; '
                '(until [ -e /more ]; do sleep 1; done; '
                'yes "a line of no importance" | head -n 20000; touch /done) &'
                + stacks.SLEEP, environment={'WORD': word}, expose=['80'],
                floating_network='public', **properties)
            web['properties']['networks'] += more
            return self.template(
                {'head': ['web', 'logs_head'],
                 'floating': ['web', 'floating_ip']},
                net={'type': 'OS::Neutron::Net'},
                subnet={'type': 'OS::Neutron::Subnet', 'properties': {
                    'network': {'get_resource': 'net'}, 'gateway_ip': '',
                    'cidr': '10.45.0.0/24'}},
                web={**web, 'depends_on': 'subnet'})

        second = {'network': {'get_resource': 'net'},
                  'fixed_ip': '10.45.0.9'}
        stack = self.complete(self.create(template('good')), 'CREATE')
        made, outputs = self.physical(stack), self.outputs(stack)

        def ports() -> list:
            return list(self.user.network.ports(device_id=made['web']))

        def addresses() -> set[str]:
            return {fixed['ip_address'] for port in ports()
                    for fixed in port.fixed_ips}

        def assert_same(stack) -> None:
            self.assertEqual(made, self.physical(stack))
            self.assertEqual(outputs, self.outputs(stack))
            self.assertEqual('good', base.curl(outputs['floating']).strip())

        with self.subTest('another interface changes nothing of the first'):
            (first,) = ports()
            stack = self.update(stack, template('good', second))
            assert_same(stack)
            self.assertIn('10.45.0.9', addresses())
            for port in ports():
                self.assertEqual(set(first.security_group_ids),
                                 set(port.security_group_ids))
        known = addresses()

        with self.subTest('the first line is known for good'):
            # More than Nova keeps of a log.
            self.execute(
                self.user.compute.get_server(made['web']), 'sh', '-c',
                'touch /more; until [ -e /done ]; do sleep 1; done')
            stack = self.update(stack, template('good', second, name='other'))
            assert_same(stack)

        with self.subTest('back to the template before'):
            stack = self.update_in_vain(stack, template(
                'bad', second, name='other'))
            self.assertIn('exited with code 1', self.reason(stack, 'web'))
            stack = self.update(stack, template('good', second, name='other'))
            assert_same(stack)
            self.assertEqual(known, addresses())

        with self.subTest('metadata of an update that failed goes'):
            stack = self.update_in_vain(stack, template(
                'good', second, name='other', metadata={'tier': 'web'},
                wait_for='healthy'))
            self.assertIn('no health check', self.reason(stack, 'web'))
            stack = self.update(stack, template('good', second, name='other'))
            assert_same(stack)
            self.assertNotIn('tier', self.user.compute.get_server(
                made['web']).metadata)

        with self.subTest('a replacement is rolled back'):
            stack = self.roll_back(stack, template(
                'bad', second, name='other',
                scheduler_hints={'generation': '2'}))
            assert_same(stack)
            self.assertEqual(known, addresses())

    def test_clear_failures(self):
        """What waits for what has failed is not created."""
        flavor = self.admin.compute.create_flavor(
            name=f'test-{uuid.uuid4().hex[:8]}', ram=128, vcpus=1000, disk=1)
        self.addCleanup(self.admin.compute.delete_flavor, flavor)
        ill = self.create(self.template(
            db=self.container(health_check={
                'test': 'false', 'interval': '1s', 'retries': 2}),
            web=self.container(links=[{'get_resource': 'db'}])))
        large = self.create(self.template(
            db=self.container(flavor=flavor.name)))
        for stack, reason in ((ill, 'its health check failed'),
                              (large, 'Quota exceeded for cores')):
            with self.subTest(reason):
                self.assertEqual('CREATE_FAILED', self.settled(stack).status)
                self.assertIn(reason, self.reason(stack, 'db'))
        self.assertFalse(self.physical(ill)['web'])

    def test_ends_as_wanted_or_fails(self):
        stack = self.settled(self.create(self.template(
            {'code': ['job', 'exit_code']},
            job=self.container('echo done; exit 3', wait_for='exited:3'),
            bad=self.container(command=[
                '/bin/sh', '-c', 'echo "what was wrong: $0" >&2; exit 7',
                {'get_attr': ['job', 'logs_head']}]))))
        self.assertEqual('CREATE_FAILED', stack.status)
        self.assertEqual(3, self.outputs(stack)['code'])
        self.assertIn('what was wrong: done', self.reason(stack, 'bad'))
        self.assertIn('exited with code 7', self.reason(stack, 'bad'))

    def test_snapshot_abandon_adopt(self):
        """Put back twice, let go of, taken over, kept as an image."""
        self.busybox()
        images = self.images()
        web = {**self.container(
            'mkdir -p /w; [ -e /w/index.html ] || echo built > /w/index.html;'
            f' httpd -h /w; {stacks.SLEEP}', expose=['80'],
            floating_network='public'), 'deletion_policy': 'Snapshot'}
        template = self.template({'floating': ['web', 'floating_ip']},
                                 web=web)
        stack = self.complete(self.create(template), 'CREATE')
        made = self.physical(stack)
        server = self.user.compute.get_server(made['web'])
        address = self.outputs(stack)['floating']

        def write(word: str) -> None:
            self.execute(server, 'sh', '-c', f'echo {word} > /w/index.html')

        def assert_same(stack, word: str) -> None:
            self.assertEqual(made, self.physical(stack))
            self.assertEqual(address, self.outputs(stack)['floating'])
            self.assertEqual(word, base.curl(address).strip())

        write('written')
        snapshot = self.snapshot(stack)
        for _ in range(2):
            write('lost')
            assert_same(self.restore(stack, snapshot), 'written')
        with self.subTest('an update has the image of the template again'):
            stack = self.update(stack, template)
            assert_same(stack, 'built')
        with self.subTest('a snapshot takes its image along'):
            self.forget(snapshot)
            self.assertEqual(images, self.images())

        write('written')
        data = self.abandon(stack)
        stack = self.complete(self.adopt(data), 'ADOPT')
        assert_same(stack, 'written')
        self.snapshot(stack)
        self.remove(stack)
        (kept,) = self.images() - images
        self.addCleanup(self.user.image.delete_image, kept)

        data['resources']['web']['resource_id'] = str(uuid.uuid4())
        stack = self.settled(self.adopt(data))
        self.assertEqual('ADOPT_FAILED', stack.status)
        self.assertIn('could not be found', self.reason(stack, 'web'))

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


class ComposeTest(stacks.StackTestCase):

    def compose(self, text: str, **properties) -> str:
        return self.template(
            {'addresses': ['app', 'addresses'], 'states': ['app', 'states'],
             'floating': ['app', 'floating_ips']},
            word={'type': 'OS::Heat::Value',
                  'properties': {'value': 'from heat'}},
            app={'type': 'NovaContainer::Compose', 'properties': {
                'file': textwrap.dedent(text), 'flavor': 'c1.tiny',
                'floating_network': 'public',
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
        """A job, a service that waits for it, and then three of it.

        They are on a network of their own, and one variable is known only
        once another resource is there.
        """
        def template(count):
            return self.compose(
                self._FILE, scale={'web': count},
                environment={'WORD': {'get_attr': ['word', 'value']}})

        stack = self.complete(self.create(template(1)), 'CREATE')
        outputs = self.outputs(stack)
        self.assertEqual({'job': 'exited', 'web': 'running'},
                         outputs['states'])
        self.assertEqual('from heat', base.curl(
            outputs['floating']['web']).strip())

        stack = self.update(stack, template(3))
        after = self.outputs(stack)
        self.assertEqual({'job', 'web', 'web-2', 'web-3'},
                         set(after['states']))
        self.assertEqual(outputs['addresses']['web'],
                         after['addresses']['web'])

    def test_snapshot_abandon_adopt(self):
        """The nested stack goes with its parent."""
        self.busybox()
        images, before = self.images(), self.resources()['servers']

        def servers() -> set[str]:
            return self.resources()['servers'] - before

        template = self.compose('''
            services:
              web:
                image: busybox:latest
                stop_grace_period: 1s
            ''')
        stack = self.complete(self.create(template), 'CREATE')
        made = servers()
        server = self.user.compute.get_server(next(iter(made)))
        self.execute(server, 'touch', '/written')
        snapshot = self.snapshot(stack)
        for _ in range(2):
            self.execute(server, 'touch', '/lost')
            self.restore(stack, snapshot)
            self.assertEqual(made, servers())
            self.execute(server, 'sh', '-c',
                         'test -e /written && test ! -e /lost')
        stack = self.update(stack, template)
        self.execute(server, 'test', '!', '-e', '/written')
        self.forget(snapshot)

        data = self.abandon(stack)
        self.assertEqual(made, servers())
        stack = self.complete(self.adopt(data), 'ADOPT')
        self.assertEqual(made, servers())
        self.assertEqual({'web': 'running'}, self.outputs(stack)['states'])
        self.snapshot(stack)
        self.remove(stack)
        self.assertEqual(images, self.images())

    def test_refused_by_line(self):
        for words, text in (
                ('line 5: services.web.privileged', '''
                    services:
                      web:
                        image: busybox:latest
                        privileged: true
                    '''),
                ('line 4: services.web.image: Glance has no image', '''
                    services:
                      web:
                        image: no-such
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
