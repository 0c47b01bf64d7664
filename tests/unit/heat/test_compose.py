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

import ipaddress
import textwrap

import hypothesis
from hypothesis import strategies

from heat_plugin.compose import document
from heat_plugin.compose import env_file
from heat_plugin.compose import interpolation
from heat_plugin.compose import model
from heat_plugin.compose import template
from tests.unit import base

_FLAVORS = (template.Flavor(256, 1, 1, 'tiny'),
            template.Flavor(1024, 2, 5, 'medium'))


def read(text: str, **around) -> model.Application:
    return model.read(textwrap.dedent(text), model.Surroundings(**around))


def write(text: str, network: str | None = 'private', **place) -> dict:
    return template.write(read(text), template.Place(
        'tiny', _FLAVORS, network=network, **place))


class InterpolationTest(base.TestCase):

    def test_forms(self):
        variables = {'A': 'a', 'EMPTY': ''}
        for text, expected in {
                '$A': 'a', '${A}': 'a', '$$A': '$A', '$B': '', 'x${A}y': 'xay',
                '${B:-d}': 'd', '${EMPTY:-d}': 'd', '${EMPTY-d}': '',
                '${A:+r}': 'r', '${EMPTY+r}': 'r', '${EMPTY:+r}': '',
                '${B:-${A}b}': 'ab', '${A?no}': 'a', 'a}b': 'a}b',
                '${B-$$}': '$'}.items():
            with self.subTest(text):
                self.assertEqual(expected, interpolation.substitute(
                    text, variables))

    def test_malformed_and_missing(self):
        for text in ('${', '${A', '$ ', '${1}', '${A!b}', '${B:?why}',
                     '${B?}', '$'):
            with self.subTest(text):
                self.assertRaises(interpolation.InvalidVariable,
                                  interpolation.substitute, text, {'A': 'a'})

    @hypothesis.settings(deadline=None)
    @hypothesis.given(strategies.text('${}AB:-+? ', max_size=30))
    def test_never_anything_else(self, text):
        try:
            interpolation.substitute(text, {'A': '$A'})
        except interpolation.InvalidVariable:
            pass


class EnvFileTest(base.TestCase):

    def test_values(self):
        for line, expected in {
                'V=$A': 'a', 'V="x ${A} y"': 'x a y', "V='$A'": '$A',
                "export 'V' = '${A}' # why": '${A}', 'V=$$A': '$A',
                'V=${B:-d}': 'd', 'V=$OWN': 'own', 'V=$HOME': '',
                'V="a\\nb"': 'a\nb', 'V=a # why': 'a', 'V=': '', 'V': None,
                "V=it's $A": "it's a"}.items():
            with self.subTest(line):
                self.assertEqual(
                    {'OWN': 'own', 'V': expected},
                    env_file.read(f'# Why\nOWN=own\n\n{line}\n', {'A': 'a'}))

    def test_the_given_value_comes_first(self):
        self.assertEqual({'A': 'own', 'V': 'a'}, env_file.read(
            'A=own\nV=$A\n', {'A': 'a'}))

    def test_what_is_wrong(self):
        for line in ('V=${', 'V=${N:?why}', 'V="open', '=V'):
            with self.subTest(line):
                with self.assertRaisesRegex(env_file.InvalidFile, 'line 3'):
                    env_file.read(f'A=a\n\n{line}\n', {})

    @hypothesis.settings(deadline=None)
    @hypothesis.given(strategies.text('$A{}="\'\\ #\n:-?', max_size=30))
    def test_never_anything_else(self, text):
        try:
            env_file.read(text, {'A': '$A'})
        except env_file.InvalidFile:
            pass


class RefusedTest(base.TestCase):

    def assert_refused(self, text: str, *words: str, **around) -> None:
        with self.assertRaises(document.Refused) as caught:
            read(text, **around)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_not_by_the_specification(self):
        self.assert_refused('''
            services:
              web:
                image: nginx
                depends_on: 7
            ''', 'line 5', 'services.web.depends_on')
        self.assert_refused('a: [', 'line')
        self.assert_refused('- a', 'mapping')
        self.assert_refused('services: {}', 'no service')

    def test_no_meaning_here(self):
        for key, value in (('privileged', 'true'), ('build', '.'),
                           ('cap_add', '[NET_ADMIN]'), ('pid', 'host'),
                           ('network_mode', 'host'), ('logging', '{}'),
                           ('hostname', 'other'),
                           ('devices', '["/dev/x:/dev/x"]')):
            with self.subTest(key):
                self.assert_refused(
                    'services:\n  web:\n    image: nginx\n'
                    f'    {key}: {value}\n', 'line 4', f'services.web.{key}')

    def test_of_a_host(self):
        for key, value in (('volumes', '["./data:/data"]'),
                           ('volumes', '["/data"]'),
                           ('volumes', '[{type: tmpfs, target: /t}]'),
                           ('ports', '["8080:80"]'),
                           ('ports', '["127.0.0.1:80:80"]'),
                           ('ports', '["90000"]'),
                           ('expose', '["90000"]')):
            with self.subTest(value):
                self.assert_refused(
                    'services:\n  web:\n    image: nginx\n'
                    f'    {key}: {value}\n', 'line 4', f'services.web.{key}')

    def test_references(self):
        self.assert_refused('''
            services:
              a: {image: i, depends_on: [b]}
              b: {image: i, depends_on: [c]}
              c: {image: i, depends_on: [a]}
            ''', 'a -> b -> c -> a')
        for key in ('depends_on', 'networks'):
            self.assert_refused(
                'services: {a: {image: i, %s: [gone]}}' % key, 'gone', key)
        self.assert_refused(
            'services: {a: {image: i, volumes: ["gone:/d"]}}', 'gone')
        self.assert_refused(
            'services: {a: {image: i}}', 'no service b', scale={'b': 2})
        self.assert_refused('''
            services:
              a: {image: i, scale: 2, volumes: ["v:/d"]}
            volumes: {v: }
            ''', 'one container')

    def test_env_files(self):
        self.assert_refused(
            'services: {a: {image: i, env_file: common.env}}',
            'services.a.env_file.0: common.env: line 2, V: N is required',
            env_files={'common.env': 'A=a\nV=${N:?}\n'})

    def test_much_from_little(self):
        bomb = 'x-a0: &a0 [1, 1]\n' + ''.join(
            f'x-a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 9)}]\n'
            for n in range(1, 9)) + 'services: {a: {image: i}}\n'
        self.assert_refused(bomb, 'aliases')

    @hypothesis.settings(deadline=None)
    @hypothesis.given(strategies.recursive(
        strategies.none() | strategies.booleans() | strategies.integers()
        | strategies.text('abc:/.$', max_size=8),
        lambda inner: strategies.lists(inner, max_size=3)
        | strategies.dictionaries(strategies.sampled_from(
            ('image', 'ports', 'volumes', 'deploy', 'networks', 'external',
             'environment', 'limits', 'resources', 'target', 'config')),
            inner, max_size=4), max_leaves=12))
    def test_never_anything_else(self, value):
        try:
            model.read(repr({
                'services': {'a': value}, 'networks': value}).replace(
                    'None', 'null'), model.Surroundings())
        except document.Refused:
            pass


class ModelTest(base.TestCase):

    def test_a_service(self):
        text = '''
            x-env: &env {LEVEL: info}
            services:
              web:
                image: nginx:${TAG:-latest}
                command: nginx -g "daemon off;"
                environment: {<<: *env, FROM: , N: 3}
                env_file: common.env
                ports: ["80:80", {target: 443, protocol: udp}]
                expose: [9000]
                restart: unless-stopped
                labels: [a=b]
                healthcheck:
                  test: [CMD, "true"]
                  interval: 5s
                deploy:
                  replicas: 2
                  resources: {limits: {cpus: '0.5', memory: 512M}}
            '''
        (service,) = read(
            text, variables={'FROM': 'outside'},
            env_files={'common.env': 'LEVEL=debug\nOTHER="a b"\n'},
        ).services.values()
        self.assertEqual({
            'image': 'nginx:latest', 'command': 'nginx -g "daemon off;"',
            'environment': {'LEVEL': 'info', 'OTHER': 'a b',
                            'FROM': 'outside', 'N': '3'},
            'restart_policy': 'always', 'metadata': {'a': 'b'},
            'health_check': {'test': ['CMD', 'true'], 'interval': '5s'}},
            service.properties)
        self.assertEqual(('80/tcp', '443/udp'), service.published)
        self.assertEqual(2, service.replicas)
        self.assertEqual(model.Limits(0.5, 512 * 2 ** 20), service.limits)

    def test_env_files(self):
        text = '''
            services:
              web:
                image: i
                env_file: [a.env, b.env]
                environment: {GIVEN: g, TEXT: $$OUTSIDE}
            '''
        files = {'a.env': 'A=$OUTSIDE$GIVEN\nGIVEN=other\nBARE\nGONE\n',
                 'b.env': 'C="${A}!$OUTSIDE"\nB=\'$A\'\n'}
        (service,) = read(text, variables={'OUTSIDE': 'o', 'BARE': 'b'},
                          env_files=files).services.values()
        self.assertEqual(
            {'A': 'og', 'B': '$A', 'C': '!o', 'GIVEN': 'g', 'BARE': 'b',
             'TEXT': '$OUTSIDE'}, service.properties['environment'])

    def test_true_and_false_as_text(self):
        """Quoted, or of a variable."""
        text = '''
            services:
              a:
                image: i
                env_file: [{path: gone, required: "${NO}"}]
                volumes:
                  - {type: volume, source: v, target: /v, read_only: "${NO}"}
                  - {type: volume, source: w, target: /w, read_only: "Yes"}
                healthcheck: {test: [CMD, "true"], disable: "false"}
            networks:
              n: {external: "${NO}", internal: "off"}
              m: {external: "${YES}", internal: "true"}
            volumes: {v: {external: "false"}, w: {external: "true"}}
            '''
        found = read(text, variables={'NO': 'false', 'YES': 'true'})
        service = found.services['a']
        self.assertEqual([False, True],
                         [mount.read_only for mount in service.mounts])
        self.assertEqual({'test': ['CMD', 'true']},
                         service.properties['health_check'])
        for name, wanted in (('n', False), ('m', True)):
            network = found.networks[name]
            self.assertEqual((wanted, wanted),
                             (network.external, network.internal))
        self.assertEqual(
            {'v': False, 'w': True},
            {name: volume.external for name, volume in found.volumes.items()})
        with self.assertRaisesRegex(
                document.Refused, 'networks.n.external: true or false'):
            read(text, variables={'NO': 'perhaps', 'YES': 'true'})

    def test_profiles(self):
        text = '''
            services:
              web: {image: i}
              debug: {image: i, profiles: [debug]}
            '''
        self.assertEqual({'web'}, set(read(text).services))
        self.assertEqual({'web', 'debug'}, set(read(
            text, profiles=frozenset(('debug',))).services))


class TemplateTest(base.TestCase):

    def test_dependencies_and_replicas(self):
        resources = write('''
            services:
              web:
                image: nginx
                scale: 2
                depends_on:
                  db: {condition: service_healthy}
                  job: {condition: service_completed_successfully}
              db: {image: db, volumes: ["data:/var/lib/data:ro"]}
              job: {image: job}
            volumes:
              data: {driver_opts: {size: 3}}
            ''')['resources']
        self.assertEqual({'web', 'web-2', 'db', 'job', 'volume_data'},
                         set(resources))
        self.assertEqual(['db', 'job'], resources['web-2']['depends_on'])
        properties = {name: resource['properties']
                      for name, resource in resources.items()}
        self.assertEqual('web-2', properties['web-2']['hostname'])
        self.assertEqual('healthy', properties['db']['wait_for'])
        self.assertEqual('exited:0', properties['job']['wait_for'])
        self.assertEqual({'size': 3}, properties['volume_data'])
        self.assertEqual([{'volume': {'get_resource': 'volume_data'},
                           'mount_path': '/var/lib/data',
                           'read_only': True}], properties['db']['volumes'])

    def test_the_smallest_flavor_that_suffices(self):
        text = ('services: {a: {image: i, deploy: '
                '{resources: {limits: {memory: %s}}}}}')
        for memory, flavor in (('256M', 'tiny'), ('257M', 'medium')):
            self.assertEqual(flavor, write(text % memory)['resources']['a'][
                'properties']['flavor'])
        self.assertRaises(document.Refused, write, text % '2G')

    def test_only_ports_are_open_to_the_world(self):
        resources = write('''
            services:
              a: {image: i, expose: [9000], ports: ["80:80"]}
              b: {image: i, expose: [9000]}
            ''', floating_network='public')['resources']
        self.assertEqual(['80/tcp'], resources['a']['properties']['expose'])
        self.assertEqual('public',
                         resources['a']['properties']['floating_network'])
        for name in ('expose', 'floating_network', 'security_groups'):
            self.assertNotIn(name, resources['b']['properties'])

    def test_networks(self):
        resources = write('''
            services:
              a: {image: i, networks: [inside, there]}
            networks:
              inside: {ipam: {config: [{subnet: 10.9.0.0/24}]}}
              there: {external: true, name: public}
            ''', router='r')['resources']
        self.assertEqual(
            [{'network': {'get_resource': 'network_inside'}},
             {'network': 'public'}],
            resources['a']['properties']['networks'])
        self.assertEqual('10.9.0.0/24',
                         resources['subnet_inside']['properties']['cidr'])
        self.assertEqual(['router_inside'], resources['a']['depends_on'])

    def cidrs(self, *networks: str, given: str = '') -> dict[str, str]:
        """By subnet, for a service on these networks."""
        resources = write(
            'services: {a: {image: i, networks: [%s]}}\nnetworks: {%s}' % (
                ', '.join(networks), ', '.join(
                    f'{name}: {given if name == networks[-1] else ""}'
                    for name in networks)), None)['resources']
        return {name: resource['properties']['cidr']
                for name, resource in resources.items()
                if name.startswith('subnet')}

    def test_networks_keep_their_addresses(self):
        """Whatever others come and go."""
        alone = {**self.cidrs('default'), **self.cidrs('frontend')}
        self.assertEqual('192.168.100.0/24', alone['subnet_default'])
        self.assertEqual('fd00:c0a8:100::/64', alone['subnet6_default'])
        self.assertEqual('172.28.243.0/24', alone['subnet_frontend'])
        together = self.cidrs('admin', 'backend', 'default', 'frontend')
        self.assertEqual(alone, {name: together[name] for name in alone})
        self.assertEqual(8, len(set(together.values())))
        for cidr in together.values():
            ipaddress.ip_network(cidr)

    def test_names_of_the_same_addresses(self):
        with self.assertRaisesRegex(document.Refused,
                                    'networks.n86.*n14.*ipam'):
            self.cidrs('n86', 'n14')
        found = self.cidrs('n14', 'n86', given='{ipam: {config: [{subnet: '
                           '10.9.0.0/24}]}}')
        self.assertEqual('10.9.0.0/24', found['subnet_n86'])
        self.assertEqual(4, len(set(found.values())))

    def test_floating_ips_need_a_router(self):
        text = 'services: {a: {image: i, ports: ["80:80"]}}'
        resources = write(text, None, floating_network='public')['resources']
        self.assertEqual(
            {'network': 'public'},
            resources['gateway_router']['properties']['external_gateway_info'])
        self.assertEqual(
            {'get_resource': 'gateway_router'},
            resources['router_default']['properties']['router'])
        self.assertEqual(['router_default'], resources['a']['depends_on'])
        for where in ({'network': 'there'}, {'network': None}):
            self.assertNotIn('gateway_router',
                             write(text, **where)['resources'])

    def test_names_of_resources_are_taken(self):
        with self.assertRaisesRegex(document.Refused, 'a-2: is also the name'):
            write('services: {a: {image: i, scale: 2}, a-2: {image: i}}')

    def test_a_default_network_of_its_own(self):
        resources = write('services: {a: {image: i}}', None)['resources']
        self.assertIn('network_default', resources)
