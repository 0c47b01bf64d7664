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

"""The format of thin images."""

import dataclasses
import os
import tempfile

from nova_container.image import archive
from nova_container.image import thin
from nova_container.oci import digest
from nova_container.oci import image_config
from nova_container.oci import manifest
from nova_container.oci import platform
from tests import archives
from tests.unit import base

_HOST = platform.Platform.of_machine(os.uname().machine)


def image(image_id: str, name: str = 'sha256:' + '0' * 64,
          **fields) -> thin.LayerImage:
    return dataclasses.replace(thin.LayerImage(
        image_id, name, 'own', 'private', 'active', 5), **fields)


class ThinTest(base.TestCase):

    def test_what_is_built_is_read(self):
        layers = [archives.files({name: b''}) for name in 'ab']
        blobs = [manifest.Descriptor(thin.media_type('none'),
                                     digest.Digest.of(layer), len(layer))
                 for layer in layers]
        config = archives.config(layers)
        data = thin.build(config, blobs, {'note': 'x'})
        self.assertEqual(data, thin.build(config, blobs, {'note': 'x'}))
        with tempfile.TemporaryFile() as file:
            file.write(data)
            # One blob may be inside.
            file.seek(0)
            found = archive.read(file.fileno(), _HOST)
            self.assertEqual(
                [(None, blob.digest, blob.size) for blob in blobs],
                [(layer.offset, layer.blob_digest, layer.size)
                 for layer in found.layers])
            self.assertEqual(config, found.raw_config)
            file.truncate(0)
            file.seek(0)
            file.write(thin.blob_header(blobs[0]) + layers[0] + data)
            file.flush()
            found = archive.read(file.fileno(), _HOST)
            self.assertEqual([512, None],
                             [layer.offset for layer in found.layers])

    def test_candidates(self):
        images = [
            image('public', owner='x', visibility='public'),
            image('foreign', owner='x', visibility='community'),
            image('of the image', owner='base', visibility='shared'),
            image('later', created='2026-02-01'),
            image('first', created='2026-01-01'),
            image('unfinished', status='saving'),
            image('shorter', size=4),
            image('other', name='sha256:' + '1' * 64)]
        blob = digest.Digest('sha256:' + '0' * 64)
        self.assertEqual(
            ['first', 'later', 'of the image', 'public'],
            [found.id for found in thin.candidates(blob, 5, images, 'own',
                                                   'base')])
        self.assertEqual(
            ['first', 'later', 'public'],
            [found.id for found in thin.candidates(blob, 5, images, 'own')])

    def test_unused(self):
        needed = digest.Digest('sha256:' + '0' * 64)
        images = [image('kept', created='1'), image('surplus', created='2'),
                  image('broken', status='saving', created='0'),
                  image('unneeded', name='sha256:' + '1' * 64),
                  image('shared', name='sha256:' + '1' * 64,
                        visibility='shared')]
        self.assertEqual(
            {'surplus', 'broken', 'unneeded'},
            {found.id for found in thin.unused(images, [needed])})
        self.assertIn('shared', {found.id for found in thin.unused(
            images, [needed], ('private', 'shared'))})

    def test_queries_are_short(self):
        blobs = [digest.Digest(f'sha256:{number:064x}')
                 for number in range(45)]
        names = [query['name'] for query in thin.queries(blobs * 2)]
        self.assertEqual([20, 20, 5],
                         [name.count('sha256:') for name in names])
        self.assertTrue(all(name.startswith('in:') for name in names))


class CommittedTest(base.TestCase):

    def test_history_has_an_entry_for_each_layer(self):
        layers = [archives.files({name: b''}) for name in 'abc']
        diff_ids = [digest.Digest.of(layer) for layer in layers]
        for history in ([], [{'empty_layer': True}, {}, {}], [{}]):
            raw = archives.config(layers[:2], history=history, id='x')
            made = image_config.committed(raw, diff_ids, '2026-01-01', 'by',
                                          'comment')
            config = image_config.ImageConfig.from_json(made)
            self.assertEqual(tuple(diff_ids), config.diff_ids)
            steps = [step for step in image_config.document.parse(
                made, 'config')['history'] if not step.get('empty_layer')]
            self.assertEqual((3, 'comment'), (len(steps),
                                              steps[-1]['comment']))
            self.assertNotIn(b'"id"', made)
