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

import bz2
import json
import lzma
import os
import tarfile
import tracemalloc

import hypothesis
from hypothesis import strategies

from nova_container import exception
from nova_container.image import archive
from nova_container.oci import platform
from tests import archives
from tests import cases
from tests.unit import base

HOST = platform.Platform('linux', 'amd64')
ONE = archives.files({'one': b'1'})
TWO = archives.files({'two': b'2' * 5000})


def read(data: bytes) -> archive.Archive:
    fd = os.memfd_create('archive')
    try:
        os.write(fd, data)
        return archive.read(fd, HOST)
    finally:
        os.close(fd)


def config(*layers: bytes, **fields) -> bytes:
    return archives.config(layers, **{'architecture': 'amd64'} | fields)


class ArchiveTest(base.TestCase):

    def check_layers(self, data: bytes, compression: str, *layers: bytes):
        found = read(data)
        self.assertEqual(
            [archives.compress(layer, compression) for layer in layers],
            [data[blob.offset:blob.offset + blob.size]
             for blob in found.layers])
        self.assertEqual([archives.digest(layer) for layer in layers],
                         [blob.diff_id for blob in found.layers])
        self.assertEqual({compression},
                         {blob.compression for blob in found.layers})
        self.assertEqual(('/bin/sh',), found.config.cmd)

    def refused(self, data: bytes, *words: str,
                kind: type[Exception] = exception.ImageInvalid) -> None:
        error = self.assertRaises(kind, read, data)
        for word in words:
            self.assertIn(word, str(error))

    def test_docker_archive(self):
        for layers in ((ONE,), (ONE, TWO), (ONE, TWO, ONE, ONE)):
            self.check_layers(archives.docker_archive(
                *layers, raw_config=config(*layers)), 'none', *layers)

    def test_docker_archive_with_compressed_layers(self):
        for compression in ('gzip', 'zstd'):
            packed = archives.compress(TWO, compression)
            self.check_layers(archives.docker_archive(
                packed, raw_config=config(TWO)), compression, TWO)

    def test_docker_archive_with_links_between_layers(self):
        raw = config(ONE, ONE)
        listed = json.dumps([{'Config': 'c.json',
                              'Layers': ['a/layer.tar', 'b/layer.tar']}])
        self.check_layers(archives.tar(
            archives.directory('a'),
            archives.entry('a/layer.tar', ONE),
            archives.symlink('b/layer.tar', '../a/layer.tar'),
            archives.entry('./c.json', raw),
            archives.entry('manifest.json', listed.encode())),
            'none', ONE, ONE)

    def test_links_in_a_circle(self):
        listed = json.dumps([{'Config': 'c.json', 'Layers': ['a']}])
        self.refused(archives.tar(
            archives.symlink('a', 'b'), archives.symlink('b', 'a'),
            archives.entry('c.json', config(ONE)),
            archives.entry('manifest.json', listed.encode())), "lacks 'a'")

    def test_oci_archive(self):
        for compression in ('none', 'gzip', 'zstd'):
            oci = archives.OciArchive()
            data = oci.save(oci.image(ONE, TWO, compression=compression,
                                      raw_config=config(ONE, TWO)))
            self.check_layers(data, compression, ONE, TWO)

    def test_archive_with_both_layouts(self):
        oci = archives.OciArchive()
        image = oci.image(ONE, raw_config=config(ONE))
        oci.content['manifest.json'] = b'ignored'
        self.check_layers(oci.save(image), 'none', ONE)

    def test_index_of_several_architectures(self):
        oci = archives.OciArchive()
        images = [
            oci.image(layer, raw_config=config(layer, architecture=name),
                      platform={'os': 'linux', 'architecture': name})
            for layer, name in ((ONE, 'arm64'), (TWO, 'amd64'))]
        unknown = oci.blob(b'{}', images[0]['mediaType'], platform={
            'os': 'unknown', 'architecture': 'unknown'})
        for listed in ((*images, unknown),
                       (oci.index(*images, unknown),)):
            self.check_layers(oci.save(*listed), 'none', TWO)
        self.refused(oci.save(images[0]), 'linux/arm64', 'linux/amd64',
                     kind=exception.ImageArchitecture)

    def test_blobs_of_other_architectures_may_be_missing(self):
        oci = archives.OciArchive()
        image = oci.image(ONE, raw_config=config(ONE), platform={
            'os': 'linux', 'architecture': 'amd64'})
        other = {'mediaType': image['mediaType'], 'size': 5,
                 'digest': archives.digest(b'other'),
                 'platform': {'os': 'linux', 'architecture': 's390x'}}
        self.check_layers(oci.save(oci.index(other, image)), 'none', ONE)

    def test_config_tells_the_architecture(self):
        for name in ('arm64', 'riscv64'):
            self.refused(archives.docker_archive(
                ONE, raw_config=config(ONE, architecture=name)),
                f'linux/{name}', 'linux/amd64',
                kind=exception.ImageArchitecture)
        self.refused(archives.docker_archive(
            ONE, raw_config=config(ONE, os='windows')), 'windows/amd64',
            kind=exception.ImageArchitecture)

    def test_several_images(self):
        oci = archives.OciArchive()
        images = [oci.image(layer, raw_config=config(layer))
                  for layer in (ONE, TWO)]
        self.refused(oci.save(*images), '2 images')
        # The same one under two names.
        self.check_layers(oci.save(images[0], images[0]), 'none', ONE)

    def test_not_an_archive(self):
        self.refused(b'', 'empty')
        for rubbish in (b'QFI\xfb' + bytes(100000), os.urandom(100000)):
            self.refused(rubbish, 'not a docker save or OCI archive')
        self.refused(bz2.compress(ONE), 'bzip2', 'gzip, zstd or xz')

    def test_docker_before_1_10(self):
        self.refused(archives.files({
            'a/VERSION': b'1.0', 'a/json': b'{}', 'a/layer.tar': ONE,
            'repositories': b'{"test":{"latest":"a"}}'}), 'before 1.10')

    def test_what_may_be_a_root_file_system(self):
        many = archives.tar(*[
            archives.entry(str(number)) for number in range(20010)],
            form=tarfile.GNU_FORMAT)
        for data, compression in (
                (ONE, 'none'), (many, 'none'), (lzma.compress(ONE), 'xz'),
                (archives.compress(ONE, 'gzip'), 'gzip'),
                (archives.compress(ONE, 'zstd'), 'zstd')):
            self.assertEqual(
                archive.RootFileSystem(len(data), compression), read(data))

    def test_layer_of_unsupported_compression(self):
        self.refused(archives.docker_archive(
            bz2.compress(ONE), raw_config=config(ONE)), 'bzip2')

    def test_truncated(self):
        whole = archives.docker_archive(ONE, TWO, raw_config=config(ONE, TWO))
        for size in range(1, len(whole.rstrip(b'\0')), 3001):
            self.refused(whole[:size])

    def test_names_longer_than_any_path(self):
        for entry in (archives.entry('n' * 5000),
                      archives.symlink('s', 't' * 5000),
                      archives.hardlink('h', 't' * 5000)):
            self.refused(archives.tar(entry), '5000 bytes', 'more than 4096')

    def test_memory_for_names_is_bounded(self):
        many = archives.tar(*[
            archives.entry(f'{number:04000}') for number in range(15000)],
            form=tarfile.GNU_FORMAT)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _peak = tracemalloc.get_traced_memory()
        self.assertEqual(archive.RootFileSystem(len(many), 'none'),
                         read(many))
        _now, peak = tracemalloc.get_traced_memory()
        self.assertLess(peak - before, 40 << 20)

    def test_digests_and_sizes_of_documents(self):
        oci = archives.OciArchive()
        image = oci.image(ONE, raw_config=config(ONE))
        path = f'blobs/sha256/{image["digest"][7:]}'
        whole = oci.content[path]
        oci.content[path] = whole.replace(b'layers', b'Layers')
        self.refused(oci.save(image), image['digest'], 'damaged')
        oci.content[path] = whole + b' '
        self.refused(oci.save(image), 'bytes')
        del oci.content[path]
        self.refused(oci.save(image), 'lacks')

        raw = config(ONE)
        name = '0' * 64 + '.json'
        listed = json.dumps([{'Config': name, 'Layers': ['l']}]).encode()
        self.refused(archives.files({
            name: raw, 'l': ONE, 'manifest.json': listed}), 'digest')

    def test_manifest_and_config_must_agree(self):
        self.refused(archives.docker_archive(
            ONE, TWO, raw_config=config(ONE)), '2 layers')

    def test_indexes_in_a_circle_are_bounded(self):
        oci = archives.OciArchive()
        nested = oci.image(ONE, raw_config=config(ONE))
        for _level in range(6):
            nested = oci.index(nested)
        self.refused(oci.save(nested), 'too deep')

    def test_huge_documents(self):
        self.refused(archives.files({'manifest.json': b' ' * (5 << 20)}),
                     'more than')

    @hypothesis.given(strategies.data())
    @cases.cases(300)
    def test_damage_is_refused_or_harmless(self, data):
        oci = archives.OciArchive()
        whole = bytearray(oci.save(oci.image(ONE, raw_config=config(ONE))))
        for _change in range(data.draw(strategies.integers(1, 4))):
            where = data.draw(strategies.integers(0, len(whole) - 1))
            whole[where] = data.draw(strategies.integers(0, 255))
        try:
            read(bytes(whole))
        except exception.UserError:
            pass
