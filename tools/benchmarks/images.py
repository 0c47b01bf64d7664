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

"""The figures of images: from an archive to layers, and back to a layer.

On a journaled file system in a loop device, for creating files on one without
a journal becomes slower the more were removed before.
"""

import collections.abc as cabc
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
import uuid

from oslo_config import cfg
from oslo_privsep import priv_context
import psutil

from benchmarks import engines
from benchmarks import figure
from nova_container import conf
from nova_container.image import store
from nova_container.privileged import context
from nova_container.privileged import diff
from nova_container.privileged import host
from nova_container.privileged import layer as privileged_layer
from nova_container.runtime import engine
from nova_container.spec import command
from nova_container.spec import container
from tests import archives
from tests.functional import system_image

CONF = cfg.CONF

_CACHE = pathlib.Path('/var/cache/nova-container-tests')
_PACKAGES = ('g++', 'git', 'perl', 'python3-dev', 'python3-numpy', 'vim')
_LAYERS = 6
_DISK = 12 << 30
# A large file of one of the packages.
_CHANGED = '/usr/bin/git'
_PATIENCE = 30
_EXTENSION = {'gzip': 'gz', 'zstd': 'zst'}
_MEMORY = 150
# Descendants that are not ours.
_OTHERS = ('dockerd', 'containerd')


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
            if compression == 'gzip':
                # docker of this time reads neither zstd nor OCI archives.
                self.docker_archive = place / 'docker.tar'
                self.docker_archive.write_bytes(archives.docker_archive(
                    *(path.read_bytes() for path in blobs),
                    raw_config=config))
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

    def pull(self, name: str, url: str) -> None:
        """Make an archive behind a URL an image of that name."""
        def fetch(spool) -> None:
            with urllib.request.urlopen(url) as response:
                shutil.copyfileobj(response, spool, 1 << 20)

        self._images.ensure(name, fetch)

    @contextlib.contextmanager
    def container(self, name: str) -> cabc.Iterator[str]:
        """A container of an image that runs."""
        container_id = str(uuid.uuid4())
        image = self._images.get(name)
        engine.define(container.ContainerSpec(
            id=container_id, hostname='bench',
            layers=tuple(str(layer) for layer in image.layers),
            process=container.Process(('/bin/sleep', '1000000'))))
        try:
            engine.create(container_id)
            engine.start(container_id)
            yield container_id
        finally:
            engine.undefine(container_id)

    def snapshot(self, container_id: str) -> int:
        """Bytes of the layer of what a container has changed."""
        with self._images.spool.file('bench-snapshot') as file:
            return diff.write(container_id, file.name, 'zstd')['size']

    def forget(self, name: str) -> None:
        """Remove the image and all layers."""
        self._images.remove(name)
        for layer in self._images.layers():
            privileged_layer.remove(layer.diff_id)


class _Peak:
    """The largest sum of resident memory of our descendants."""

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
                    if process.name() not in _OTHERS:
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


def _digested(blobs: list[pathlib.Path], compression: str,
              target: pathlib.Path) -> None:
    """The same with what proves each layer: the digests of its bytes, as
    stored and as unpacked.
    """
    for path in blobs:
        (target / path.name).mkdir(parents=True)
    digest = 'openssl dgst -sha256'
    subprocess.run(
        ['xargs', '-P2', '-I{}', 'bash', '-c',
         f'{digest} {{}} && {compression} -dc {{}} | tee >({digest}) | '
         'bsdtar -xpf - -C $(basename {})'],
        input='\n'.join(f'{path}' for path in blobs), text=True, check=True,
        cwd=target, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def _server(*words: object, port: int) -> cabc.Iterator[None]:
    """A server on the loopback address, once it answers."""
    with subprocess.Popen([str(word) for word in words],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + _PATIENCE
            while True:
                try:
                    socket.create_connection(('127.0.0.1', port)).close()
                    break
                except ConnectionRefusedError:
                    if process.poll() is not None or \
                            time.monotonic() > deadline:
                        raise RuntimeError(f'{words[0]} does not answer')
                    time.sleep(0.1)
            yield
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


def _podman(target: pathlib.Path, *words: object) -> None:
    _run('podman', '--root', target, '--runroot', target / 'run',
         '--tmpdir', target / 'tmp', '--events-backend', 'none', *words)


class _Setting:
    """A disk with the images, and our store on it."""

    def __init__(self, undo: contextlib.ExitStack, compression: str):
        self.disk = undo.enter_context(_disk())
        place = self.disk / 'images'
        place.mkdir()
        images = Images(place)
        self.archive = images.archive[compression]
        self.layers = images.layers[compression]
        self.docker_archive = images.docker_archive
        self.ours = undo.enter_context(_Ours(self.archive, self.disk))
        self._names = (str(number) for number in itertools.count())

    def mine(self, load: cabc.Callable[[str], None]) -> float:
        """Milliseconds of ours for an image that is new to it."""
        name = next(self._names)
        _run('sync', '--file-system', self.disk)
        took = figure.timed(lambda: load(name))
        self.ours.forget(name)
        return took

    def other(self, load: cabc.Callable[[pathlib.Path], object]
              ) -> cabc.Callable[[], float]:
        """The same of another program, which gets an empty directory."""
        def once() -> float:
            target = self.disk / 'other'
            target.mkdir()
            _run('sync', '--file-system', self.disk)
            try:
                return figure.timed(lambda: load(target))
            finally:
                subprocess.run(['umount', '-q', target / 'overlay'])
                shutil.rmtree(target)
        return once

    def docker(self, undo: contextlib.ExitStack) -> cabc.Callable[[], float]:
        """The same of a docker daemon, which keeps no image between."""
        work = self.disk / 'docker'
        work.mkdir()
        command = engines.dockerd(undo, str(work))

        def once() -> float:
            _run('sync', '--file-system', self.disk)
            took = figure.timed(lambda: _run(*command, 'load', '--input',
                                             self.docker_archive))
            _run(*command, 'image', 'prune', '--all', '--force')
            return took
        return once


def _unpack(count: int, compression: str) -> cabc.Iterator[figure.Row]:
    with contextlib.ExitStack() as undo:
        setting = _Setting(undo, compression)
        peak = 0

        def load(name: str) -> None:
            nonlocal peak
            with _Peak() as memory:
                setting.ours.load(name)
            peak = max(peak, memory.bytes)

        def skopeo(target: pathlib.Path) -> None:
            _run('skopeo', 'copy', '-q', f'oci-archive:{setting.archive}',
                 f'containers-storage:[overlay@{target}+{target}/run]bench')

        measures = {
            setting.ours.name: lambda: setting.mine(load),
            'podman load': setting.other(
                lambda target: _podman(target, 'load', '-i',
                                       setting.archive)),
            'skopeo copy': setting.other(skopeo),
            'two bsdtar': setting.other(
                lambda target: _bsdtar(setting.layers, target)),
            'bsdtar and digests': setting.other(
                lambda target: _digested(setting.layers, compression,
                                         target))}
        targets = {'podman load': 0.35, 'skopeo copy': 0.35,
                   'two bsdtar': 1.5, 'bsdtar and digests': None}
        if compression == 'gzip':
            measures['docker load'] = setting.docker(undo)
            targets['docker load'] = 0.45
        yield from figure.compared(
            f'archive to layers, {compression}', 'ms',
            figure.alternately(count, measures), setting.ours.name, targets)
        yield figure.Row(f'memory while unpacking, {compression}',
                         round(peak / 1048576, 1), 'MiB', target=_MEMORY)


def _gzip(count: int) -> cabc.Iterator[figure.Row]:
    return _unpack(count, 'gzip')


def _zstd(count: int) -> cabc.Iterator[figure.Row]:
    return _unpack(count, 'zstd')


def _pull(count: int) -> cabc.Iterator[figure.Row]:
    """Over HTTP: ours from a file server, podman from a registry."""
    with contextlib.ExitStack() as undo:
        setting = _Setting(undo, 'gzip')
        files, registry = _free_port(), _free_port()
        undo.enter_context(_server(
            sys.executable, '-m', 'http.server', files, '--bind', '127.0.0.1',
            '--directory', setting.archive.parent, port=files))
        config = setting.disk / 'registry.yml'
        config.write_text(json.dumps({
            'version': 0.1, 'http': {'addr': f'127.0.0.1:{registry}'},
            'storage': {'filesystem': {
                'rootdirectory': str(setting.disk / 'registry')}}}))
        undo.enter_context(_server('docker-registry', 'serve', config,
                                   port=registry))
        name = f'127.0.0.1:{registry}/bench'
        _run('skopeo', 'copy', '-q', '--dest-tls-verify=false',
             f'oci-archive:{setting.archive}', f'docker://{name}')
        url = f'http://127.0.0.1:{files}/{setting.archive.name}'
        medians = figure.alternately(count, {
            setting.ours.name: lambda: setting.mine(
                lambda mine: setting.ours.pull(mine, url)),
            'podman pull': setting.other(lambda target: _podman(
                target, 'pull', '-q', '--tls-verify=false', name))})
        yield from figure.compared(
            'over HTTP to layers, gzip', 'ms', medians, setting.ours.name,
            {'podman pull': 0.5})


def _snapshot(count: int) -> cabc.Iterator[figure.Row]:
    """A layer of a container that has changed one file."""
    with contextlib.ExitStack() as undo:
        setting = _Setting(undo, 'zstd')
        setting.ours.load('bench')
        container_id = undo.enter_context(setting.ours.container('bench'))
        done = engine.execute(container_id, command.Command(
            ('/bin/sh', '-c', f'echo >> {_CHANGED}; stat -c %s {_CHANGED}')))
        size = int(done.stdout)
        sizes: list[int] = []
        medians = figure.alternately(count, {
            'snapshot': lambda: figure.timed(
                lambda: sizes.append(setting.ours.snapshot(container_id)))})
        yield figure.Row('snapshot after a change of one file',
                         round(medians['snapshot'], 1), 'ms', target=1000)
        yield figure.Row('its layer, compressed', round(sizes[-1] / 1024, 1),
                         'KiB', f'the file {size / 1024:.1f}',
                         round(sizes[-1] / size, 3), 1.05)


FIGURES = {'gzip': _gzip, 'zstd': _zstd, 'pull': _pull,
           'snapshot': _snapshot}


def run(count: int, names: cabc.Sequence[str]) -> cabc.Iterator[figure.Row]:
    """The rows of some figures, as they come."""
    for name in names or FIGURES:
        yield from FIGURES[name](count)
