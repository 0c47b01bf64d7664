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

"""Layers on disk, as root: unpack, verify, sync, remove.

A layer's directory holds ``fs``, the tree; ``layer.json``, what unpacking
found; and ``synced``, once all of it is known to be on the disk. It appears
under its diffID by one rename, after the digest was checked, so whatever is
there is complete; a layer that was not synced before the host went down is
removed at the next start, see ``recover``.

Hostile archives are read by a process apart, ``unpacker``. This one never
touches their content.
"""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import re
import secrets
import stat
import subprocess
import sys
import typing

from nova_container import exception
from nova_container.oci import digest
from nova_container.oci import manifest
from nova_container.privileged import context
from nova_container.privileged import place
from nova_container.privileged import userns

_SPOOL_NAME = re.compile(r'^[A-Za-z0-9][A-Za-z0-9._-]{0,200}\Z')
_BYTES_MAX = 1 << 60

# What the headers of a tar add to its files, generously: entries of no
# content have headers several times as large as what is left of them on disk.
_STREAM_FACTOR = 8
_STREAM_EXTRA = 64 << 20

_UNPACKER = pathlib.Path(__file__).with_name('unpacker.py')


def _directory(diff_id: digest.Digest) -> str:
    return place.state('layers', 'sha256', diff_id.hex)


def _boot_id() -> str:
    return pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()


def _check(name: str, value: int, low: int, high: int = _BYTES_MAX) -> int:
    if not isinstance(value, int) or not low <= value <= high:
        raise exception.ContainerError(
            f'layer: {name} {value!r} is not in {low}..{high}')
    return value


@contextlib.contextmanager
def _spool_file(name: str) -> Iterator[int]:
    if not isinstance(name, str) or not _SPOOL_NAME.match(name):
        raise exception.ContainerError(
            f'layer: {name!r} is not the name of a spool file')
    fd = os.open(place.state('spool'),
                 os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # O_NONBLOCK: the service user may have put a fifo there.
        spool = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                        | os.O_CLOEXEC, dir_fd=fd)
    finally:
        os.close(fd)
    try:
        status = os.fstat(spool)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise exception.ContainerError(
                f'layer: spool file {name} is not a plain file')
        yield spool
    finally:
        os.close(spool)


def _run_unpacker(what: str, spool: int, directory: str,
                  **job: typing.Any) -> dict[str, typing.Any]:
    """Run the unpacker; its result.

    :param what: names what is unpacked in errors
    """
    namespace = userns.create(place.ids().layers())
    try:
        done = subprocess.run(
            [sys.executable, '-I', '-B', str(_UNPACKER),
             json.dumps({'userns': namespace, **job})],
            stdin=spool, capture_output=True, cwd=directory,
            pass_fds=(namespace,), env=place.ENV)
    finally:
        os.close(namespace)
    if done.returncode != 0:
        words = done.stderr.decode(errors='replace').strip()[-2000:]
        raise exception.ContainerError(
            f'{what}: the unpacker ended with {done.returncode}: {words}')
    result = json.loads(done.stdout)
    if 'error' in result:
        kind = getattr(exception, result['error'])
        raise kind(f'{what}: {result["message"]}')
    return result


def _check_digests(diff_id: digest.Digest, blob_digest: str,
                   result: dict[str, typing.Any]) -> None:
    for what, wanted, key in (('content', diff_id, 'diff_id'),
                              ('blob', blob_digest, 'blob_digest')):
        found = digest.Digest(result[key])
        if wanted and found != digest.Digest(wanted):
            raise exception.ImageInvalid(
                f'layer {diff_id.short}: its {what} has the digest '
                f'{found.short}, not {digest.Digest(wanted).short}; the image '
                'is damaged, upload it again')


def _remove_tree(path: str) -> None:
    subprocess.run(['rm', '-rf', '--one-file-system', '--', path],
                   check=True, env=place.ENV, stdin=subprocess.DEVNULL,
                   capture_output=True)


@contextlib.contextmanager
def _workplace() -> Iterator[str]:
    """A new directory in layers/tmp, locked so that recover leaves it.

    Removed in the end unless it was renamed away.
    """
    path = place.state('layers', 'tmp', secrets.token_hex(8))
    os.mkdir(path, 0o755)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chmod(path, 0o755)
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield path
    finally:
        _remove_tree(path)
        os.close(fd)


@context.entrypoint
def unpack(spool: str, diff_id: str, offset: int, size: int, compression: str,
           max_bytes: int, blob_digest: str = '') -> dict[str, typing.Any]:
    """Unpack a layer of an archive, unless it is there.

    :param spool: name of a file in the spool directory
    :param diff_id: digest of the layer's tar stream
    :param offset: where in the file the layer starts, bytes
    :param size: its length as stored, bytes
    :param compression: one of ``manifest.COMPRESSIONS``
    :param max_bytes: limit of what it may use on disk
    :param blob_digest: digest of the bytes as stored, if known
    :returns: ``bytes`` on disk, ``entries``, ``dropped`` device nodes,
        ``opaque_root``, ``stream`` bytes
    :raises ImageInvalid: damaged, malformed, or not of that digest
    :raises ImageTooBig: larger than ``max_bytes``
    :raises NoSpace: the file system is full
    """
    diff_id = digest.Digest(diff_id)
    job = _job(offset, size, compression)
    max_bytes = _check('max_bytes', max_bytes, 0)
    final = _directory(diff_id)
    try:
        with _spool_file(spool) as archive, _workplace() as path:
            tree = os.path.join(path, 'fs')
            os.mkdir(tree, 0o755)
            os.chmod(tree, 0o755)
            owner = place.ids().layers().outside
            os.chown(tree, owner, owner)
            result = _run_unpacker(
                f'layer {diff_id.short}', archive, tree, **job,
                task='unpack', max_bytes=max_bytes,
                max_stream=_stream_limit(tree, max_bytes))
            _check_digests(diff_id, blob_digest, result)
            with open(os.path.join(path, 'layer.json'), 'w') as file:
                json.dump({**result, 'boot_id': _boot_id()}, file)
            try:
                os.rename(path, final)
            except OSError as e:
                # Somebody else was faster.
                if e.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
            return result
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise exception.NoSpace(
            f'layer {diff_id.short}: the file system is full; make room in '
            f'{place.state()}')


@context.entrypoint
def verify(spool: str, diff_id: str, offset: int, size: int, compression: str,
           blob_digest: str = '') -> None:
    """Check that an archive holds a layer that is on disk already.

    An image's config may name any layer; only who has a layer's content may
    use it. Parameters and errors as for ``unpack``.
    """
    diff_id = digest.Digest(diff_id)
    job = _job(offset, size, compression)
    known = _read_result(_directory(diff_id))
    if known is None:
        raise exception.ContainerError(
            f'layer {diff_id.short}: it is not on this host')
    with _spool_file(spool) as archive, _workplace() as empty:
        try:
            result = _run_unpacker(
                f'layer {diff_id.short}', archive, empty, **job,
                task='verify', max_bytes=0, max_stream=known['stream'])
        except exception.ImageTooBig:
            raise exception.ImageInvalid(
                f'layer {diff_id.short}: its content is longer than what has '
                'this digest; the image is damaged, upload it again')
    _check_digests(diff_id, blob_digest, result)


@context.entrypoint
def survey(spool: str, size: int, compression: str,
           max_bytes: int) -> dict[str, typing.Any]:
    """What a tar holds of which nobody has told the digest.

    :param spool: name of a file in the spool directory
    :param size: of the file, bytes
    :param compression: one of ``manifest.COMPRESSIONS``
    :param max_bytes: limit of what it may use on disk, once unpacked
    :returns: its ``diff_id``, and the fields of ``survey.Survey``
    :raises ImageInvalid: damaged or malformed
    :raises ImageTooBig: larger than anything of ``max_bytes``
    """
    job = _job(0, size, compression)
    max_bytes = _check('max_bytes', max_bytes, 0)
    with _spool_file(spool) as archive, _workplace() as empty:
        return _run_unpacker(
            'root file system', archive, empty, **job, task='survey',
            max_bytes=0, max_stream=_stream_limit(empty, max_bytes))


def _stream_limit(directory: str, max_bytes: int) -> int:
    """How long a tar may be whose files use ``max_bytes`` there."""
    disk = os.statvfs(directory)
    bound = min(max_bytes, disk.f_blocks * disk.f_frsize)
    return bound * _STREAM_FACTOR + _STREAM_EXTRA


def _job(offset: int, size: int, compression: str) -> dict[str, typing.Any]:
    if compression not in manifest.COMPRESSIONS:
        raise exception.ContainerError(
            f'layer: compression {compression!r} is not one of '
            f'{manifest.COMPRESSIONS}')
    return {'offset': _check('offset', offset, 0),
            'size': _check('size', size, 0),
            'compression': compression}


def _read_result(path: str) -> dict[str, typing.Any] | None:
    try:
        with open(os.path.join(path, 'layer.json')) as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None


@context.entrypoint
def sync(diff_ids: tuple[str, ...]) -> None:
    """Bring layers to the disk, and note that they are there."""
    paths = [_directory(digest.Digest(diff_id)) for diff_id in diff_ids]
    subprocess.run(['sync', '--file-system', place.state('layers')],
                   check=True, env=place.ENV, stdin=subprocess.DEVNULL,
                   capture_output=True)
    for path in paths:
        # Removed meanwhile, perhaps.
        with contextlib.suppress(FileNotFoundError):
            pathlib.Path(path, 'synced').touch(0o644)


@context.entrypoint
def remove(diff_id: str) -> None:
    """Remove a layer; succeeds if it is not there.

    The caller knows that no container and no image uses it.
    """
    path = _directory(digest.Digest(diff_id))
    # Under its own name it is either whole or gone.
    with _workplace() as trash, contextlib.suppress(FileNotFoundError):
        os.rename(path, os.path.join(trash, 'removed'))


@context.entrypoint
def recover() -> list[str]:
    """Remove what an interrupted unpack or a crash of the host left.

    :returns: diffIDs of layers removed, because the host went down before
        they were on its disk
    """
    for entry in os.scandir(place.state('layers', 'tmp')):
        fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_tree(entry.path)
        except BlockingIOError:
            # The helper of a service that ended has not ended yet.
            pass
        finally:
            os.close(fd)
    lost = []
    boot_id = _boot_id()
    for entry in os.scandir(place.state('layers', 'sha256')):
        if os.path.exists(os.path.join(entry.path, 'synced')):
            continue
        result = _read_result(entry.path)
        if result is None or result.get('boot_id') != boot_id:
            lost.append('sha256:' + entry.name)
    for diff_id in lost:
        remove(diff_id)
    return lost
