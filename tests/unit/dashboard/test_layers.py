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

import io
import json
import os
import tarfile
import unittest

from nova_container_dashboard import layers
from tests import archives


class LayersTest(unittest.TestCase):

    def setUp(self):
        super().setUp()
        self.fetched = 0

    def read(self, archive: bytes) -> list[layers.Layer]:
        def fetch(offset: int, size: int) -> bytes:
            self.fetched += size
            return archive[offset:offset + size]
        file = io.BufferedReader(layers.Ranges(fetch, len(archive)), 4096)
        return layers.read(file)

    def test_archive_of_docker_save(self):
        low = archives.files({'low': b'x' * 5000})
        high = archives.files({'high': os.urandom(1 << 20)})
        found = self.read(archives.docker_archive(low, high))
        self.assertEqual([archives.digest(low), archives.digest(high)],
                         [layer.digest for layer in found])
        self.assertEqual([len(low), len(high)],
                         [layer.size for layer in found])
        self.assertLess(self.fetched, 100_000)

    def test_oci_layout(self):
        low, high = (archives.files({'a': b'x' * 5000}),
                     archives.files({'b': b'y' * 5000}))
        found = self.read(archives.oci_archive(low, high, compression='gzip'))
        self.assertEqual([archives.digest(low), archives.digest(high)],
                         [layer.digest for layer in found])

    def test_thin_image(self):
        """Its layers are images of their own; the manifest has their sizes."""
        layer = archives.files({'a': b'x' * 5000})
        archive = archives.OciArchive()
        manifest = archive.image(layer)
        del archive.content[f'blobs/sha256/{archives.digest(layer)[7:]}']
        found = self.read(archive.save(manifest))
        self.assertEqual([(archives.digest(layer), len(layer))],
                         [(one.digest, one.size) for one in found])

    def test_what_is_no_archive(self):
        for data in (b'', os.urandom(5000), archives.files({
                'etc/passwd': b'root'})):
            with self.assertRaises(layers.Unreadable):
                self.read(data)

    def assert_unreadable(self, archive: bytes) -> None:
        with self.assertRaises(layers.Unreadable):
            self.read(archive)
        self.assertLess(self.fetched, 1 << 20)

    def test_an_index_that_leads_to_itself(self):
        index = json.dumps({'manifests': [{'digest': 'sha256:a'}]}).encode()
        self.assert_unreadable(archives.files(
            {'index.json': index, 'blobs/sha256/a': index}))

    def test_sizes_that_no_layer_has(self):
        for size in (10 ** 400, -1):
            self.assert_unreadable(archives.files({
                name: json.dumps(document).encode() for name, document in {
                    'index.json': {'config': {'digest': 'sha256:c'},
                                   'layers': [{'size': size}]},
                    'blobs/sha256/c': {'rootfs': {'diff_ids': ['sha256:x']}},
                }.items()}))

    def test_nested_indexes(self):
        layer = archives.files({'a': b'x' * 5000})
        archive = archives.OciArchive()
        found = archive.image(layer)
        for _ in range(2):
            found = archive.index(found)
        self.assertEqual([archives.digest(layer)],
                         [one.digest for one in self.read(
                             archive.save(found))])

    def test_a_document_that_is_a_link(self):
        """To a layer, which would be read as a whole."""
        self.assert_unreadable(archives.tar(
            archives.entry('layer', b' ' * (8 << 20)),
            archives.hardlink('index.json', 'layer')))

    def test_headers_that_are_large(self):
        for entry in (
                archives.entry('a', b'a' * (8 << 20), tarfile.XHDTYPE),
                archives.entry('a', b'a' * (8 << 20), tarfile.XGLTYPE),
                archives.entry('a', b'a' * (8 << 20),
                               tarfile.GNUTYPE_LONGNAME)):
            self.assert_unreadable(archives.tar(
                entry, archives.entry('index.json', b'{}'),
                form=tarfile.USTAR_FORMAT))

    def test_headers_of_headers(self):
        header = archives.entry('a', b'7 a=bc\n', tarfile.XHDTYPE)
        self.assert_unreadable(archives.tar(*[header] * 500,
                                            form=tarfile.USTAR_FORMAT))

    def test_more_layers_than_an_image_has(self):
        config = json.dumps(
            {'rootfs': {'diff_ids': ['sha256:a'] * 501}}).encode()
        self.assert_unreadable(archives.docker_archive(
            *[b''] * 501, raw_config=config))

    def test_documents_of_another_form(self):
        for text in (b'[' * 100_000, b'{"manifests": [{"digest": 1}]}',
                     b'"text"', b'{"manifests": {}}'):
            with self.subTest(text[:20]):
                self.assert_unreadable(archives.files({'index.json': text}))

    def test_cut_off(self):
        whole = archives.docker_archive(archives.files(
            {'a': b'x' * 5000}))
        with self.assertRaises(layers.Unreadable):
            self.read(whole[:len(whole) // 2])
