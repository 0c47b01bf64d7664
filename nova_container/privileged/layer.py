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
found; ``synced``, once all of it is known to be on the disk; and ``tree``, a
digest of the tree, by which later damage is found. It appears
under its diffID by one rename, after the digest was checked, so whatever is
there is complete; a layer that was not synced before the host went down is
removed at the next start, see ``recover``.

Hostile archives are read by a process apart, see ``confined``.
"""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import secrets
import subprocess
import typing

from nova_container import exception
from nova_container.oci import digest
from nova_container.oci import manifest
from nova_container.privileged import confined
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import place
from nova_container.spec import idmap

_BYTES_MAX = 1 << 60

# What the headers of a tar add to its files: an entry of no content has one
# twice as large as what is left of it on disk, and more counts as if it were
# there. Nobody pads the end by this much.
_STREAM_FACTOR = 2
_STREAM_EXTRA = 64 << 20


def _directory(diff_id: digest.Digest) -> str:
    return place.state('layers', 'sha256', diff_id.hex)


def _boot_id() -> str:
    return pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()


def _check(name: str, value: int, low: int, high: int = _BYTES_MAX) -> int:
    if not isinstance(value, int) or not low <= value <= high:
        raise exception.ContainerError(
            f'layer: {name} {value!r} is not in {low}..{high}')
    return value


def check_compression(compression: str,
                      known: tuple[str, ...] = manifest.COMPRESSIONS) -> str:
    """``compression`` itself, if it is one of those known."""
    if compression not in known:
        raise exception.ContainerError(
            f'layer: compression {compression!r} is not one of {known}')
    return compression


def _check_digest(diff_id: digest.Digest,
                  result: dict[str, typing.Any]) -> None:
    if result['diff_id'] != diff_id:
        raise exception.ImageInvalid(
            f'layer {diff_id.short}: its content has the digest '
            f'{digest.Digest(result["diff_id"]).short}; the image is damaged, '
            'upload it again')


def _check_implied(diff_id: digest.Digest, paths: list[str]) -> None:
    """What reads archives is not trusted with paths."""
    for path in paths:
        if '\0' in path or {'', '.', '..'} & set(path.split('/')):
            raise exception.ContainerError(
                f'layer {diff_id.short}: {path!r} is no path in it')


def stream_limit(max_bytes: int) -> int:
    """How long a tar may be whose files use ``max_bytes``."""
    return max_bytes * _STREAM_FACTOR + _STREAM_EXTRA


def _stream_limit(directory: str, max_bytes: int) -> int:
    """The same of files that are to be there."""
    disk = os.statvfs(directory)
    return stream_limit(min(max_bytes, disk.f_blocks * disk.f_frsize))


def unpack_tree(diff_id: digest.Digest, archive: int, directory: str,
                ids: idmap.IdMap, max_bytes: int,
                **job: typing.Any) -> dict[str, typing.Any]:
    """Unpack a layer into an empty directory of the owner ``ids`` says.

    :param archive: descriptor
    :param job: ``offset``, ``size`` and ``compression``, checked
    :returns: as ``unpack``
    """
    result = confined.run(
        f'layer {diff_id.short}', ids, directory, archive, job='unpack',
        extract=True, max_bytes=max_bytes,
        max_stream=_stream_limit(directory, max_bytes), **job)
    _check_digest(diff_id, result)
    return result


def pack_tree(what: str, ids: idmap.IdMap, directory: str, output: int,
              compression: str, exact: bool = False) -> dict[str, typing.Any]:
    """Append a directory to a file as a layer.

    :param what: begins messages
    :param output: descriptor of the file
    :param exact: as it is instead, see ``extract.Extractor``
    :returns: as ``pack``
    """
    offset = os.lseek(output, 0, os.SEEK_END)
    result = confined.run(
        what, ids, directory, subprocess.DEVNULL, (output,), job='pack',
        output=output, compression=compression, exact=exact)
    return {'offset': offset, **result}


def _remove_tree(path: str) -> None:
    subprocess.run(['rm', '-rf', '--one-file-system', '--', path],
                   check=True, env=place.ENV, stdin=subprocess.DEVNULL,
                   capture_output=True)


def check_limit(max_bytes: int) -> int:
    """``max_bytes`` itself, if it is a number of bytes."""
    return _check('max_bytes', max_bytes, 0)


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
    :param compression: one of ``manifest.READABLE``
    :param max_bytes: limit of what it may use on disk
    :param blob_digest: digest of the bytes as stored, if known
    :returns: ``bytes`` on disk, ``entries``, ``dropped`` device nodes,
        ``opaque_root``, ``implied`` directories, ``stream`` bytes
    :raises ImageInvalid: damaged, malformed, or not of that digest
    :raises ImageTooBig: larger than ``max_bytes``
    :raises NoSpace: the file system is full
    """
    diff_id = digest.Digest(diff_id)
    job = check_place(offset, size, compression)
    max_bytes = check_limit(max_bytes)
    final = _directory(diff_id)
    try:
        with confined.spool_file(spool) as archive, _workplace() as path:
            files = os.path.join(path, 'fs')
            os.mkdir(files, 0o755)
            os.chmod(files, 0o755)
            ids = place.ids().layers()
            os.chown(files, ids.outside, ids.outside)
            result = unpack_tree(diff_id, archive, files, ids, max_bytes,
                                 **job)
            _check_blob(diff_id, blob_digest, result)
            _check_implied(diff_id, result['implied'])
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
    job = check_place(offset, size, compression)
    known = _read_result(_directory(diff_id))
    if known is None:
        raise exception.ContainerError(
            f'layer {diff_id.short}: it is not on this host')
    with confined.spool_file(spool) as archive, _workplace() as empty:
        try:
            result = confined.run(
                f'layer {diff_id.short}', place.ids().layers(), empty,
                archive, job='unpack', extract=False, max_bytes=0,
                max_stream=known['stream'], **job)
        except exception.ImageTooBig:
            raise exception.ImageInvalid(
                f'layer {diff_id.short}: its content is longer than what has '
                'this digest; the image is damaged, upload it again')
    _check_digest(diff_id, result)
    _check_blob(diff_id, blob_digest, result)


@context.entrypoint
def survey(spool: str, size: int, compression: str,
           max_bytes: int) -> dict[str, typing.Any]:
    """What a tar holds of which nobody has told the digest.

    :param spool: name of a file in the spool directory
    :param size: of the file, bytes
    :param compression: one of ``manifest.READABLE``
    :param max_bytes: limit of what it may use on disk, once unpacked
    :returns: its ``diff_id``, and the fields of ``survey.Survey``
    :raises ImageInvalid: damaged or malformed
    :raises ImageTooBig: larger than anything of ``max_bytes``
    """
    _check('size', size, 0)
    _check('max_bytes', max_bytes, 0)
    check_compression(compression, manifest.READABLE)
    with confined.spool_file(spool) as archive, _workplace() as empty:
        return confined.run(
            f'root file system ({compression})', place.ids().layers(), empty,
            archive,
            job='survey', size=size, compression=compression,
            max_stream=_stream_limit(empty, max_bytes))


@context.entrypoint
def pack(diff_id: str, spool: str, compression: str) -> dict[str, typing.Any]:
    """Make an archive of a layer again, of the same content but with another
    digest. Parameters and errors as for ``diff.write``.
    """
    checked = digest.Digest(diff_id)
    check_compression(compression)
    if _read_result(_directory(checked)) is None:
        raise exception.ContainerError(
            f'layer {checked.short}: it is not on this host')
    with confined.spool_file(spool, os.O_WRONLY) as output:
        return pack_tree(f'layer {checked.short}', place.ids().layers(),
                         tree(checked), output,
                         compression)


def check_place(offset: int, size: int,
                compression: str) -> dict[str, typing.Any]:
    """Where a layer is in an archive, checked."""
    return {'offset': _check('offset', offset, 0),
            'size': _check('size', size, 0),
            'compression': check_compression(compression,
                                             manifest.READABLE)}


def _check_blob(diff_id: digest.Digest, wanted: str,
                result: dict[str, typing.Any]) -> None:
    if wanted and result['blob_digest'] != digest.Digest(wanted):
        raise exception.ImageInvalid(
            f'layer {diff_id.short}: its blob has the digest '
            f'{digest.Digest(result["blob_digest"]).short}, not '
            f'{digest.Digest(wanted).short}; the image is damaged, upload it '
            'again')


def _read_result(path: str) -> dict[str, typing.Any] | None:
    try:
        with open(os.path.join(path, 'layer.json')) as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None


def tree(diff_id: str) -> str:
    """Directory of a layer's files."""
    return os.path.join(_directory(digest.Digest(diff_id)), 'fs')


def implied(diff_id: str) -> frozenset[str]:
    """Directories of a layer of which its archive has no entry."""
    result = _read_result(_directory(digest.Digest(diff_id))) or {}
    return frozenset(result.get('implied', ()))


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


def _tree_digest(diff_id: digest.Digest) -> str:
    """A digest of all that the tree of a layer is, but for access times."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        return str(confined.run(
            f'layer {diff_id.short}', place.ids().layers(),
            tree(diff_id), subprocess.DEVNULL,
            (null,), job='pack', output=null, compression='none',
            patient=True)['diff_id'])
    finally:
        os.close(null)


def _seal_file(diff_id: digest.Digest) -> pathlib.Path:
    return pathlib.Path(_directory(diff_id), 'tree')


@context.entrypoint
def seal(diff_id: str) -> None:
    """Note what a layer's tree is, for ``check``; once, soon after it was
    unpacked. Succeeds if the layer is not there.
    """
    checked = digest.Digest(diff_id)
    path = _seal_file(checked)
    if path.exists() or _read_result(_directory(checked)) is None:
        return
    found = _tree_digest(checked)
    with contextlib.suppress(FileNotFoundError):
        definition.write(str(path), found, 0o644)


@context.entrypoint
def check(diff_id: str) -> bool | None:
    """Whether a layer's tree is what it was; None if nobody has noted that.
    """
    checked = digest.Digest(diff_id)
    try:
        noted = _seal_file(checked).read_text()
    except FileNotFoundError:
        return None
    try:
        return _tree_digest(checked) == noted
    except (exception.ContainerError, OSError):
        # It cannot even be read.
        return False


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
        # The helper of a service that ended has not ended yet, or just now.
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fd = os.open(entry.path,
                         os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_tree(entry.path)
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
