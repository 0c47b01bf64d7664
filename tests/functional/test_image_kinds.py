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

"""Every kind of image becomes a container that runs."""

import json
import lzma
import os
import subprocess
import zlib

from nova_container.compute import process as intended
from nova_container import exception
from nova_container.privileged import layer as privileged
from nova_container.runtime import engine
from nova_container.spec import command
from nova_container.spec import container
from nova_container.spec import limits
from tests import archives
from tests.functional import base
from tests.functional import system_image

_DOCKER = 'application/vnd.docker.'
_SAYS = 'cat /said; [ ! -e /gone ] && echo gone'


def _layers() -> tuple[bytes, ...]:
    """A base, a layer that adds and one that hides."""
    return (base.busybox_layer(),
            archives.files({'said': b'one\n', 'gone': b''}),
            archives.files({'said': b'two\n', '.wh.gone': b''}))


class ArchiveKindTest(base.RuntimeTestCase):

    def check(self, archive: bytes, expected: str = 'two\ngone\n') -> None:
        image = self.add_image(archive)
        self.assertEqual(expected, self.shell(_SAYS, image=image))
        # The next kind of archive is to be unpacked, not found.
        for layer in self.images.layers():
            if layer.diff_id not in self.image.layers:
                privileged.remove(layer.diff_id)

    def test_docker_archive_of_1_10(self):
        """One directory for each layer, and the files of before."""
        layers = _layers()
        self.check(archives.docker_archive(
            *layers, repositories=b'{"test":{"latest":"0"}}',
            **{f'{index:064x}/VERSION': b'1.0'
               for index in range(len(layers))}))

    def test_docker_archive_of_25(self):
        """An OCI layout with a manifest.json beside it."""
        layers = _layers()
        oci = archives.OciArchive()
        image = oci.image(*layers)
        oci.content['manifest.json'] = json.dumps([{
            'Config': 'blobs/sha256/0', 'RepoTags': None,
            'Layers': [f'blobs/sha256/{archives.digest(layer)[7:]}'
                       for layer in layers]}]).encode()
        self.check(oci.save(image))

    def test_oci_archive_of_each_compression(self):
        for compression in ('none', 'gzip', 'zstd'):
            self.check(archives.oci_archive(*_layers(),
                                            compression=compression))

    def test_docker_schema_2_in_a_layout(self):
        layers = _layers()
        oci = archives.OciArchive()
        manifest = oci.blob(json.dumps({
            'schemaVersion': 2,
            'mediaType': f'{_DOCKER}distribution.manifest.v2+json',
            'config': oci.blob(archives.config(layers),
                               f'{_DOCKER}container.image.v1+json'),
            'layers': [oci.blob(archives.compress(layer, 'gzip'),
                                f'{_DOCKER}image.rootfs.diff.tar.gzip')
                       for layer in layers],
        }).encode(), f'{_DOCKER}distribution.manifest.v2+json')
        self.check(oci.save(oci.blob(json.dumps({
            'schemaVersion': 2, 'manifests': [manifest | {'platform': {
                'os': 'linux', 'architecture': archives.ARCHITECTURE}}],
        }).encode(), f'{_DOCKER}distribution.manifest.list.v2+json')))

    def test_the_right_one_of_several_architectures(self):
        oci = archives.OciArchive()
        wrong = archives.files({'said': b'wrong'})
        images = [oci.image(
            *layers, raw_config=archives.config(layers, architecture=name),
            platform={'os': 'linux', 'architecture': name})
            for name, layers in (('s390x', (wrong,)),
                                 (archives.ARCHITECTURE, _layers()),
                                 ('mips64', (wrong,)))]
        self.check(oci.save(oci.index(*images)))

    def test_layers_of_different_compression(self):
        layers = _layers()
        self.check(archives.docker_archive(
            *(pack(layer) for pack, layer in zip(
                (lambda data: archives.compress(data, 'zstd'), lzma.compress,
                 bytes), layers)),
            raw_config=archives.config(layers)))

    def test_empty_and_equal_layers(self):
        first, second, third = _layers()
        for archive in (
                archives.docker_archive(first, second, archives.tar(), third,
                                        second, third, archives.tar()),
                archives.oci_archive(first, first, second, third,
                                     archives.tar(), third,
                                     compression='gzip')):
            self.check(archive)

    def test_uneven_pieces_of_gzip(self):
        """A member for each piece, as pigz and estargz write it."""
        layers = _layers()
        pieces = []
        for layer in layers:
            deflate = zlib.compressobj(9, wbits=31)
            pieces.append(deflate.compress(layer[:1000]) + deflate.flush()
                          + archives.compress(layer[1000:], 'gzip'))
        self.check(archives.docker_archive(
            *pieces, raw_config=archives.config(layers)))


class DepthTest(base.RuntimeTestCase):

    def add_deep(self, count: int):
        """An image whose layers each add a file and change another."""
        return self.add_image(archives.docker_archive(
            base.busybox_layer(), *(
                archives.files({'said': b'%d\n' % number, f'd/{number}': b''})
                for number in range(1, count))))

    def test_deep_images_and_too_deep_ones(self):
        image = self.add_deep(130)
        self.assertEqual('129\n129\n', self.shell(
            'cat /said; ls /d | wc -l', image=image))
        with self.assertRaisesRegex(exception.ImageInvalid, '501 layers'):
            self.add_deep(501)


class RootFileSystemTest(base.RuntimeTestCase):
    """A plain tar of a system, as mmdebstrap or an LXC template makes it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.tar = system_image.layer()

    def boot(self, archive: bytes) -> str:
        """A machine container, made as the driver makes it."""
        image = self.add_image(archive)
        kind = intended.kind({}, image.config)
        self.assertEqual(container.MACHINE, kind)
        process = intended.process({}, image, kind)
        container_id = self.define(
            *process.args, image=image, terminal=True,
            stop_signal=process.stop_signal,
            limit=limits.Limits(memory=512 << 20, pids=1024))
        self.redefine(container_id, kind=kind)
        engine.create(container_id)
        engine.start(container_id)
        return container_id

    def test_boots_its_init(self):
        container_id = self.boot(self.tar)
        script = ('until [ -S /run/systemd/private ]; do sleep 0.1; done; '
                  'systemctl is-system-running --wait')
        done = engine.execute(
            container_id, command.Command(('/bin/sh', '-c', script)), 60)
        self.assertEqual(b'running\n', done.stdout)

    def test_compressed(self):
        tar = archives.tar(archives.directory('usr'),
                           archives.entry('usr/sbin/init', b'#!'),
                           archives.symlink('sbin', 'usr/sbin'))
        expected = self.add_image(tar)
        self.assertEqual(('/sbin/init',), expected.config.cmd)
        for program in ('gzip', 'zstd', 'xz'):
            packed = subprocess.run([program, '-c'], input=tar, check=True,
                                    capture_output=True).stdout
            self.assertEqual(expected.layers, self.add_image(packed).layers)
            privileged.remove(expected.layers[0])
            image = self.add_image(packed)
            self.assertEqual((expected.config, expected.layers),
                             (image.config, image.layers))

    def test_without_an_init_it_is_an_application(self):
        image = self.add_image(archives.compress(base.busybox_layer(), 'gzip'))
        self.assertEqual((container.APPLICATION, ()), (
            intended.kind({}, image.config), image.config.cmd))
        self.assertEqual('hello\n', self.shell('echo hello', image=image))

    def test_refused(self):
        system = base.busybox_layer()
        for data, words in (
                (archives.docker_archive(system), 'uncompressed'),
                (archives.oci_archive(system), 'uncompressed'),
                (archives.files({'a': b''}), 'neither'),
                (archives.tar(), 'neither')):
            with self.assertRaisesRegex(exception.ImageInvalid, words):
                self.add_image(archives.compress(data, 'gzip'))
        for packed in (archives.compress(system, 'zstd'),
                       archives.compress(system, 'gzip'),
                       lzma.compress(system)):
            with self.assertRaisesRegex(exception.ImageInvalid,
                                        'damaged|early'):
                self.add_image(packed[:len(packed) // 2])
        with self.assertRaises(exception.ImageInvalid):
            self.add_image(system[:len(system) // 2])

    def test_bombs_are_bounded(self):
        for pack in (lzma.compress,
                     lambda data: archives.compress(data, 'zstd')):
            # Streams one after another are one.
            bomb = (pack(archives.tar(archives.entry('etc'))[:512])
                    + pack(bytes(4 << 20)) * 20)
            with self.assertRaisesRegex(exception.ImageTooBig, 'flavor'):
                self.images.ensure('bomb', lambda file, data=bomb:
                                   file.write(data), max_bytes=1 << 20)
        # A dictionary larger than what is granted.
        hungry = lzma.compress(os.urandom(1000), filters=[
            {'id': lzma.FILTER_LZMA2, 'preset': 9, 'dict_size': 128 << 20}])
        with self.assertRaisesRegex(exception.ImageInvalid, 'damaged'):
            self.add_image(hungry)
