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
import tarfile
import tempfile
from unittest import mock

from openstack import exceptions as sdk_exceptions
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
OLD = '2026-01-01T00:00:00Z'
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
                'created_at': OLD, 'updated_at': OLD, 'data': data.read()}
        self.content[made['id']] = made
        return made

    def delete(self, image_id):
        self.content.pop(image_id, None)

    def update(self, image_id, **fields):
        if image_id not in self.content:
            raise sdk_exceptions.NotFoundException()
        self.content[image_id] |= fields | {'updated_at': usage.ago(0)}

    def data(self, image_id):
        if image_id not in self.content:
            raise sdk_exceptions.NotFoundException()
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

    def holder(self, data):
        """The image that holds a layer."""
        return next(found for found in self.content.values()
                    if found['name'] == archives.digest(data))

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

    def test_delete_keeps_layers_that_an_unreadable_image_may_have(self):
        for change in (
                lambda made: {'status': 'deactivated'},
                lambda made: {'status': 'saving', 'size': None},
                lambda made: {'status': 'queued', 'container_format': None,
                              'image_type': 'snapshot'},
                lambda made: {'status': 'queued',
                              thin.PROPERTY: thin.ARCHIVE},
                lambda made: {'data': made['data'].replace(b'layers',
                                                           b'Layers')},
                lambda made: {'data': b'x' * 512}, lambda made: {
                    'data': made['data'][:700], 'size': 700},
                lambda made: {'data': made['data'][:700]}):
            self.store.content.clear()
            made = self.store.push('a', ONE)
            self.store.content[made['id']] |= change(made)
            self.store.push('b', ONE, TWO)
            self.run_command(image.DeleteImage, 'b', '--yes')
            self.assertEqual(
                {'a', archives.digest(ONE), archives.digest(TWO)},
                self.store.names())
            self.assertIn(made['id'], self.said.getvalue())
            error = self.assertRaises(
                exceptions.CommandError, self.run_command, image.PruneImage,
                '--yes', '--older-than', '0')
            self.assertIn(made['id'], str(error))
            self.run_command(image.DeleteImage, 'a', '--yes')
            self.run_command(image.PruneImage, '--yes')
            self.assertEqual(set(), self.store.names())

    def test_what_becomes_no_container_image_is_in_nobodys_way(self):
        self.store.push('a', ONE)
        for fields in ({'container_format': 'bare'},
                       {'container_format': None},
                       {'container_format': None, 'image_type': 'snapshot',
                        'img_hv_type': 'qemu'}):
            self.store.create({'name': 'x', 'container_format': 'docker'},
                              transfer.Data(b'')).update(
                                  fields, status='queued', size=None)
        self.run_command(image.DeleteImage, 'a', '--yes')
        self.assertEqual({'x'}, self.store.names())

    def test_layers_of_large_mixed_images_are_kept(self):
        for mark in ({}, {thin.PROPERTY: thin.THIN}):
            self.store.content.clear()
            self._mixed(20 << 20, mark)
            self.store.push('b', TWO)
            self.run_command(image.DeleteImage, 'b', '--yes')
            self.run_command(image.PruneImage, '--yes')
            self.assertEqual({'mixed', archives.digest(TWO)},
                             self.store.names())

    def test_an_archive_that_is_marked_so_is_not_read(self):
        self._mixed(1, {thin.PROPERTY: thin.ARCHIVE})
        self.store.data = mock.Mock(side_effect=AssertionError)
        self.run_command(image.PruneImage, '--yes')
        self.assertEqual({'mixed'}, self.store.names())

    def _mixed(self, size, fields):
        """An image of a layer of that size inside, and TWO outside."""
        oci = archives.OciArchive()
        made = oci.image(bytes(size), TWO)
        del oci.content[f'blobs/sha256/{archives.digest(TWO)[7:]}']
        self.store.create({'name': 'mixed', 'container_format': 'docker',
                           **fields}, transfer.Data(oci.save(made)))

    def test_an_image_deleted_meanwhile_needs_nothing(self):
        made = self.store.push('a', ONE)
        listed = [dict(made)]
        self.store.delete(made['id'])
        with mock.patch.object(self.store, 'own', lambda: listed):
            self.run_command(image.PruneImage, '--yes')
        self.assertEqual(set(), self.store.names())

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

    def test_young_layers_are_not_pruned(self):
        self.store.delete(self.store.push('a', ONE, TWO)['id'])
        self.store.holder(ONE)['updated_at'] = usage.ago(3000)
        self.run_command(image.PruneImage, '--yes')
        self.assertEqual({archives.digest(ONE)}, self.store.names())
        self.assertIn('1 layers stay', self.said.getvalue())
        self.run_command(image.PruneImage, '--yes', '--older-than', '4000')
        self.assertEqual({archives.digest(ONE)}, self.store.names())
        self.run_command(image.PruneImage, '--yes', '--older-than', '2000')
        self.assertEqual(set(), self.store.names())

    def test_no_age_spares_nothing(self):
        self.store.delete(self.store.push('a', ONE)['id'])
        self.store.holder(ONE)['updated_at'] = usage.ago(-60)
        self.run_command(image.PruneImage, '--yes', '--older-than', '0')
        self.assertEqual(set(), self.store.names())

    def test_delete_spares_what_was_used_again_since(self):
        made = self.store.push('a', ONE, TWO)
        made['created_at'] = usage.ago(60)
        self.store.holder(ONE)['updated_at'] = usage.ago(30)
        self.store.holder(TWO)['updated_at'] = usage.ago(90)
        self.run_command(image.DeleteImage, 'a', '--yes')
        self.assertEqual({archives.digest(ONE)}, self.store.names())

    def test_what_is_used_while_the_user_is_asked_stays(self):
        self.store.delete(self.store.push('a', ONE, TWO)['id'])

        def answer(question):
            self.store.push('b', ONE)
            return 'y'

        with mock.patch('sys.stdin.isatty', lambda: True, create=True), \
                mock.patch('builtins.input', answer):
            self.run_command(image.PruneImage)
        self.assertEqual({'b', archives.digest(ONE)}, self.store.names())

    def push(self, data=ONE):
        """Push an archive, without skopeo."""
        def fetch(source, directory, *options):
            with tarfile.open(source) as archive:
                archive.extractall(directory)

        oci = archives.OciArchive()
        with tempfile.NamedTemporaryFile() as file, \
                mock.patch('nova_container.osc.skopeo.fetch', fetch):
            file.write(oci.save(oci.image(data)))
            file.flush()
            names, values = self.run_command(
                image.PushImage, file.name, 'new')
        return dict(zip(names, values))

    def test_layers_that_a_push_uses_again_are_young_again(self):
        self.store.push('a', ONE)
        self.assertEqual(0, self.push()['uploaded_layers'])
        self.assertLess(OLD, self.store.holder(ONE)['updated_at'])
        self.run_command(image.DeleteImage, 'a', 'new', '--yes')
        self.assertEqual({archives.digest(ONE)}, self.store.names())

    def test_layer_that_is_deleted_during_a_push_is_put_again(self):
        self.store.push('a', ONE)
        with self._deleting_layers():
            self.assertEqual(1, self.push()['uploaded_layers'])
        self.assertLessEqual({'new', archives.digest(ONE)},
                             self.store.names())

    def _deleting_layers(self):
        """Someone deletes all layers whenever an image is made."""
        create = self.store.create

        def meanwhile(fields, data):
            if fields[thin.PROPERTY] == thin.THIN:
                for layer in usage.layer_images(self.store):
                    self.store.delete(layer.id)
            return create(fields, data)

        return mock.patch.object(self.store, 'create', meanwhile)

    def test_no_image_stays_of_a_push_that_cannot_be_completed(self):
        self.store.push('a', ONE)
        with self._deleting_layers(), mock.patch.object(
                transfer, 'upload', autospec=True,
                side_effect=[None, exception.ImageIncomplete('no')]):
            self.assertRaises(exceptions.CommandError, self.push)
        self.assertEqual({'a'}, self.store.names())

    def test_layer_that_may_not_be_changed_is_used(self):
        self.store.push('a', ONE)
        forbidden = sdk_exceptions.HttpException()
        forbidden.status_code = 403
        self.store.update = mock.Mock(side_effect=forbidden)
        self.assertEqual(0, self.push()['uploaded_layers'])

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

    def test_a_root_file_system_is_not_read_to_its_end(self):
        data = archives.files({f'etc/{number}': b'x' for number in range(999)})
        file = io.BytesIO(data)
        self.assertEqual([], layout.from_tar(file))
        self.assertLess(file.tell(), len(data) / 10)

    def test_missing_blob(self):
        oci = archives.OciArchive()
        made = oci.image(ONE)
        del oci.content[f'blobs/sha256/{made["digest"][7:]}']
        error = self.assertRaises(exception.ImageInvalid, layout.from_tar,
                                  io.BytesIO(oci.save(made)))
        self.assertIn('lacks', str(error))
