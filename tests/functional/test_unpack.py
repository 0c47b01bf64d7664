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

"""Images become layers on a real file system, in a real user namespace."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import tarfile
import tempfile
import threading
import unittest
from unittest import mock
import uuid

import hypothesis
from hypothesis import strategies
from oslo_config import cfg

from nova_container import conf
from nova_container import exception
from nova_container.image import store
from nova_container.privileged import confined
from nova_container.privileged import context
from nova_container.privileged import implied
from nova_container.privileged import layer as privileged
from nova_container.privileged import linux
from nova_container.privileged import place
from tests import archives
from tests import cases
from tests.functional import system_image

CONF = cfg.CONF

_BASE = 1 << 30

# The sandbox, taken over by what it unpacks: chroot(2) has this way out.
_TAKEN_OVER = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location('sandbox', {sandbox!r})
sandbox = sys.modules['sandbox'] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sandbox)
class Escape:
    def run(self):
        os.mkdir('inside')
        os.chroot('inside')
        for _ in range(50):
            os.chdir('..')
        return {{'seen': os.listdir('.')}}
sandbox._JOBS['escape'] = Escape
sandbox.main()
"""

# struct vfs_cap_data, revision 2: cap_net_raw permitted and effective.
_CAPABILITY = struct.pack('<IIIII', 0x02000001, 1 << 13, 0, 0, 0)


class UnpackTestCase(unittest.TestCase):
    """A state directory of the test's own, checked to be clean at its end."""

    def setUp(self):
        super().setUp()
        conf.register_opts(CONF)
        CONF([], project='nova_container_test', default_config_files=[],
             default_config_dirs=[])
        self.state = pathlib.Path(tempfile.mkdtemp(prefix='nct-',
                                                   dir='/var/tmp'))
        self.addCleanup(shutil.rmtree, self.state)
        self.use(self.state)

    def use(self, state: pathlib.Path) -> None:
        self.state = state
        state.chmod(0o755)
        for name in ('layers/sha256', 'layers/tmp', 'spool', 'images',
                     'blobs'):
            (state / name).mkdir(parents=True)
        CONF.set_override('state_path', str(state), 'container')
        CONF.set_override('id_range_start', _BASE, 'container')
        self.addCleanup(CONF.clear_override, 'state_path', 'container')
        self.addCleanup(CONF.clear_override, 'id_range_start', 'container')
        context.set_client_mode(False)
        self.store = store.ImageStore(str(state))
        self.addCleanup(self.store.close)

    def add(self, archive: bytes, image_id: str | None = None,
            **options) -> store.Image:
        return self.store.ensure(image_id or str(uuid.uuid4()),
                                 lambda file: file.write(archive), **options)

    def add_layers(self, *layers: bytes, **options) -> store.Image:
        return self.add(archives.docker_archive(*layers), **options)

    def tree(self, layer: str) -> pathlib.Path:
        return self.state / 'layers/sha256' / layer.split(':')[1] / 'fs'

    def unpack(self, *entries, **options) -> pathlib.Path:
        """The tree of one layer made of ``entries``."""
        return self.tree(self.add_layers(archives.tar(*entries),
                                         **options).layers[0])

    def left(self) -> list[str]:
        """What is on disk, apart from directories always there."""
        return [str(path.relative_to(self.state))
                for name in ('layers/sha256', 'layers/tmp', 'spool', 'images')
                for path in (self.state / name).iterdir()]

    def refused(self, archive: bytes, *words: str,
                kind: type[Exception] = exception.ImageInvalid,
                **options) -> None:
        before = self.left()
        image_id = str(uuid.uuid4())
        with self.assertRaises(kind) as caught:
            self.add(archive, image_id, **options)
        for word in (image_id, *words):
            self.assertIn(word, str(caught.exception))
        self.assertEqual(before, self.left())

    def refused_entries(self, *entries, words=()) -> None:
        self.refused(archives.docker_archive(archives.tar(*entries)), *words)


class LayerTest(UnpackTestCase):

    def test_owners_modes_times_and_attributes(self):
        tree = self.unpack(
            archives.directory('d', mode=0o2750, uid=33, gid=34, mtime=1000),
            archives.entry('d/f', b'content', mode=0o4711, uid=1, gid=65535,
                           pax_headers={
                               'mtime': '1234567890.123456789',
                               'SCHILY.xattr.user.note': 'text',
                               'SCHILY.xattr.trusted.x': 'no',
                               'SCHILY.xattr.user.overlay.opaque': 'y'}),
            archives.symlink('d/s', '/etc/shadow', uid=7, mtime=5),
            archives.entry('d/p', kind=tarfile.FIFOTYPE, mode=0o1622),
            archives.entry('d/old', b'', mtime=-5))
        status = os.stat(tree / 'd')
        self.assertEqual((0o42750, _BASE + 33, _BASE + 34, 1000),
                         (status.st_mode, status.st_uid, status.st_gid,
                          status.st_mtime))
        status = os.stat(tree / 'd/f')
        self.assertEqual((0o104711, _BASE + 1, _BASE + 65535,
                          1234567890123456789),
                         (status.st_mode, status.st_uid, status.st_gid,
                          status.st_mtime_ns))
        self.assertEqual(['user.note'], os.listxattr(tree / 'd/f'))
        self.assertEqual(b'content', (tree / 'd/f').read_bytes())
        status = os.lstat(tree / 'd/s')
        self.assertEqual(('/etc/shadow', _BASE + 7, 5),
                         (os.readlink(tree / 'd/s'), status.st_uid,
                          status.st_mtime))
        self.assertEqual(0o11622, os.lstat(tree / 'd/p').st_mode)
        self.assertEqual(-5, os.stat(tree / 'd/old').st_mtime)

    def test_file_capabilities_belong_to_the_namespace(self):
        tree = self.unpack(archives.entry('ping', b'', pax_headers={
            'SCHILY.xattr.security.capability':
                _CAPABILITY.decode('utf-8', 'surrogateescape')}))
        value = os.getxattr(tree / 'ping', 'security.capability')
        # Revision 3 names the root user whose namespace it is good for.
        self.assertEqual(0x03000001, struct.unpack('<I', value[:4])[0])
        self.assertEqual(_BASE, struct.unpack('<I', value[20:24])[0])

    def test_links_share_a_file(self):
        tree = self.unpack(archives.entry('a', b'x'),
                           archives.hardlink('d/b', './a'),
                           archives.hardlink('a', 'a'))
        self.assertTrue(os.path.samefile(tree / 'a', tree / 'd/b'))

    def test_missing_parents_are_made(self):
        tree = self.unpack(archives.entry('a/b/c', b'x', uid=5))
        status = os.stat(tree / 'a/b')
        self.assertEqual((0o40755, _BASE), (status.st_mode, status.st_uid))

    def test_too_many_directories_left_out(self):
        self.refused_entries(
            *(archives.entry(f'{number}/f') for number in range(10001)),
            words=('10000 directories', 'rebuild'))
        self.refused_entries(
            *(archives.entry(f'{number:0200}/{number:0200}/{number:0200}/f')
              for number in range(1000)), words=('bytes of their names',))

    def test_later_entries_replace_earlier_ones(self):
        tree = self.unpack(
            archives.entry('a', b'1'), archives.entry('a', b'22'),
            archives.directory('b'), archives.entry('b/c/d', b'x'),
            archives.entry('b', b'file'),
            archives.symlink('s', 'a'), archives.directory('s'),
            archives.entry('s/x', b'y'),
            archives.directory('k', mode=0o700),
            archives.entry('k/f', b'kept'),
            archives.directory('k', mode=0o711))
        self.assertEqual(b'22', (tree / 'a').read_bytes())
        self.assertEqual(b'file', (tree / 'b').read_bytes())
        self.assertEqual(b'y', (tree / 's/x').read_bytes())
        self.assertEqual(b'kept', (tree / 'k/f').read_bytes())
        self.assertEqual(0o711, stat.S_IMODE(os.stat(tree / 'k').st_mode))

    def test_replacing_a_linked_file_leaves_the_other_name(self):
        tree = self.unpack(archives.entry('a', b'1'),
                           archives.hardlink('b', 'a'),
                           archives.entry('a', b'2'))
        self.assertEqual(b'1', (tree / 'b').read_bytes())

    def test_whiteouts(self):
        tree = self.unpack(
            archives.entry('d/.wh.gone'), archives.entry('d/.wh..wh..opq'),
            archives.entry('.wh.both'), archives.entry('both', b'new'),
            archives.entry('dir/file', b''), archives.entry('.wh.dir'),
            archives.entry('.wh..wh.plnk'))
        status = os.lstat(tree / 'd/gone')
        self.assertEqual((stat.S_IFCHR, 0),
                         (stat.S_IFMT(status.st_mode), status.st_rdev))
        for name in ('d', 'dir'):
            self.assertEqual(b'y', os.getxattr(tree / name,
                                               'user.overlay.opaque'))
        self.assertEqual(b'new', (tree / 'both').read_bytes())
        self.assertEqual({'d', 'dir', 'both'}, set(os.listdir(tree)))

    def test_a_directory_over_a_file_hides_what_lies_lower(self):
        tree = self.unpack(archives.entry('a', b''), archives.directory('a'),
                           archives.entry('.wh.b'), archives.entry('b/c', b''))
        for name in ('a', 'b'):
            self.assertEqual(b'y', os.getxattr(tree / name,
                                               'user.overlay.opaque'))

    def test_devices_are_left_out(self):
        image = self.add_layers(archives.tar(
            archives.entry('dev/sda', kind=tarfile.BLKTYPE, devmajor=8),
            archives.entry('dev/x', kind=tarfile.CHRTYPE)))
        self.assertEqual([], os.listdir(self.tree(image.layers[0]) / 'dev'))

    def test_sparse_files_stay_sparse(self):
        place = self.state / 'sparse'
        with open(place, 'wb') as file:
            file.seek(50 << 20)
            file.write(b'data')
        for options in (['--format=gnu'],
                        ['--format=pax', '--sparse-version=1.0']):
            packed = subprocess.run(
                ['tar', '-cS', *options, '-C', str(self.state), 'sparse'],
                check=True, capture_output=True).stdout
            image = self.add_layers(packed)
            made = self.tree(image.layers[0]) / 'sparse'
            self.assertEqual(place.read_bytes(), made.read_bytes())
            self.assertLess(os.stat(made).st_blocks * 512, 1 << 20)

    def test_names_at_the_limits(self):
        long = '/'.join(['d' * 200] * 20)
        tree = self.unpack(archives.entry('n' * 255, b'1'),
                           archives.entry(long, b'2'),
                           archives.entry('caf\udce9', b'3'))
        self.assertEqual(b'1', (tree / ('n' * 255)).read_bytes())
        with contextlib.chdir(tree):
            self.assertEqual(b'2', pathlib.Path(long).read_bytes())
        self.assertEqual(b'3', (tree / 'caf\udce9').read_bytes())
        self.refused_entries(archives.entry('n' * 256),
                             words=('nnn', 'name too long'))
        self.refused_entries(archives.entry(long + '/' + 'e' * 100),
                             words=('name too long',))

    def test_links_cannot_lead_outside(self):
        outside = self.state / 'outside'
        outside.mkdir(mode=0o777)
        for target in (str(outside), '../' * 40 + str(outside)[1:],
                       '../../../../outside'):
            with contextlib.suppress(exception.ImageInvalid):
                self.add_layers(archives.tar(
                    archives.symlink('link', target),
                    archives.entry('link/file', b'')))
            with contextlib.suppress(exception.ImageInvalid):
                self.add_layers(archives.tar(
                    archives.symlink('up', '..'),
                    archives.hardlink('x', 'up/up/layer.json'),
                    archives.entry('up/.wh.layers', b'')))
        self.assertEqual([], list(outside.iterdir()))

    def test_hostile_names(self):
        for name in ('../../etc/passwd', 'a/../../b', '/etc/passwd', '..',
                     './../x', 'a/..', '.wh...', '.wh.', 'a/../.wh.x'):
            self.refused_entries(archives.entry(name, b'x'),
                                 words=(repr(name), 'layer '))
        self.refused_entries(archives.hardlink('x', '../../../etc/passwd'),
                             words=('leaves the root file system',))

    def test_hostile_entries(self):
        for entries, words in (
                ([archives.entry('f', uid=65536)], '65536'),
                ([archives.entry('f', gid=1 << 40)], 'ids'),
                ([archives.hardlink('f', 'lower/file')], 'does not hold'),
                ([archives.directory('d'), archives.hardlink('f', 'd')],
                 'directory'),
                ([archives.entry('f'), archives.entry('f/g')],
                 'not a directory'),
                ([archives.entry('.', b'x')], 'root'),
                ([archives.symlink('s', 'x' * 5000)], 'too long'),
                ([archives.symlink('s', 's'), archives.entry('s/x')],
                 'symbolic links'),
                ([archives.entry('f', pax_headers={'path': 'a\0b'})], 'null'),
                ([archives.entry('f', pax_headers={
                    'SCHILY.xattr.security.capability': 'junk'})],
                 'security.capability'),
                ([archives.entry('f', pax_headers={
                    'SCHILY.xattr.user.big': 'x' * 70000})], 'user.big'),
                ([archives.entry('f', pax_headers={
                    'GNU.sparse.major': '1', 'GNU.sparse.minor': '0',
                    'GNU.sparse.realsize': '9'})], 'malformed')):
            self.refused_entries(*entries, words=(words,))


class ImageTest(UnpackTestCase):

    def test_every_kind_of_archive(self):
        layers = [archives.files({'a': b'1'}), archives.files({'b': b'2'})]
        for archive in (
                archives.docker_archive(*layers),
                archives.oci_archive(*layers),
                archives.oci_archive(*layers, compression='gzip'),
                archives.oci_archive(*layers, compression='zstd')):
            image = self.add(archive)
            self.assertEqual([archives.digest(layer) for layer in layers],
                             list(image.layers))
            self.assertEqual(b'2', (self.tree(image.layers[1])
                                    / 'b').read_bytes())
            for layer in self.store.layers():
                privileged.remove(layer.diff_id)

    def test_concatenated_streams_are_one_layer(self):
        layer = archives.files({'a': b'1' * 100000})
        for compression in ('gzip', 'zstd'):
            packed = b''.join(archives.compress(layer[start:start + 30000],
                                                compression)
                              for start in range(0, len(layer), 30000))
            image = self.add(archives.docker_archive(
                packed, raw_config=archives.config([layer])))
            privileged.remove(image.layers[0])

    def test_second_boot_reads_nothing(self):
        archive = archives.docker_archive(archives.files({'a': b'1'}))
        first = self.add(archive, 'image')
        self.assertEqual(first, self.store.ensure('image', self.fail))
        self.assertEqual(first, store.ImageStore(
            str(self.state)).ensure('image', self.fail))

    def test_lost_layer_is_fetched_again(self):
        archive = archives.docker_archive(archives.files({'a': b'1'}))
        first = self.add(archive, 'image')
        privileged.remove(first.layers[0])
        self.assertIsNone(self.store.get('image'))
        self.assertEqual(first, self.add(archive, 'image'))

    def test_equal_and_empty_layers(self):
        one, two = (archives.files({name: b''}) for name in 'ab')
        image = self.add_layers(one, two, one, archives.tar())
        self.assertEqual([archives.digest(two), archives.digest(one),
                          archives.digest(archives.tar())],
                         list(image.layers))

    def test_opaque_root_hides_lower_layers(self):
        lower, upper = (archives.files({name: b''})
                        for name in ('a', '.wh..wh..opq'))
        image = self.add_layers(lower, upper)
        self.assertEqual([archives.digest(upper)], list(image.layers))

    def test_concurrent_boots_fetch_and_unpack_once(self):
        layers = [archives.files({str(number): os.urandom(100000)})
                  for number in range(4)]
        fetched = []

        def boot(name: str, *chosen: bytes):
            def fetch(file):
                fetched.append(name)
                file.write(archives.docker_archive(*chosen))
            self.store.ensure(name, fetch)

        threads = [threading.Thread(target=boot, args=args)
                   for args in [('x', *layers), ('y', *layers[:2])] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(['x', 'y'], sorted(fetched))
        self.assertEqual(4, len(self.store.layers()))

    def test_naming_a_layer_is_not_having_it(self):
        secret = archives.files({'secret': b'key'})
        self.add_layers(secret)
        for own in (archives.files({'mine': b''}), secret + secret, b''):
            self.refused(archives.docker_archive(
                own, raw_config=archives.config([secret])), 'damaged')
        # Whoever has it may use it, and it is not unpacked again.
        self.add_layers(secret)

    def test_digest_mismatch(self):
        layer = archives.files({'a': b'1'})
        self.refused(archives.docker_archive(
            archives.files({'a': b'2'}), raw_config=archives.config([layer])),
            archives.digest(layer)[7:19], 'damaged')

        oci = archives.OciArchive()
        image = oci.image(layer, compression='gzip')
        [blob] = [name for name, data in oci.content.items()
                  if data[:2] == b'\x1f\x8b']
        # Another time stamp in the header: the content is the same.
        data = bytearray(oci.content[blob])
        data[4] ^= 1
        oci.content[blob] = bytes(data)
        self.refused(oci.save(image), 'blob', 'damaged')
        # A broken stream.
        data[len(data) // 2] ^= 255
        oci.content[blob] = bytes(data)
        self.refused(oci.save(image), 'damaged')

    def test_damaged_anywhere(self):
        whole = archives.oci_archive(archives.files({'a': b'1' * 3000}),
                                     compression='zstd')
        end = len(whole.rstrip(b'\0'))
        for size in range(0, end, end // 10):
            self.refused(whole[:size])

    def test_failure_keeps_what_others_use(self):
        good = archives.files({'good': b''})
        bad = archives.tar(archives.entry('../bad', b''))
        self.add_layers(good)
        self.refused(archives.docker_archive(good, bad), "'../bad'")
        other = archives.files({'other': b''})
        self.refused(archives.docker_archive(good, other, bad))
        self.assertEqual([archives.digest(good)],
                         [layer.diff_id for layer in self.store.layers()])

    def test_flavor_too_small(self):
        archive = archives.docker_archive(
            archives.files({'a': b'x' * 500000}),
            archives.files({'b': b'y' * 700000}))
        for limit in (0, 400000, 800000):
            self.refused(archive, str(limit), 'flavor', max_bytes=limit,
                         kind=exception.ImageTooBig)
        self.add(archive, 'image', max_bytes=1300000)
        with self.assertRaises(exception.ImageTooBig) as caught:
            self.store.ensure('image', self.fail, max_bytes=1000000)
        self.assertIn('1000000', str(caught.exception))

    def test_bombs_are_bounded(self):
        zeros = bytes(64 << 20)
        bomb = archives.compress(archives.files({'zeros': zeros}), 'zstd')
        config = json.dumps({
            'architecture': archives.ARCHITECTURE, 'os': 'linux',
            'rootfs': {'type': 'layers',
                       'diff_ids': [archives.digest(b'')]}})
        self.refused(archives.docker_archive(
            bomb, raw_config=config.encode()), 'needs more than 1000000',
            max_bytes=1000000, kind=exception.ImageTooBig)
        # Nothing but what follows the end of the tar.
        self.refused(archives.docker_archive(
            archives.compress(archives.tar() + zeros * 3, 'gzip'),
            raw_config=config.encode()), max_bytes=1000000,
            kind=exception.ImageTooBig)

    def test_holes_take_no_room(self):
        def sparse(size: int, extents: str = '', data: bytes = b'') -> bytes:
            return archives.tar(archives.entry('f', data, pax_headers={
                'GNU.sparse.map': extents, 'GNU.sparse.size': str(size)}))

        size = 100 << 30
        image = self.add_layers(sparse(size, f'0,1,{size - 1},1', b'xy'),
                                max_bytes=1 << 20)
        self.assertEqual(size, os.stat(
            self.tree(image.layers[0]) / 'f').st_size)
        self.assertLess(image.size, 16 << 10)
        # Larger than any file.
        self.refused(archives.docker_archive(sparse(1 << 66)), "'f'",
                     max_bytes=1 << 20)
        # A byte in each block.
        extents = ','.join(f'{number << 12},1' for number in range(300))
        self.refused(archives.docker_archive(
            sparse(1 << 30, extents, b'x' * 300)), max_bytes=1 << 20,
            kind=exception.ImageTooBig)

    def test_what_is_no_content_takes_room(self):
        many = [f'{number:03}' for number in range(300)]
        for entries in (
                [archives.entry('a/' * 300 + 'f')],
                map(archives.directory, many),
                [archives.symlink(name, 't' * 80) for name in many],
                [archives.entry(name, pax_headers={
                    'SCHILY.xattr.user.note': 'x'}) for name in many],
                [archives.entry(name, pax_headers={'comment': 'x' * 4000})
                 for name in many]):
            self.refused(archives.docker_archive(archives.tar(*entries)),
                         'flavor', max_bytes=1 << 20,
                         kind=exception.ImageTooBig)
        self.add_layers(archives.tar(
            *(archives.symlink(name, 'target') for name in many)),
            max_bytes=1 << 20)

    def test_entries_count_even_if_they_are_empty(self):
        header = archives.tar(archives.entry('d/f'))[:512]
        bomb = archives.compress(header * 20000, 'zstd')
        self.refused(archives.docker_archive(
            bomb, raw_config=archives.config([header * 20000])), 'flavor',
            max_bytes=1 << 20, kind=exception.ImageTooBig)

    def test_size_of_a_layer_in_its_manifest(self):
        for wrong in (-1, 1):
            oci = archives.OciArchive()
            layer = archives.files({'a': b'1'})
            blob = oci.blob(layer, 'application/vnd.oci.image.layer.v1.tar')
            blob['size'] += wrong
            made = oci.blob(json.dumps({
                'schemaVersion': 2, 'layers': [blob],
                'config': oci.blob(
                    archives.config([layer]),
                    'application/vnd.oci.image.config.v1+json'),
            }).encode(), 'application/vnd.oci.image.manifest.v1+json')
            self.refused(oci.save(made), 'bytes', 'descriptor')

    def test_memory_of_a_liar(self):
        size = 1 << 40
        info = tarfile.TarInfo('x')
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
        self.refused(archives.docker_archive(
            info.tobuf(tarfile.GNU_FORMAT) + bytes(10240)), 'malformed')

    def test_more_or_less_than_announced(self):
        archive = archives.docker_archive(archives.files({'a': b''}))
        self.refused(archive, 'announced', size=len(archive) - 1)
        self.refused(archive, str(len(archive)), size=len(archive) + 1,
                     kind=exception.ImageIncomplete)

    def test_fetch_that_fails_leaves_nothing(self):
        def fetch(file):
            file.write(b'part')
            raise ConnectionError('gone')

        with self.assertRaisesRegex(ConnectionError, 'gone'):
            self.store.ensure('image', fetch)
        self.assertEqual([], self.left())


class FullDiskTest(UnpackTestCase):

    def setUp(self):
        super().setUp()
        self.small = self.state / 'small'
        self.small.mkdir()
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs',
                        str(self.small)], check=True)
        self.addCleanup(subprocess.run, ['umount', str(self.small)],
                        check=True)
        self.use(self.small)

    def test_full_while_unpacking(self):
        layer = archives.files({'a': bytes(8 << 20)})
        self.refused(archives.docker_archive(
            archives.compress(layer, 'gzip'),
            raw_config=archives.config([layer])), 'full',
            kind=exception.NoSpace)

    def test_full_while_fetching(self):
        archive = archives.docker_archive(
            archives.files({'a': bytes(8 << 20)}))
        self.refused(archive, 'full', kind=exception.NoSpace)
        self.refused(archive, 'no room', kind=exception.NoSpace,
                     size=len(archive))


class RecoveryTest(UnpackTestCase):

    def test_rubbish_is_removed_and_images_stay(self):
        image = self.add_layers(archives.files({'a': b''}), image_id='kept')
        self.store.close()
        (self.state / 'spool/x.1.part').write_bytes(b'part')
        (self.state / 'images/x.json.new').write_bytes(b'{')
        (self.state / 'layers/tmp/dead/fs/d').mkdir(parents=True)
        again = store.ImageStore(str(self.state))
        again.recover()
        self.assertEqual(image, again.get('kept'))
        self.assertEqual(
            ['layers/sha256/' + image.layers[0][7:], 'images/kept.json'],
            self.left())

    def test_layers_that_nobody_needs_are_removed(self):
        images = [self.add_layers(archives.files({name: b''}), image_id=name)
                  for name in ('image', 'container', 'nobody')]
        self.store.expire([], [], 3600)
        self.assertEqual(3, len(self.store.layers()))
        self.store.expire(['image'], images[1].layers, 0)
        self.assertEqual(
            {image.layers[0] for image in images[:2]},
            {layer.diff_id for layer in self.store.layers()})
        self.assertIsNone(self.store.get('nobody'))
        self.assertIsNone(self.store.get('container'))

    def test_layers_the_disk_may_not_have_are_removed(self):
        image = self.add_layers(archives.files({'a': b''}), image_id='lost')
        self.store.close()
        place = self.tree(image.layers[0]).parent
        self.assertTrue((place / 'synced').exists())
        privileged.recover()
        self.assertTrue(place.exists())
        # As if the host had gone down before.
        (place / 'synced').unlink()
        privileged.recover()
        self.assertTrue(place.exists())
        result = json.loads((place / 'layer.json').read_text())
        (place / 'layer.json').write_text(json.dumps(
            result | {'boot_id': str(uuid.uuid4())}))
        self.assertEqual([image.layers[0]], privileged.recover())
        self.assertIsNone(self.store.get('lost'))

    def test_work_of_a_live_helper_is_left_alone(self):
        with privileged._workplace() as place:
            privileged.recover()
            self.assertTrue(os.path.isdir(place))
        self.assertFalse(os.path.exists(place))

    def test_work_that_ends_meanwhile(self):
        with contextlib.ExitStack() as work:
            work.enter_context(privileged._workplace())
            scandir = os.scandir

            def listed(path):
                found = list(scandir(path))
                work.close()
                return found

            with mock.patch.object(os, 'scandir', listed):
                privileged.recover()


class PrivilegeTest(UnpackTestCase):
    """What a service that was taken over could ask for."""

    def test_arguments_are_checked(self):
        good = {'spool': 'x.part', 'diff_id': archives.digest(b''),
                'offset': 0, 'size': 0, 'compression': 'none',
                'max_bytes': 0}
        outside = self.state / 'secret'
        outside.write_bytes(archives.files({'a': b''}))
        os.symlink(outside, self.state / 'spool/link')
        os.link(outside, self.state / 'spool/hardlink')
        os.mkfifo(self.state / 'spool/fifo')
        for bad in ({'spool': '../secret'}, {'spool': 'hardlink'},
                    {'spool': 'fifo'}, {'spool': ''}, {'offset': -1},
                    {'size': 1 << 70}, {'size': 'x'}, {'compression': 'lz4'},
                    {'diff_id': 'sha256:../../x'}):
            with self.assertRaises(exception.ContainerError):
                privileged.unpack(**good | bad)
        with self.assertRaises(OSError) as caught:
            privileged.unpack(**good | {'spool': 'link'})
        self.assertEqual(errno.ELOOP, caught.exception.errno)
        for diff_id in ('sha256:..', 'x', '', '/'):
            with self.assertRaises(exception.ImageInvalid):
                privileged.remove(diff_id)

    def test_sandbox_that_was_taken_over_sees_its_directory_alone(self):
        script = self.state / 'taken-over.py'
        script.write_text(_TAKEN_OVER.format(sandbox=str(confined._SANDBOX)))
        directory = self.state / 'layers/tmp/tree'
        directory.mkdir()
        os.chown(directory, _BASE, _BASE)
        with mock.patch.object(confined, '_SANDBOX', script):
            found = confined.run('escape', place.ids().layers(),
                                 str(directory), subprocess.DEVNULL,
                                 job='escape')
        self.assertEqual(['inside'], found['seen'])


NAMES = strategies.sampled_from(['a', 'b', 'c', 'é', 'x' * 200])
PATHS = strategies.lists(NAMES, min_size=1, max_size=3).map('/'.join)


@strategies.composite
def entries(draw):
    kind = draw(strategies.sampled_from([
        tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE]))
    return archives.entry(
        draw(PATHS),
        draw(strategies.binary(max_size=50))
        if kind == tarfile.REGTYPE else b'',
        kind, uid=draw(strategies.integers(0, 65535)),
        gid=draw(strategies.integers(0, 65535)),
        mode=draw(strategies.integers(0, 0o7777)),
        mtime=draw(strategies.integers(0, 1 << 33)),
        linkname='nowhere' if kind == tarfile.SYMTYPE else '')


def distinct(listed):
    """Without names that lie below something that is not a directory."""
    kinds, kept = {}, []
    for info, data in listed:
        parents = [info.name[:at] for at, char in enumerate(info.name)
                   if char == '/']
        if info.name in kinds or any(
                kinds.get(parent) not in (None, tarfile.DIRTYPE)
                for parent in parents):
            continue
        if info.type != tarfile.DIRTYPE and any(
                name.startswith(info.name + '/') for name in kinds):
            continue
        kinds[info.name] = info.type
        kept.append((info, data))
    return kept


class PropertyTest(UnpackTestCase):

    @hypothesis.given(strategies.lists(entries(), max_size=12).map(distinct))
    @cases.cases(40)
    def test_the_tree_is_what_the_archive_says(self, written):
        image = self.add_layers(archives.tar(*written))
        tree = os.fsencode(self.tree(image.layers[0]))
        for info, data in written:
            path = os.path.join(tree, info.name.encode())
            status = os.lstat(path)
            self.assertEqual(
                (_BASE + info.uid, _BASE + info.gid, info.mtime),
                (status.st_uid, status.st_gid, status.st_mtime))
            if info.type != tarfile.SYMTYPE:
                self.assertEqual(info.mode, stat.S_IMODE(status.st_mode))
            if info.type == tarfile.REGTYPE:
                with open(path, 'rb') as file:
                    self.assertEqual(data, file.read())
        privileged.remove(image.layers[0])


class UmociTest(UnpackTestCase):
    """The same image, unpacked by umoci, file by file."""

    def describe(self, root: pathlib.Path, base: int) -> dict[str, tuple]:
        found = {}
        for where, directories, files in os.walk(root):
            for name in directories + files:
                path = os.path.join(where, name)
                status = os.lstat(path)
                if stat.S_ISCHR(status.st_mode) or \
                        stat.S_ISBLK(status.st_mode):
                    # The container's own are made when it starts.
                    continue
                found[os.path.relpath(path, root)] = (
                    status.st_mode, status.st_uid - base,
                    status.st_gid - base, status.st_mtime_ns,
                    0 if stat.S_ISDIR(status.st_mode) else status.st_nlink,
                    self.content(path, status.st_mode), {
                        key: self.attribute(path, key, base) for key in
                        os.listxattr(path, follow_symlinks=False)})
        return found

    @staticmethod
    def content(path: str, mode: int) -> str | None:
        if stat.S_ISLNK(mode):
            return os.readlink(path)
        if not stat.S_ISREG(mode):
            return None
        with open(path, 'rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()

    @staticmethod
    def attribute(path: str, key: str, base: int) -> bytes | list[tuple]:
        value = os.getxattr(path, key, follow_symlinks=False)
        if key == 'security.capability':
            # Without whose root it is good for, which is another one.
            return value[4:20]
        if key.startswith('system.posix_acl_'):
            # linux/posix_acl_xattr.h; all ones where the tag says it all.
            return [(tag, rights, who if who == 0xffffffff else who - base)
                    for tag, rights, who in struct.iter_unpack('<HHI',
                                                               value[4:])]
        return value

    def test_small_tree(self):
        self.compare(archives.tar(
            archives.directory('etc', mtime=100),
            archives.entry('etc/passwd', b'root', uid=0, mtime=1),
            archives.entry('su', b'x' * 10000, mode=0o4755, mtime=2),
            archives.hardlink('su2', 'su'),
            archives.directory('var', mode=0o1777, uid=33, gid=34, mtime=9),
            archives.symlink('var/link', '../etc/passwd', uid=5, mtime=3),
            archives.entry('var/note', b'', mtime=4, pax_headers={
                'SCHILY.xattr.user.note': 'v'}),
            archives.entry('ping', b'', mtime=5, pax_headers={
                'SCHILY.xattr.security.capability':
                    _CAPABILITY.decode('utf-8', 'surrogateescape')})))

    def test_whole_system_with_removals(self):
        found = self.compare(system_image.layer(), archives.tar(
            # With all directories above, as whoever builds images writes it.
            archives.directory('etc', mtime=4),
            archives.entry('etc/.wh.hostname', b'', mtime=5),
            archives.directory('usr', mtime=4),
            archives.directory('usr/share', mtime=4),
            archives.entry('usr/share/.wh.zoneinfo', b'', mtime=5),
            archives.directory('etc/apt', mtime=7),
            archives.entry('etc/apt/.wh..wh..opq', b'', mtime=8),
            archives.entry('etc/apt/new', b'new', mtime=9),
            archives.hardlink('etc/apt/linked', 'etc/apt/new')))
        self.assertGreater(len(found), 3000)
        self.assertIn('etc/apt/linked', found)
        for name in ('etc/hostname', 'usr/share/zoneinfo',
                     'etc/apt/sources.list'):
            self.assertNotIn(name, found)

    def test_directories_left_out(self):
        found = self.compare(
            archives.tar(
                archives.directory('tmp', mode=0o1777, mtime=5),
                archives.directory('srv', uid=33, mtime=6),
                archives.directory('srv/data', mode=0o700, gid=34, mtime=7),
                archives.directory('hidden', mode=0o700, mtime=8),
                archives.entry('hidden/lower', b'', mtime=9)),
            archives.tar(
                archives.entry('hidden/.wh..wh..opq', b'', mtime=10),
                archives.entry('srv/data/file', b'', mtime=11)),
            archives.tar(
                archives.entry('tmp/file', b'', mtime=12),
                archives.entry('srv/data/other', b'', mtime=13)))
        self.assertEqual(stat.S_IFDIR | 0o1777, found['tmp'][0])

    def compare(self, *layers: bytes) -> dict[str, tuple]:
        """What is there, as umoci and the store have it."""
        oci = archives.OciArchive()
        content = oci.save(oci.image(*layers, annotations={
            'org.opencontainers.image.ref.name': 'test'}))
        layout, bundle = self.state / 'layout', self.state / 'bundle'
        layout.mkdir()
        subprocess.run(['tar', '-x', '-C', str(layout)], input=content,
                       check=True)
        subprocess.run(['umoci', 'unpack', '--image', f'{layout}:test',
                        str(bundle)], check=True, capture_output=True)
        image = self.add(content)
        mine = self.state / 'mine'
        mine.mkdir()
        # What a container's writable layer begins with.
        upper, work = (self.state / name for name in ('upper', 'work'))
        for path in (upper, work):
            path.mkdir()
        implied.provide([
            implied.Layer(str(self.tree(diff_id)), privileged.implied(diff_id))
            for diff_id in reversed(image.layers)], str(upper), str(work), 0)
        lower = ':'.join(str(path) for path in (
            upper, *map(self.tree, reversed(image.layers))))
        # mount(8) takes 255 characters.
        linux.mount('overlay', str(mine), 'overlay', linux.MS_RDONLY,
                    f'userxattr,lowerdir={lower}')
        try:
            found = self.describe(mine, _BASE)
        finally:
            subprocess.run(['umount', str(mine)], check=True)
        wanted = self.describe(bundle / 'rootfs', 0)
        self.assertEqual(wanted.keys(), found.keys())
        for name, status in wanted.items():
            self.assertEqual(status, found[name], name)
        return found
