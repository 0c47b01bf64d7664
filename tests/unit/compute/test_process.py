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

import json
import unittest

from nova_container.compute import process
from nova_container.compute import wishes
from nova_container import exception
from nova_container.image import store
from nova_container.oci import image_config

LAYER = 'sha256:' + 'a' * 64


def image(**config) -> store.Image:
    raw = json.dumps({'architecture': 'amd64', 'os': 'linux',
                      'config': config,
                      'rootfs': {'type': 'layers', 'diff_ids': [LAYER]}})
    return store.Image('x', image_config.ImageConfig.from_json(raw.encode()),
                       (LAYER,), 1)


class ProcessTest(unittest.TestCase):

    def args(self, metadata=(), **config):
        return process.process(dict(metadata), image(**config)).args

    def test_entrypoint_and_command_as_docker_joins_them(self):
        own = {'Entrypoint': ['/e', '1'], 'Cmd': ['c']}
        self.assertEqual(('/e', '1', 'c'), self.args(**own))
        self.assertEqual(('/e', '1', 'x', 'y'), self.args(
            {'container:command': 'x y'}, **own))
        self.assertEqual(('/n',), self.args(
            {'container:entrypoint': '/n'}, **own))
        self.assertEqual(('/n', 'x'), self.args(
            {'container:entrypoint': '/n', 'container:command': 'x'}, **own))

    def test_environment_of_the_tenant_wins(self):
        found = process.process({'container:env:A': '2'},
                                image(Cmd=['x'], Env=['A=1', 'B=x=y']))
        self.assertEqual((('A', '2'), ('B', 'x=y')), found.env)

    def test_image_defaults(self):
        found = process.process({}, image(
            Cmd=['x'], User='web', WorkingDir='/srv', StopSignal='SIGQUIT'))
        self.assertEqual(('web', '/srv', 'SIGQUIT'),
                         (found.user, found.cwd, found.stop_signal))
        bare = process.process({}, image(Cmd=['x']))
        self.assertEqual(('', '/', 'SIGTERM'),
                         (bare.user, bare.cwd, bare.stop_signal))

    def test_no_command(self):
        with self.assertRaisesRegex(exception.ProcessInvalid,
                                    'container:command'):
            process.process({}, image())


class MachineTest(unittest.TestCase):

    def kind(self, *cmd, **metadata):
        return process.kind(metadata, image(Cmd=list(cmd)).config)

    def test_kind_by_image_property(self):
        self.assertEqual('application', self.kind())
        self.assertEqual('machine', self.kind(image_container_type='Machine'))
        with self.assertRaisesRegex(exception.InvalidSpec, 'container_type'):
            self.kind(image_container_type='pod')

    def test_kind_by_command(self):
        for command in ('/sbin/init', '/lib/systemd/systemd'):
            self.assertEqual('machine', self.kind(command, '--x'))
            self.assertEqual('application', self.kind(
                command, image_container_type='application'))
        self.assertEqual('application', self.kind('sh', '/sbin/init'))
        self.assertEqual(
            ('/lib/systemd/systemd', '--x'), process.process(
                {}, image(Cmd=['/lib/systemd/systemd', '--x']),
                'machine').args)

    def test_runs_its_init_as_root_on_a_terminal(self):
        found = process.process({}, image(Cmd=['bash'], User='web'),
                                'machine')
        self.assertEqual((('/sbin/init',), '', 'SIGRTMIN+3', True),
                         (found.args, found.user, found.stop_signal,
                          found.terminal))

    def test_tenant_may_choose_another(self):
        found = process.process(
            {'container:command': '/lib/systemd/systemd --unit=rescue.target',
             'container:tty': 'false'},
            image(StopSignal='SIGPWR'), 'machine')
        self.assertEqual(
            (('/lib/systemd/systemd', '--unit=rescue.target'), 'SIGPWR',
             False), (found.args, found.stop_signal, found.terminal))


class HealthcheckTest(unittest.TestCase):

    def check(self, metadata=(), **fields):
        return process.healthcheck(image(Cmd=['x'], Healthcheck=fields),
                                   wishes.parse(dict(metadata)))

    def test_none(self):
        self.assertIsNone(process.healthcheck(image(Cmd=['x']),
                                              wishes.Wishes()))
        self.assertIsNone(self.check(Test=['NONE']))

    def test_command_and_shell(self):
        self.assertEqual(('a', 'b'), self.check(Test=['CMD', 'a', 'b']).test)
        self.assertEqual(('/bin/sh', '-c', 'a b'),
                         self.check(Test=['CMD-SHELL', 'a b']).test)
        for test in (['CMD'], ['CMD-SHELL'], ['curl', 'x']):
            with self.assertRaises(exception.ImageInvalid, msg=test):
                self.check(Test=test)

    def test_nanoseconds_become_seconds_within_bounds(self):
        check = self.check(Test=['CMD', 'x'], Interval=5 * 10 ** 9,
                           Timeout=10 ** 13, StartPeriod=10 ** 9, Retries=7)
        self.assertEqual((5.0, 60.0, 1.0, 7), (
            check.interval, check.timeout, check.start_period, check.retries))
        self.assertEqual(1.0, self.check(Test=['CMD', 'x'],
                                         Interval=1).interval)

    def test_wishes_over_the_images_own(self):
        check = self.check({'container:health_cmd': '["true"]',
                            'container:health_retries': '9'},
                           Test=['CMD', 'x'], Interval=5 * 10 ** 9, Retries=7)
        self.assertEqual((('true',), 5.0, 9),
                         (check.test, check.interval, check.retries))
        self.assertIsNone(self.check({'container:health_cmd': 'none'},
                                     Test=['CMD', 'x']))
        self.assertEqual(2.0, self.check(
            {'container:health_interval': '2s'},
            Test=['CMD', 'x']).interval)

    def test_wishes_that_make_no_sense(self):
        for words in ({'health_interval': '5s'},
                      {'health_cmd': 'none', 'health_retries': '2'},
                      {'health_cmd': 'x', 'health_timeout': '1h'},
                      {'health_cmd': 'x', 'health_retries': '0'}):
            with self.assertRaises(exception.InvalidSpec, msg=words):
                self.check({f'container:{word}': value
                            for word, value in words.items()}, Test=['NONE'])
