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

"""A writable layer becomes an image's layer, and comes out of it the same."""

import contextlib
import hashlib
import io
import os
import pathlib
import resource
import shutil
import stat
import struct
import tarfile
import tempfile
import threading
import unittest
from unittest import mock
import uuid

import hypothesis
from hypothesis import strategies

from nova_container import exception
from nova_container.layer import changes as listing
from nova_container.layer import diff
from nova_container.layer import extract
from nova_container.layer import output
from nova_container.layer import tar
from nova_container.layer import tarwriter
from nova_container.oci import digest
from nova_container.privileged import changes
from nova_container.privileged import container as privileged
from nova_container.privileged import disk as disks
from nova_container.privileged import freezer
from nova_container.privileged import host
from nova_container.privileged import layer as layers
from nova_container.privileged import namespace
from nova_container.privileged import place
from nova_container.privileged import process as processes
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import disk
from nova_container.spec import idmap
from tests import archives
from tests import cases
from tests.functional import base

_MIB = 1 << 20


def capability(root: int) -> bytes:
    """cap_net_raw, permitted and effective, in the user namespace of a root.

    struct vfs_ns_cap_data of linux/capability.h.
    """
    return struct.pack('<IIIIII', 0x03000001, 1 << 13, 0, 0, 0, root)


def tree(top: str, owner: int = 0, skip: frozenset[bytes] = frozenset()
         ) -> dict[bytes, tuple]:
    """Everything about the files below a directory, by path.

    :param owner: what to take away from user and group ids
    """
    found = {}
    names: dict[int, list[bytes]] = {}
    start = os.fsencode(top)
    for directory, below, files in os.walk(start):
        for name in [b'', *files, *(item for item in below if os.path.islink(
                os.path.join(directory, item)))]:
            path = os.path.join(directory, name).rstrip(b'/')
            inside = os.path.relpath(path, start)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            if inside in skip or stat.S_ISSOCK(kind):
                continue
            whiteout = stat.S_ISCHR(kind)
            content = b''
            if stat.S_ISREG(kind):
                content = pathlib.Path(os.fsdecode(path)).read_bytes()
                if status.st_nlink > 1:
                    names.setdefault(status.st_ino, []).append(inside)
            elif stat.S_ISLNK(kind):
                content = os.readlink(path)
            attributes = {}
            if not stat.S_ISLNK(kind) and not whiteout:
                # All of a capability but whose namespace it is good for.
                attributes = {
                    key: os.getxattr(path, key)[
                        :20 if key == 'security.capability' else None]
                    for key in os.listxattr(path)
                    if not key.startswith('user.overlay.')
                    or key == 'user.overlay.opaque'}
            found[inside] = (
                (kind, status.st_rdev) if whiteout else
                (status.st_mode, status.st_uid - owner, status.st_gid - owner,
                 status.st_size if stat.S_ISREG(kind) else 0,
                 hashlib.sha256(content).digest(), status.st_mtime_ns,
                 attributes, status.st_nlink if stat.S_ISREG(kind) else 0))
    links = sorted(sorted(group) for group in names.values())
    return {**found, b'//links': tuple(map(tuple, links))}


class DiffTestCase(base.RuntimeTestCase):

    def diff(self, container_id: str, compression: str = 'gzip'):
        """The result, and the layer's blob."""
        name = f'{uuid.uuid4().hex}.part'
        path = pathlib.Path(place.state('spool', name))
        path.touch()
        self.addCleanup(path.unlink)
        result = engine.diff(container_id, name, compression)
        return result, path

    def apply(self, result, path: pathlib.Path, compression: str = 'gzip',
              diff_id: str | None = None, **options) -> str:
        """A container, defined, that has the layer as its writable one."""
        container_id = self.define('/bin/sleep', '1000', **options)
        ids = idmap.IdMap(0, privileged.host_ids(container_id)[0])

        def steps(archive: int) -> None:
            with disks.upper(container_id, ids.outside) as upper:
                layers.unpack_tree(
                    digest.Digest(diff_id or result['diff_id']), archive,
                    upper, ids, 1 << 40, **layers.check_place(
                        0, result['size'], compression))

        with open(path, 'rb') as archive:
            namespace.with_mounts(steps, archive.fileno())
        return container_id

    def halted(self, script: str, **options) -> str:
        container_id = self.run_container('/bin/sh', '-ec', script, **options)
        self.assertEqual(0, self.finish(container_id).exit_code,
                         self.text(container_id))
        engine.halt(container_id)
        return container_id


class DiffTest(DiffTestCase):

    SCRIPT = '''
        mkdir -p /data/deep/er; echo one > /data/one
        ln /data/one /data/deep/two; ln -s ../one /data/deep/er/three
        mkfifo /data/pipe; chmod 4711 /data/one; chown 33:34 /data/deep
        rm /etc/group; rm -r /var/www; mkdir /var/www; echo new > /var/www/i
        rm -r /srv; echo file > /srv; chmod 700 /root
        dd if=/dev/zero of=/data/holes bs=1 count=1 seek=40M 2>/dev/null
        touch -d @1234567890 /data/one
        n=$(printf %0250d 0); mkdir -p /data/$n/$n; echo x > /data/$n/$n/$n
        printf x > "/data/$(printf 'caf\\303\\251 \\377')"
        touch '/data/.wh.one' /data/new; rm /data/new
    '''

    def test_what_a_container_did_comes_back(self):
        source = self.halted(self.SCRIPT)
        upper = self.upper(source)
        own = privileged.host_ids(source)[0]
        os.setxattr(f'{upper}/data/one', 'security.capability',
                    capability(own))
        os.setxattr(f'{upper}/data', 'user.note', b'a=b\0c')
        for compression in ('none', 'gzip', 'zstd'):
            with self.subTest(compression):
                result, path = self.diff(source, compression)
                self.assertEqual(1, result['dropped'])
                blob = path.read_bytes()
                self.assertEqual(
                    (archives.digest(blob), len(blob)),
                    (result['blob_digest'], result['size']))
                self.assertLess(len(blob), 1 << 20)
                target = self.apply(result, path, compression)
                self.assertEqual(
                    self._tree(source, skip={b'data/.wh.one'}),
                    self._tree(target))
                self.assertLess(os.stat(
                    self.upper(target, 'data/holes')).st_blocks, 64)
                again, _ = self.diff(target, compression)
                self.assertEqual(result['diff_id'], again['diff_id'])

    def _tree(self, container_id: str, skip=frozenset()) -> dict:
        untouched = {b'etc/hosts', b'etc/hostname', b'etc/resolv.conf',
                     b'dev', b'proc', b'sys'}
        own = privileged.host_ids(container_id)[0]
        return tree(self.upper(container_id), own, untouched | skip)

    def test_as_a_layer_of_an_image_it_boots(self):
        source = self.halted(self.SCRIPT)
        result, path = self.diff(source, 'none')
        image = self.add_image(archives.docker_archive(
            base.busybox_layer(), path.read_bytes()))
        self.assertEqual(result['diff_id'], str(image.layers[1]))
        listing = ('cd /; find bin data etc root srv var | sort | '
                   'xargs -d "\n" ls -ld --full-time; cat srv var/www/i; '
                   'cat data/deep/two; ls etc')
        self.assertEqual(
            self.shell(listing, image=image).splitlines(),
            [line for line in self._again(source, listing).splitlines()
             if '.wh.one' not in line])

    def _again(self, container_id: str, script: str) -> str:
        self.redefine(container_id, process=base.container.Process(
            ('/bin/sh', '-c', script)))
        pathlib.Path(place.container_state(container_id, 'log')).unlink(
            missing_ok=True)
        engine.create(container_id)
        engine.start(container_id)
        self.finish(container_id)
        return self.text(container_id)

    def test_an_untouched_container_has_an_empty_layer(self):
        result, path = self.diff(self.halted('true'))
        with tarfile.open(path) as archive:
            self.assertLessEqual(set(archive.getnames()), {'.', 'etc'})
        never_started = self.define('/bin/true')
        result, path = self.diff(never_started)
        with tarfile.open(path) as archive:
            self.assertEqual(['.'], archive.getnames())

    def test_in_an_image_file_of_its_own(self):
        limit = disk.Disk(root=64 * _MIB)
        never_started = self.define('/bin/true', size=limit)
        self.diff(never_started)
        source = self.halted('echo kept > /kept; rm /etc/group', size=limit)
        result, path = self.diff(source)
        target = self.apply(result, path, size=limit)
        self.assertEqual('kept\npasswd\n', self._again(
            target, 'cat /kept; ls /etc | grep -e passwd -e group'))
        full = self.halted('dd if=/dev/urandom of=/big bs=1M count=32 '
                           '2>/dev/null', size=limit)
        result, path = self.diff(full)
        with self.assertRaises(exception.NoSpace):
            self.apply(result, path, size=disk.Disk(root=16 * _MIB))

    def test_what_runs_is_held_still_only_meanwhile(self):
        container_id = self.run_container('/bin/sh', '-c', '''
            mkdir /d; i=0; echo 0 > /d/a; echo 0 > /d/b; echo ready
            while :; do i=$((i+1)); echo $i > /d/a; echo $i > /d/b; done''')
        self.await_text(container_id, 'ready')
        for _ in range(5):
            result, path = self.diff(container_id, 'none')
            self.assertIs(state.Status.RUNNING,
                          state.read(container_id).status)
            with tarfile.open(path) as archive:
                found = {name: archive.extractfile(name).read()
                         for name in ('d/a', 'd/b')
                         if name in archive.getnames()}
            numbers = [int(value or 0) for value in found.values()]
            self.assertLessEqual(max(numbers) - min(numbers), max(numbers)
                                 if b'' in found.values() else 1)
        engine.pause(container_id)
        self.diff(container_id)
        self.assertIs(state.Status.PAUSED, state.read(container_id).status)

    def test_what_ends_before_it_is_held(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'echo kept > /srv/x; echo ready; sleep 1000')
        self.await_text(container_id, 'ready')
        call = freezer.oci_runtime.call

        def end(*args):
            processes.send_signal(state.read(container_id).process, 9)
            self.finish(container_id)
            call(*args)

        with mock.patch.object(freezer.oci_runtime, 'call', end):
            _, path = self.diff(container_id, 'none')
        with tarfile.open(path) as archive:
            self.assertIn('srv/x', archive.getnames())

    def test_killed_meanwhile_it_runs_on(self):
        container_id = self.run_container('/bin/sleep', '1000')
        freezer.hold(container_id)
        host.recover()
        self.assertIs(state.Status.RUNNING, state.read(container_id).status)
        self.assertFalse(os.path.exists(
            place.container_run(container_id, 'held')))

    def test_refused(self):
        container_id = self.halted('echo x > /x')
        result, path = self.diff(container_id)
        with self.assertRaisesRegex(exception.ContainerError, 'not empty'):
            engine.diff(container_id, path.name, 'gzip')
        with self.assertRaisesRegex(exception.ContainerError, 'compression'):
            engine.diff(container_id, path.name, 'xz')
        with self.assertRaisesRegex(exception.ImageInvalid, 'digest'):
            self.apply(result, path, diff_id='sha256:' + '0' * 64)
        with self.assertRaises(exception.ContainerNotFound):
            engine.diff(str(uuid.uuid4()), path.name, 'gzip')
        link = pathlib.Path(place.state('spool', 'link'))
        link.symlink_to('/etc/passwd')
        self.addCleanup(link.unlink)
        with self.assertRaises(OSError):
            engine.diff(container_id, 'link', 'gzip')

    def test_links_lead_nowhere(self):
        secret = pathlib.Path(tempfile.mkstemp(dir='/var/tmp')[1])
        self.addCleanup(secret.unlink)
        secret.write_text('of the host')
        source = self.halted(f'ln -s {secret} /s; ln -s ../../../.. /up')
        _, path = self.diff(source, 'none')
        self.assertNotIn(b'of the host', path.read_bytes())
        # A directory that becomes a link while it is walked.
        upper = self.upper(source)
        os.mkdir(f'{upper}/d')
        stop = threading.Event()

        def swap():
            while not stop.is_set():
                os.rename(f'{upper}/d', f'{upper}/e')
                os.symlink('/var/tmp', f'{upper}/d')
                os.unlink(f'{upper}/d')
                os.rename(f'{upper}/e', f'{upper}/d')

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            for _ in range(10):
                try:
                    _, path = self.diff(source, 'none')
                except exception.ContainerError:
                    continue
                self.assertNotIn(b'of the host', path.read_bytes())
        finally:
            stop.set()
            thread.join()


class ChangesTest(DiffTestCase):
    """The list of what a container has changed."""

    def listed(self, container_id: str) -> list[tuple[str, str]]:
        """As a user gets it, which is what the operator sees."""
        path = pathlib.Path(place.state('spool', f'{uuid.uuid4().hex}.part'))
        path.touch()
        self.addCleanup(path.unlink)
        size = engine.changes(container_id, path.name)
        lines = path.read_bytes().splitlines()
        self.assertEqual(path.stat().st_size, size)
        found = [listing.parse(line) for line in lines]
        self.assertEqual(found, changes.changes(container_id))
        return found

    def refused(self, container_id: str, words: str) -> None:
        with self.assertRaisesRegex(exception.StateConflict, words):
            self.listed(container_id)

    def test_a_path_that_no_image_can_have(self):
        container_id = self.halted('true')
        name = 'n' * 250
        with contextlib.chdir(self.upper(container_id)):
            for _ in range(16):
                os.mkdir(name)
                os.chdir(name)
            self.assertEqual(16, len([
                path for _, path in self.listed(container_id)
                if name in path]))
            os.mkdir(name)
        self.refused(container_id, f'/{name[:60]}.*4096 bytes.*remove')

    def test_a_list_that_is_too_long(self):
        container_id = self.halted('touch /srv/a /srv/b /srv/c')
        size = sum(len(listing.line(*item))
                   for item in self.listed(container_id))
        with mock.patch.object(changes, '_LIST_MAX', size):
            self.listed(container_id)
        with mock.patch.object(changes, '_LIST_MAX', size - 1):
            self.refused(container_id, f'{container_id}: .*longer')

    def test_few_descriptors_for_many_levels_and_layers(self):
        deep = '/'.join(['d'] * 40)
        image = self.add_image(archives.docker_archive(
            base.busybox_layer(), *(
                archives.files({f'{deep}/{number}': b''})
                for number in range(20))))
        container_id = self.halted(f'rm /{deep}/3; touch /{deep}/new',
                                   image=image)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (
            len(os.listdir('/proc/self/fd')) + 150, before[1]))
        found = self.listed(container_id)
        self.assertLessEqual({('D', f'/{deep}/3'), ('A', f'/{deep}/new'),
                              ('C', f'/{deep}')}, set(found))


class _Memory(io.BytesIO):
    """A ``tar.Source`` and a ``tarwriter.Sink``."""

    def read(self, size: int) -> bytes:
        data = super().read(size)
        if len(data) < size:
            raise tar.Truncated(len(data))
        return data

    def views(self, size: int):
        yield memoryview(self.read(size))

    def skip(self, size: int) -> None:
        self.read(size)


# None that the runtime may have made.
_MADE = frozenset(map(os.path.basename, diff.MOUNT_POINTS))
_NAMES = strategies.one_of(
    strategies.sampled_from([b'a', b'b', b'c']),
    strategies.binary(min_size=1, max_size=255).map(
        lambda name: name.replace(b'/', b'_').replace(b'\0', b'0'))
).filter(lambda name: name not in _MADE | {b'.', b'..'}
         and not name.startswith(b'.wh.'))

_IDS = strategies.integers(0, 65535)
_TIMES = strategies.integers(-(1 << 31) * 10 ** 9, (1 << 33) * 10 ** 9)
_ATTRIBUTES = strategies.dictionaries(
    strategies.sampled_from(['user.a', 'user.b.c', 'user.overlay.opaque']),
    strategies.binary(max_size=40), max_size=2)
_ENTRIES = strategies.lists(strategies.fixed_dictionaries({
    'parents': strategies.lists(_NAMES, max_size=3), 'name': _NAMES,
    'kind': strategies.sampled_from(['file', 'holes', 'directory', 'link',
                                     'symlink', 'fifo', 'whiteout']),
    'content': strategies.binary(max_size=1000),
    'mode': strategies.integers(0, 0o7777), 'uid': _IDS, 'gid': _IDS,
    'time': _TIMES, 'attributes': _ATTRIBUTES,
    'target': strategies.binary(min_size=1, max_size=300).map(
        lambda name: b'nowhere/' + name.replace(b'\0', b'0')),
}), max_size=12)


class RoundTripTest(unittest.TestCase):
    """Any tree: what is read is what was written."""

    def setUp(self):
        super().setUp()
        self.addCleanup(os.chdir, os.getcwd())
        # As in the sandbox.
        self.addCleanup(os.umask, os.umask(0))

    def make(self, top: bytes, entries: list[dict]) -> None:
        files: list[bytes] = []
        made: list[tuple[bytes, dict]] = []
        for entry in entries:
            directory = os.path.join(top, *entry['parents'])
            path = os.path.join(directory, entry['name'])
            try:
                os.makedirs(directory, exist_ok=True)
                self.one(path, entry, files)
            except (FileExistsError, FileNotFoundError, NotADirectoryError):
                continue
            made.append((path, entry))
        # Times last, those of the deepest first.
        for path, entry in sorted(made, reverse=True,
                                  key=lambda item: item[0]):
            if entry['kind'] == 'link' and not files:
                continue
            os.utime(path, ns=(entry['time'],) * 2, follow_symlinks=False)

    @staticmethod
    def one(path: bytes, entry: dict, files: list[bytes]) -> None:
        kind = entry['kind']
        match kind:
            case 'directory':
                os.mkdir(path)
            case 'symlink':
                os.symlink(entry['target'], path)
            case 'fifo':
                os.mkfifo(path)
            case 'whiteout':
                os.mknod(path, stat.S_IFCHR)
                return
            case 'link' if files:
                os.link(files[-1], path)
                return
            case _:
                with open(path, 'xb') as file:
                    if kind == 'holes':
                        file.truncate(1 << 20)
                        file.seek(entry['mode'] * 200)
                    file.write(entry['content'])
                files.append(path)
        os.chown(path, entry['uid'], entry['gid'], follow_symlinks=False)
        if kind != 'symlink':
            os.chmod(path, entry['mode'])
        if kind in ('directory', 'file', 'holes'):
            for name, value in entry['attributes'].items():
                if name == extract.OPAQUE_XATTR.decode():
                    if kind != 'directory':
                        continue
                    value = b'y'
                os.setxattr(path, name, value)

    @cases.cases(200)
    @hypothesis.given(entries=_ENTRIES)
    def test_unpack_of_diff_is_the_identity(self, entries):
        top = tempfile.mkdtemp(prefix='nct-', dir='/var/tmp')
        self.addCleanup(shutil.rmtree, top, ignore_errors=True)
        for name in ('before', 'after'):
            os.mkdir(f'{top}/{name}')
        self.make(os.fsencode(f'{top}/before'), entries)
        memory = _Memory()
        os.chdir(f'{top}/before')
        diff.Diff(tarwriter.Writer(memory)).run()
        memory.seek(0)
        os.chdir(f'{top}/after')
        extract.Extractor(tar.Reader(memory), 1 << 40).run()
        self.assertEqual(tree(f'{top}/before'), tree(f'{top}/after'))
        # Python's reader agrees on what there is.
        memory.seek(0)
        with tarfile.open(fileobj=io.BytesIO(memory.getvalue())) as archive:
            members = archive.getmembers()
        self.assertEqual(
            [member.size for member in tar.Reader(memory)],
            [member.size if member.isreg() else 0 for member in members])
        os.chdir('/')
        shutil.rmtree(top)


class OutputTest(unittest.TestCase):

    def test_the_disk_is_full(self):
        # What fails is the thread that compresses.
        with open('/dev/full', 'wb') as file:
            full = output.LayerOutput(file.fileno(), 'none')
            with self.assertRaises(OSError):
                for _ in range(64):
                    full.write(bytes(1 << 20))
                full.close()
