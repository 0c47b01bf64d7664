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

"""The figures of images: from an archive in hand to layers that can be used.

On a journaled file system in a loop device, for creating files on one without
a journal becomes slower the more were removed before.
"""

import collections.abc as cabc
import contextlib
import itertools
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import threading
import uuid

from oslo_config import cfg
from oslo_privsep import priv_context
import psutil

from benchmarks import figure
from nova_container import conf
from nova_container.image import store
from nova_container.privileged import context
from nova_container.privileged import host
from nova_container.privileged import layer as privileged_layer
from nova_container.runtime import engine
from tests import archives
from tests.functional import system_image

CONF = cfg.CONF

_CACHE = pathlib.Path('/var/cache/nova-container-tests')
_PACKAGES = ('g++', 'git', 'libboost-dev', 'llvm-dev', 'perl', 'python3-dev',
             'python3-numpy', 'vim')
_LAYERS = 6
_DISK = 12 << 30
_EXTENSION = {'gzip': 'gz', 'zstd': 'zst'}
_MEMORY = 150


def _run(*words: object, **options) -> None:
    done = subprocess.run([str(word) for word in words], text=True,
                          capture_output=True, stdin=subprocess.DEVNULL,
                          **options)
    if done.returncode:
        raise RuntimeError(f'exit status {done.returncode} from {words}: '
                           f'{done.stderr.strip()}')


def _system() -> pathlib.Path:
    """A Debian with a compiler, as one tar."""
    path = _CACHE / f'bench-{system_image.release()}.tar'
    if not path.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix('.new.tar')
        unfinished.unlink(missing_ok=True)
        _run('mmdebstrap', '--quiet', '--variant=minbase',
             f'--include={",".join(_PACKAGES)}', system_image.release(),
             unfinished)
        unfinished.rename(path)
    return path


def _split(system: pathlib.Path, place: pathlib.Path) -> list[pathlib.Path]:
    """Layers of about the same size; links stay with what they link to."""
    paths = [place / f'{number}.tar' for number in range(_LAYERS)]
    part = system.stat().st_size // _LAYERS
    where: dict[str, int] = {}
    with contextlib.ExitStack() as undo:
        source = undo.enter_context(tarfile.open(system))
        targets = [undo.enter_context(tarfile.open(path, 'w'))
                   for path in paths]
        for member in source:
            if member.ischr() or member.isblk():
                continue
            number = min(member.offset // part, _LAYERS - 1)
            if member.islnk():
                number = where[member.linkname]
            where[member.name] = number
            targets[number].addfile(
                member, source.extractfile(member) if member.isreg() else None)
    return paths


class Images:
    """The same image in an OCI archive for each compression.

    :ivar layers: of each compression, the blobs as files
    """

    def __init__(self, place: pathlib.Path):
        self.layers: dict[str, list[pathlib.Path]] = {}
        self.archive: dict[str, pathlib.Path] = {}
        plain = _split(_system(), place)
        config = archives.config([path.read_bytes() for path in plain])
        for compression, program in (('gzip', 'gzip'), ('zstd', 'zstd')):
            blobs = []
            for path in plain:
                packed = path.with_suffix(f'.tar.{_EXTENSION[compression]}')
                with open(packed, 'wb') as file:
                    subprocess.run([program, '-c', path], stdout=file,
                                   check=True)
                blobs.append(packed)
            self.layers[compression] = blobs
            oci = archives.OciArchive()
            self.archive[compression] = place / f'{compression}.tar'
            self.archive[compression].write_bytes(oci.save(oci.packed_image(
                [path.read_bytes() for path in blobs], compression, config)))
        for path in plain:
            path.unlink()


@contextlib.contextmanager
def _disk() -> cabc.Iterator[pathlib.Path]:
    """A new ext4 with a journal."""
    with tempfile.TemporaryDirectory(prefix='bench-images.',
                                     dir='/var/tmp') as work:
        file, place = pathlib.Path(work, 'disk'), pathlib.Path(work, 'mnt')
        place.mkdir()
        with open(file, 'wb') as disk:
            disk.truncate(_DISK)
        _run('mkfs.ext4', '-q', '-F', file)
        _run('mount', '-o', 'loop', file, place)
        try:
            yield place
        finally:
            _run('umount', '--lazy', place)


class _Ours:
    """The image store as nova-compute has it, with a daemon."""

    name = 'nova-container'

    def __init__(self, archive: pathlib.Path, place: pathlib.Path):
        self._archive = archive
        self._place = place
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> '_Ours':
        name = f'ncb-{uuid.uuid4().hex[:8]}'
        conf.register_opts(CONF)
        CONF([], project='nova_container_bench', default_config_files=[],
             default_config_dirs=[])
        for key, value in (('state_path', str(self._place / name)),
                           ('run_path', f'/run/{name}'),
                           ('cgroup_parent', name),
                           ('id_range_start', 1 << 30)):
            CONF.set_override(key, value, 'container')
        with contextlib.ExitStack() as undo:
            context.start(priv_context.Method.FORK)
            undo.callback(context.stop)
            undo.callback(host.teardown)
            engine.setup(os.getuid(), os.getgid())
            self._images = store.ImageStore(CONF.container.state_path)
            undo.callback(self._images.close)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exc_info) -> None:
        self._undo.close()

    def load(self, name: str) -> None:
        """Make the archive an image of that name."""
        with open(self._archive, 'rb') as file:
            self._images.ensure(
                name, lambda spool: shutil.copyfileobj(file, spool, 1 << 20))

    def forget(self, name: str) -> None:
        """Remove the image and all layers."""
        self._images.remove(name)
        for layer in self._images.layers():
            privileged_layer.remove(layer.diff_id)


class _Peak:
    """The largest sum of resident memory of this process's descendants."""

    def __init__(self) -> None:
        self.bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> '_Peak':
        self._thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._end.wait(0.05):
            total = 0
            for process in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
            self.bytes = max(self.bytes, total)


def _bsdtar(blobs: list[pathlib.Path], target: pathlib.Path) -> None:
    """Unpack each for itself, two at once."""
    for path in blobs:
        (target / path.name).mkdir(parents=True)
    subprocess.run(
        ['xargs', '-P2', '-I{}', 'bsdtar', '-xpf', '{}', '-C', '.'],
        input='\n'.join(f'{path}' for path in blobs), text=True, check=True,
        cwd=target)


def _unpack(count: int, compression: str) -> cabc.Iterator[figure.Row]:
    with contextlib.ExitStack() as undo:
        disk = undo.enter_context(_disk())
        place = disk / 'images'
        place.mkdir()
        images = Images(place)
        archive = images.archive[compression]
        ours = undo.enter_context(_Ours(archive, disk))
        peak = 0
        names = (str(number) for number in itertools.count())

        def mine() -> float:
            nonlocal peak
            name = next(names)
            _run('sync', '--file-system', disk)
            with _Peak() as memory:
                took = figure.timed(lambda: ours.load(name))
            peak = max(peak, memory.bytes)
            ours.forget(name)
            return took

        def other(load: cabc.Callable[[pathlib.Path], object]
                  ) -> cabc.Callable[[], float]:
            def once() -> float:
                target = disk / 'other'
                target.mkdir()
                _run('sync', '--file-system', disk)
                try:
                    return figure.timed(lambda: load(target))
                finally:
                    subprocess.run(['umount', '-q', target / 'overlay'])
                    shutil.rmtree(target)
            return once

        def podman(target: pathlib.Path) -> None:
            _run('podman', '--root', target, '--runroot', target / 'run',
                 '--tmpdir', target / 'tmp', '--events-backend', 'none',
                 'load', '-i', archive)

        def skopeo(target: pathlib.Path) -> None:
            _run('skopeo', 'copy', '-q', f'oci-archive:{archive}',
                 f'containers-storage:[overlay@{target}+{target}/run]bench')

        medians = figure.alternately(count, {
            ours.name: mine, 'podman load': other(podman),
            'skopeo copy': other(skopeo),
            'two bsdtar': other(lambda target: _bsdtar(
                images.layers[compression], target))})
        yield from figure.compared(
            f'archive to layers, {compression}', 'ms', medians, ours.name,
            {'podman load': 0.35, 'skopeo copy': 0.35, 'two bsdtar': 1.5})
        yield figure.Row(f'memory while unpacking, {compression}',
                         round(peak / 1048576, 1), 'MiB', target=_MEMORY)


def _gzip(count: int) -> cabc.Iterator[figure.Row]:
    return _unpack(count, 'gzip')


def _zstd(count: int) -> cabc.Iterator[figure.Row]:
    return _unpack(count, 'zstd')


FIGURES = {'gzip': _gzip, 'zstd': _zstd}


def run(count: int, names: cabc.Sequence[str]) -> cabc.Iterator[figure.Row]:
    """The rows of some figures, as they come."""
    for name in names or FIGURES:
        yield from FIGURES[name](count)
