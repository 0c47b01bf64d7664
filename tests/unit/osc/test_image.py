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

"""What the commands decide; Glance is in memory here, real in tests/cloud."""

import argparse
import io
import itertools
import pathlib
import tempfile
from unittest import mock

from osc_lib import exceptions

from nova_container import exception
from nova_container.image import thin
from nova_container.oci import digest
from nova_container.oci import manifest
from nova_container.osc import glance
from nova_container.osc import image
from nova_container.osc import layout
from nova_container.osc import transfer
from nova_container.osc import usage
from tests import archives
from tests.unit import base

_TYPE = 'application/vnd.oci.image.layer.v1.tar'
ONE, TWO, THREE = (archives.files({name: name.encode()})
                   for name in ('one', 'two', 'three'))


class Memory(glance.Glance):
    """Images of one project, in memory."""

    def __init__(self):
        self.project = 'me'
        self.content = {}
        self._ids = map('{:08x}-0000-0000-0000-000000000000'.format,
                        itertools.count())

    def images(self, **filters):
        for found in list(self.content.values()):
            fields = found | {'os_hidden': str(found['os_hidden']).lower()}
            if all(value in (fields.get(key), 'all')
                   or str(value).startswith('in:')
                   and str(fields[key]) in value
                   for key, value in filters.items()):
                yield found

    def create(self, fields, data):
        made = {'os_hidden': False, 'visibility': 'shared', **fields,
                'id': next(self._ids), 'owner': self.project,
                'status': 'active', 'size': len(data),
                'created_at': '2026-01-01', 'data': data.read()}
        self.content[made['id']] = made
        return made

    def delete(self, image_id):
        self.content.pop(image_id, None)

    def data(self, image_id):
        yield self.content[image_id]['data']

    def push(self, name, *layers):
        """A thin image with all its layers."""
        listed = []
        for data in layers:
            name_ = digest.Digest.of(data)
            listed.append(manifest.Descriptor(_TYPE, name_, len(data)))
            if not self.layers(listed)[name_]:
                self.create(thin.layer_fields(listed[-1], name_),
                            transfer.Data(data))
        return self.create(
            {'name': name, 'container_format': 'docker', 'disk_format': 'raw',
             thin.PROPERTY: thin.THIN},
            transfer.Data(thin.build(archives.config(layers), listed)))

    def names(self):
        return {found['name'] for found in self.content.values()}


class CommandTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.store = Memory()
        self.said = io.StringIO()
        self.app = mock.Mock(stdout=self.said)
        self.app.client_manager.container_image = self.store

    def run_command(self, kind, *words):
        command = kind(self.app, argparse.Namespace())
        return command.take_action(
            command.get_parser('test').parse_args(words))

    def test_delete_leaves_what_others_have(self):
        self.store.push('a', ONE, TWO)
        self.store.push('b', ONE, THREE)
        self.run_command(image.DeleteImage, 'b', '--yes')
        self.assertEqual(
            {'a', archives.digest(ONE), archives.digest(TWO)},
            self.store.names())
        self.assertIn(archives.digest(THREE), self.said.getvalue())
        self.assertNotIn(archives.digest(ONE), self.said.getvalue())

    def test_delete_of_all_that_share(self):
        self.store.push('a', ONE, TWO)
        self.store.push('b', ONE)
        self.run_command(image.DeleteImage, 'a', 'b', '--yes')
        self.assertEqual(set(), self.store.names())

    def test_delete_knows_an_image_without_the_property(self):
        made = self.store.push('a', ONE)
        del self.store.content[made['id']][thin.PROPERTY]
        self.store.push('b', ONE)
        self.run_command(image.DeleteImage, 'b', '--yes')
        self.assertEqual({'a', archives.digest(ONE)}, self.store.names())

    def test_delete_stops_at_a_damaged_image(self):
        made = self.store.push('a', ONE)
        made['data'] = made['data'].replace(b'layers', b'Layers')
        self.store.push('b', ONE)
        error = self.assertRaises(
            exceptions.CommandError, self.run_command, image.DeleteImage,
            'b', '--yes')
        self.assertIn(made['id'], str(error))
        self.assertIn('b', self.store.names())

    def test_nobody_to_ask(self):
        self.store.push('a', ONE)
        with mock.patch('sys.stdin', io.StringIO()):
            error = self.assertRaises(
                exceptions.CommandError, self.run_command, image.DeleteImage,
                'a')
        self.assertIn('--yes', str(error))
        self.assertIn('a', self.store.names())

    def test_prune(self):
        made = self.store.push('a', ONE, TWO)
        self.store.push('b', TWO)
        self.store.delete(made['id'])
        self.run_command(image.PruneImage, '--yes')
        self.assertEqual({'b', archives.digest(TWO)}, self.store.names())

    def test_show(self):
        self.store.push('a', ONE, TWO)
        self.store.push('b', ONE)
        names, values = self.run_command(image.ShowImage, 'a')
        shown = dict(zip(names, values))
        self.assertEqual(
            [(archives.digest(ONE), 1), (archives.digest(TWO), 0)],
            [(row['digest'], row['shared_with'])
             for row in shown['layers'].machine_readable()])

    def test_an_archive_is_no_thin_image(self):
        self.store.create(
            {'name': 'fat', 'container_format': 'docker'},
            transfer.Data(archives.docker_archive(ONE)))
        error = self.assertRaises(exceptions.CommandError, self.run_command,
                                  image.ShowImage, 'fat')
        self.assertIn('one archive', str(error))

    def test_names_that_do_not_tell(self):
        self.store.push('a', ONE)
        self.store.push('a', TWO)
        for name, words in (('a', '2 images'), ('x', 'no image')):
            error = self.assertRaises(
                exceptions.CommandError, self.run_command, image.ShowImage,
                name)
            self.assertIn(words, str(error))

    def test_layer_of_another_digest_is_refused(self):
        self.store.push('a', ONE)
        [holder] = self.store.layers([self._descriptor(ONE)])[
            archives.digest(ONE)]
        self.store.content[holder.id]['data'] = bytes(len(ONE))
        with tempfile.TemporaryDirectory() as place, \
                transfer.Bars() as bars:
            self.assertRaises(
                exception.ImageInvalid, transfer.download, self.store, bars,
                {self._descriptor(ONE): [holder]},
                lambda name: pathlib.Path(place, 'blob'))

    @staticmethod
    def _descriptor(data):
        return manifest.Descriptor(_TYPE, digest.Digest.of(data), len(data))

    def test_upload_stops_at_the_first_error(self):
        def refuse(fields, data):
            raise exception.ImageIncomplete('no')

        self.store.create = refuse
        with tempfile.TemporaryDirectory() as place, \
                transfer.Bars() as bars:
            path = pathlib.Path(place, 'blob')
            path.write_bytes(ONE)
            self.assertRaises(
                exception.ImageIncomplete, transfer.upload, self.store, bars,
                {self._descriptor(data): {} for data in (ONE, TWO)},
                lambda name: path)


class LayoutTest(base.TestCase):

    def test_all_architectures_count(self):
        oci = archives.OciArchive()
        images = [oci.image(layer, raw_config=archives.config(
            [layer], architecture=name), platform={
                'os': 'linux', 'architecture': name})
            for layer, name in ((ONE, 'amd64'), (TWO, 's390x'))]
        found = layout.from_tar(io.BytesIO(oci.save(oci.index(*images))))
        self.assertEqual({archives.digest(ONE), archives.digest(TWO)},
                         usage.blobs(found))

    def test_written_and_read(self):
        oci = archives.OciArchive()
        [found] = layout.from_tar(io.BytesIO(oci.save(oci.image(ONE))))
        with tempfile.TemporaryDirectory() as place:
            layout.write(pathlib.Path(place), found)
            self.assertEqual(found,
                             layout.from_directory(pathlib.Path(place)))

    def test_not_a_layout(self):
        for data in (b'', b'x' * 5000, archives.docker_archive(ONE)):
            self.assertEqual([], layout.from_tar(io.BytesIO(data)))

    def test_missing_blob(self):
        oci = archives.OciArchive()
        made = oci.image(ONE)
        del oci.content[f'blobs/sha256/{made["digest"][7:]}']
        error = self.assertRaises(exception.ImageInvalid, layout.from_tar,
                                  io.BytesIO(oci.save(made)))
        self.assertIn('lacks', str(error))
