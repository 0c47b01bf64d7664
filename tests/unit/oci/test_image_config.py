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

from nova_container import exception
from nova_container.oci import digest
from nova_container.oci import image_config
from nova_container.oci import platform
from tests.unit import base

LAYER = 'sha256:' + 'a' * 64


def document(config=None, **fields) -> bytes:
    return json.dumps({
        'architecture': 'amd64', 'os': 'linux', 'config': config,
        'rootfs': {'type': 'layers', 'diff_ids': [LAYER]}} | fields).encode()


class ImageConfigTest(base.TestCase):

    def refused(self, data: bytes, *words: str):
        error = self.assertRaises(exception.ImageInvalid,
                                  image_config.ImageConfig.from_json, data)
        for word in words:
            self.assertIn(word, str(error))

    def test_everything_docker_writes_is_read(self):
        read = image_config.ImageConfig.from_json(document({
            'Entrypoint': ['/entry'], 'Cmd': ['serve', ''],
            'Env': ['PATH=/bin', 'EMPTY='], 'User': 'www:80',
            'WorkingDir': '/srv', 'StopSignal': 'SIGRTMIN+3',
            'ExposedPorts': {'80/tcp': {}, '53/udp': {}},
            'Volumes': {'/data': {}}, 'Labels': {'a': 'b'},
            'Healthcheck': {'Test': ['CMD', 'true'],
                            'Interval': 30 * 10 ** 9, 'Retries': 3},
            'Hostname': '', 'OnBuild': None}, variant='v2'))
        self.assertEqual(('amd64', 'linux', 'v2'),
                         (read.architecture, read.os, read.variant))
        self.assertEqual((('/entry',), ('serve', '')),
                         (read.entrypoint, read.cmd))
        self.assertEqual(('PATH=/bin', 'EMPTY='), read.env)
        self.assertEqual(('www:80', '/srv', 'SIGRTMIN+3'),
                         (read.user, read.working_dir, read.stop_signal))
        self.assertEqual(('53/udp', '80/tcp'), read.exposed_ports)
        self.assertEqual((('/data',), (('a', 'b'),)),
                         (read.volumes, read.labels))
        self.assertEqual(image_config.Healthcheck(
            ('CMD', 'true'), interval=30 * 10 ** 9, retries=3),
            read.healthcheck)
        self.assertEqual((digest.Digest(LAYER),), read.diff_ids)

    def test_null_is_absent(self):
        for config in (None, {}, {'Cmd': None, 'Env': None, 'Labels': None,
                                  'Healthcheck': None, 'User': None}):
            read = image_config.ImageConfig.from_json(document(config))
            self.assertEqual(((), (), None),
                             (read.cmd, read.env, read.healthcheck))

    def test_wrong_types_are_named(self):
        for field, value in (('Cmd', 'sh'), ('Cmd', ['sh', 1]),
                             ('Env', {'A': 'b'}), ('Env', ['=x']),
                             ('Env', ['novalue']), ('User', 0),
                             ('WorkingDir', '/a\0b'), ('StopSignal', 'x y'),
                             ('ExposedPorts', {'http': {}}),
                             ('Labels', {'a': 1}), ('Volumes', ['/a']),
                             ('Healthcheck', {'Test': ['NONE'],
                                              'Interval': -1})):
            self.refused(document({field: value}), 'image config')

    def test_bad_documents(self):
        good = document()
        for data in (b'', b'[]', b'null', b'{', b'\xff\xfe', b'[' * 100000,
                     b'{"a": NaN}', b'{"a": 1' + b'0' * 5000 + b'}',
                     good.replace(b'"layers"', b'"btrfs"'),
                     good + good, b' ' * (5 << 20)):
            self.refused(data, 'image config')
        self.refused(b'{"os": "linux", "os": "plan9"}', 'twice')

    def test_layers_must_be_digests_and_not_too_many(self):
        for diff_ids in ([], [LAYER] * 501, ['md5:' + 'a' * 32], [LAYER + 'a'],
                         [LAYER.upper()], [None], ['../../etc']):
            self.refused(document(rootfs={'type': 'layers',
                                          'diff_ids': diff_ids}))


class PlatformTest(base.TestCase):

    def test_hosts_run_their_own_and_lesser_variants(self):
        arm = platform.Platform.of_machine('armv7l')
        self.assertIsNone(arm.suitability(platform.Platform('linux', 'arm64')))
        self.assertIsNone(arm.suitability(
            platform.Platform('windows', 'arm')))
        levels = [arm.suitability(platform.Platform('linux', 'arm', variant))
                  for variant in ('v5', 'v6', 'v7')]
        self.assertEqual(sorted(levels), levels)
        self.assertIsNone(arm.suitability(
            platform.Platform('linux', 'arm', 'v8')))

    def test_baseline_variant_may_be_left_out(self):
        for machine, architecture, variant in (('x86_64', 'amd64', 'v1'),
                                               ('aarch64', 'arm64', 'v8')):
            host = platform.Platform.of_machine(machine)
            for named in ('', variant):
                self.assertIsNotNone(host.suitability(
                    platform.Platform('linux', architecture, named)))
            self.assertIsNone(host.suitability(
                platform.Platform('linux', architecture, 'v9')))
