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

"""Layers that are not in their archive; damage; expiry."""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import threading
import time
from unittest import mock
import uuid

from nova_container.cli import main
from nova_container.cli import owner
from nova_container import exception
from nova_container.image import store
from nova_container.image import thin
from nova_container.image import trust
from nova_container.oci import digest
from nova_container.oci import manifest
from nova_container.privileged import layer as privileged
from tests import archives
from tests.functional import base
from tests.functional import test_unpack

_TYPE = 'application/vnd.oci.image.layer.v1.tar'


def descriptor(layer: bytes) -> manifest.Descriptor:
    return manifest.Descriptor(_TYPE, digest.Digest.of(layer), len(layer))


def thin_archive(*layers: bytes) -> bytes:
    return thin.build(archives.config(layers),
                      [descriptor(layer) for layer in layers])


class Glance:
    """A layer source in memory, which counts."""

    def __init__(self, *data: bytes, name: str | None = None):
        self.data = {uuid.uuid4().hex: item for item in data}
        self.name = name
        self.fetched: list[str] = []
        self.asked = 0
        self.break_at: bytes | None = None

    def image(self, image_id: str, item: bytes) -> thin.LayerImage:
        return thin.LayerImage(
            image_id, self.name or archives.digest(item), 'me', 'private',
            'active', len(item), 'sha512', hashlib.sha512(item).hexdigest())

    def find(self, layers):
        self.asked += 1
        images = [self.image(*pair) for pair in self.data.items()]
        return {layer.blob_digest: thin.candidates(
            layer.blob_digest, layer.size, images, 'me') for layer in layers}

    def fetch(self, image, file):
        item = self.data[image.id]
        if item == self.break_at:
            raise exception.ImageIncomplete('Glance broke off')
        self.fetched.append(archives.digest(item))
        file.write(item)


class OutsideTest(test_unpack.UnpackTestCase):

    def setUp(self):
        super().setUp()
        self.layers = [archives.files({str(number): uuid.uuid4().bytes})
                       for number in range(3)]

    def boot(self, source: Glance | None, *layers: bytes, image_id=None):
        return self.add(thin_archive(*(layers or self.layers)), image_id,
                        source=source)

    def test_only_what_is_missing_travels(self):
        glance = Glance(*self.layers)
        image = self.boot(glance, *self.layers[:2], image_id='first')
        self.assertEqual([archives.digest(layer)
                          for layer in self.layers[:2]], list(image.layers))
        self.assertCountEqual(image.layers, glance.fetched)
        glance.fetched.clear()
        image = self.boot(glance)
        self.assertEqual([archives.digest(self.layers[2])], glance.fetched)
        glance.fetched.clear()
        asked = glance.asked
        self.boot(glance, *self.layers[:2], image_id='first')
        self.assertEqual(([], asked + 1), (glance.fetched, glance.asked))

    def test_who_may_not_read_a_layer_does_not_get_it(self):
        self.boot(Glance(*self.layers), image_id='mine')
        short = digest.Digest.of(self.layers[2]).short
        for image_id in ('mine', 'theirs'):
            with self.subTest(image_id), self.assertRaisesRegex(
                    exception.ImageForbidden, f'{short}.*may read'):
                self.boot(Glance(*self.layers[:2]), image_id=image_id)
        # One that has the name and the size, not the content.
        liar = Glance(bytes(len(self.layers[2])),
                      name=archives.digest(self.layers[2]))
        with self.assertRaisesRegex(exception.ImageInvalid, 'digest'):
            self.boot(liar, self.layers[2])
        self.assertEqual(1, len(liar.fetched))
        with self.assertRaises(exception.ImageForbidden):
            self.boot(None)

    def test_what_cannot_fit_is_not_fetched(self):
        layer = digest.Digest.of(b'')
        image = thin.build(archives.config([b'']), [
            manifest.Descriptor(_TYPE, layer, 1 << 40)])
        source = mock.Mock(spec=Glance())
        source.find.side_effect = lambda blobs: {layer: [thin.LayerImage(
            'huge', str(layer), 'me', 'private', 'active', 1 << 40)]}
        with self.assertRaisesRegex(exception.ImageTooBig, 'flavor'):
            self.add(image, source=source, max_bytes=1 << 30)
        source.fetch.assert_not_called()

    def test_one_from_an_archive_is_fetched_once_to_compare(self):
        self.add_layers(*self.layers)
        glance = Glance(*self.layers)
        for _ in range(2):
            self.boot(glance)
        self.assertEqual(3, len(glance.fetched))

    def test_what_was_complete_stays_after_an_interruption(self):
        glance = Glance(*self.layers)
        glance.break_at = min(self.layers, key=len)
        with self.assertRaises(exception.ImageIncomplete):
            self.boot(glance, image_id='x')
        self.assertIsNone(self.store.get('x'))
        self.assertEqual([], os.listdir(self.state / 'spool'))
        self.store.recover()
        before = list(glance.fetched)
        glance.break_at = None
        self.boot(glance, image_id='x')
        self.assertEqual(3, len(glance.fetched))
        self.assertEqual(before, glance.fetched[:len(before)])

    def test_boots_at_the_same_time_fetch_once(self):
        glance = Glance(*self.layers)
        threads = [threading.Thread(target=self.boot, args=(glance,),
                                    kwargs={'image_id': 'one'})
                   for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(3, len(glance.fetched))


class TrustTest(test_unpack.UnpackTestCase):
    """Images whose signature somebody asks for."""

    def setUp(self):
        super().setUp()
        self.archive = archives.docker_archive(
            archives.files({'a': uuid.uuid4().bytes}))
        self.fetched = 0

    def boot(self, *certificates: str, ask: bool = True,
             archive: bytes | None = None):
        def fetch(file):
            self.fetched += 1
            if ask and 'nobody' in certificates:
                raise exception.ImageUntrusted('not signed')
            file.write(archive or self.archive)

        return self.store.ensure(
            'image', fetch, trust=trust.Trust(
                frozenset(certificates) or None) if ask else None)

    def test_checked_once_for_each_who_trusts_others(self):
        image = self.boot(ask=False)
        made = os.stat(self.tree(image.layers[0])).st_ctime_ns
        for count, certificates in (
                (2, ()), (2, ()), (3, ('one',)), (3, ()), (3, ('one',)),
                (3, ('one', 'two')), (4, ('two',)), (5, ('one',))):
            self.assertEqual(image, self.boot(*certificates))
            self.assertEqual(count, self.fetched, certificates)
        # What is known outlives the service.
        self.store = store.ImageStore(str(self.state))
        self.addCleanup(self.store.close)
        self.boot('one')
        self.boot(ask=False)
        self.assertEqual(5, self.fetched)
        # Its layer was compared, not unpacked again.
        self.assertEqual(made,
                         os.stat(self.tree(image.layers[0])).st_ctime_ns)

    def test_one_that_is_not_trusted_stays_for_those_who_do_not_ask(self):
        image = self.boot(ask=False)
        for _ in range(2):
            with self.assertRaisesRegex(exception.ImageUntrusted, 'not sign'):
                self.boot('nobody')
        self.assertEqual(image, self.boot(ask=False))
        self.assertEqual(3, self.fetched)

    def test_what_is_used_is_what_was_checked(self):
        mine = self.boot(ask=False)
        other = archives.docker_archive(archives.files({'b': b''}))
        checked = self.boot('one', archive=other)
        self.assertNotEqual(mine.layers, checked.layers)
        self.assertEqual(checked, self.boot(ask=False))


class ExpiryTest(test_unpack.UnpackTestCase):

    def test_nothing_goes_while_an_image_comes_in(self):
        image = self.add_layers(archives.files({'a': b''}), image_id='old')
        os.utime(self.state / 'images/old.json', (0, 0))

        def fetch(file):
            self.store.expire([], [], 0)
            file.write(archives.docker_archive(archives.files({'b': b''})))

        self.store.ensure('new', fetch)
        self.assertEqual(image, self.store.get('old'))
        os.utime(self.state / 'images/old.json', (0, 0))
        self.store.expire([], [], 3600)
        self.assertIsNone(self.store.get('old'))
        self.assertIsNotNone(self.store.get('new'))

    def test_an_image_in_use_does_not_age(self):
        self.add_layers(archives.files({'a': b''}), image_id='used')
        os.utime(self.state / 'images/used.json', (0, 0))
        self.store.expire(['used'], [], 3600)
        self.assertGreater(os.stat(self.state / 'images/used.json').st_mtime,
                           time.time() - 60)

    def test_a_pass_ends_in_time(self):
        for name in 'abc':
            self.add_layers(archives.files({name: b''}))
        self.store.expire([], [], -1, until=time.monotonic())
        self.assertEqual(3, len(self.store.layers()))
        self.store.expire([], [], -1)
        self.assertEqual([], self.store.layers())
        self.assertEqual([], os.listdir(self.state / 'blobs'))


class CommandTest(base.RuntimeTestCase):

    def run_command(self, *args: str) -> tuple[int, list]:
        """Exit code and answer of a command, on this test's runtime."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), \
                mock.patch.object(owner, 'enter', autospec=True), \
                mock.patch.object(main, 'CONF', autospec=True):
            code = main.main(['store', *args, '--format', 'json'])
        return code, json.loads(out.getvalue())

    def test_damage_is_found(self):
        layer = archives.files({'a': b'content', 'b': b''})
        image = self.add_image(archives.docker_archive(layer))
        (diff_id,) = image.layers
        privileged.seal(diff_id)
        self.assertTrue(privileged.check(diff_id))
        code, _found = self.run_command('verify')
        self.assertEqual(0, code)
        path = pathlib.Path(privileged.tree(diff_id), 'a')
        status = path.stat()
        path.write_bytes(b'cantent')
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        code, found = self.run_command('verify')
        self.assertEqual(1, code)
        self.assertEqual([diff_id], [row['layer'] for row in found
                                     if row['state'] == 'damaged'])

    def test_what_is_in_use_is_not_pruned(self):
        own, other = (self.add_image(archives.docker_archive(
            base.busybox_layer(), archives.files({name: b''})))
            for name in ('own', 'other'))
        self.define('/bin/true', image=own)
        code, found = self.run_command('list')
        self.assertIn(str(own.layers[1]), {row['layer'] for row in found})
        self.run_command('prune', '--older-than', '0')
        left = {layer.diff_id for layer in self.images.layers()}
        self.assertLessEqual(set(own.layers), left)
        self.assertNotIn(other.layers[1], left)
        self.assertIsNotNone(self.images.get(own.id))
