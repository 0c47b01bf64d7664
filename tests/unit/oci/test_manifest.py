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
import string

import hypothesis
from hypothesis import strategies

from nova_container import exception
from nova_container.oci import image_config
from nova_container.oci import manifest
from tests import cases
from tests.unit import base

BLOB = {'mediaType': 'application/vnd.oci.image.config.v1+json',
        'digest': 'sha256:' + '0' * 64, 'size': 2}
LAYER = BLOB | {'mediaType': 'application/vnd.oci.image.layer.v1.tar+gzip'}

FIELDS = strategies.sampled_from([
    'schemaVersion', 'manifests', 'config', 'layers', 'mediaType', 'digest',
    'size', 'platform', 'annotations', 'rootfs', 'type', 'diff_ids', 'Env',
    'Cmd', 'Labels', 'Config', 'Layers', 'Healthcheck', 'Test', 'os'])

VALUES = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers()
    | strategies.floats() | strategies.text(string.printable)
    | strategies.sampled_from([BLOB['digest'], 'layers', 'linux', 2]),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(FIELDS, inner, max_size=6)),
    max_leaves=20)


class ManifestTest(base.TestCase):

    def read(self, **fields) -> manifest.Manifest:
        return manifest.manifest_from_json(json.dumps(
            {'schemaVersion': 2, 'config': BLOB, 'layers': [LAYER]}
            | fields).encode(), 'manifest')

    def test_oci_and_docker_manifests(self):
        self.assertEqual('gzip', manifest.LAYER_TYPES[
            self.read().layers[0].media_type])
        docker = self.read(
            config=BLOB | {'mediaType': 'application/vnd.docker.container.'
                                        'image.v1+json'},
            layers=[LAYER | {'mediaType': 'application/vnd.docker.image.'
                                          'rootfs.diff.tar.gzip'}])
        self.assertEqual('gzip', manifest.LAYER_TYPES[
            docker.layers[0].media_type])

    def test_what_is_not_a_container_image_is_refused(self):
        for fields in ({'schemaVersion': 1},
                       {'config': BLOB | {'mediaType': 'application/helm'}},
                       {'layers': [LAYER | {'mediaType': 'text/plain'}]},
                       {'layers': [LAYER | {'size': -1}]},
                       {'layers': [LAYER | {'size': True}]},
                       {'layers': [LAYER | {'digest': 'sha512:00'}]},
                       {'layers': {}}, {'config': None}):
            self.assertRaises(exception.ImageInvalid, self.read, **fields)

    def test_attestations_are_not_images(self):
        index = json.dumps({'schemaVersion': 2, 'manifests': [
            BLOB, BLOB | {'annotations': {
                'vnd.docker.reference.type': 'attestation-manifest'}}]})
        self.assertEqual(1, len(manifest.index_from_json(index.encode(),
                                                         'index')))

    @hypothesis.given(VALUES)
    @cases.cases(300)
    def test_any_json_is_read_or_refused(self, value):
        data = json.dumps(value).encode()
        for read in (lambda: manifest.manifest_from_json(data, 'it'),
                     lambda: manifest.index_from_json(data, 'it'),
                     lambda: manifest.docker_images_from_json(data),
                     lambda: image_config.ImageConfig.from_json(data)):
            try:
                read()
            except exception.ImageInvalid:
                pass

    @hypothesis.given(strategies.binary(max_size=200))
    @cases.cases(200)
    def test_any_bytes_are_read_or_refused(self, data):
        try:
            manifest.index_from_json(data, 'it')
        except exception.ImageInvalid:
            pass
