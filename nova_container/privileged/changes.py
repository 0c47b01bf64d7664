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


"""What a container has changed in its root file system.

Reads the writable layer of the overlay mount and the layers below it
(Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories",
with ``userxattr``). The container may run and change it meanwhile: every
directory is opened by descriptor below the one before, without following a
link.
"""

from collections.abc import Iterator
import contextlib
import os
import stat
import typing

from nova_container import exception
from nova_container.layer import changes as listing
from nova_container.layer import diff
from nova_container.privileged import confined
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import layer
from nova_container.privileged import namespace
from nova_container.privileged import place

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# A descriptor for each level is held open.
_DEPTH_MAX = 256
# As in an image, see ``layer.diff``.
_PATH_MAX = 4096
_LIST_MAX = 64 << 20


def changes(container_id: str) -> list[tuple[str, str]]:
    """Pairs of kind and path, parents first.

    :raises ContainerNotFound: it is not defined
    :raises StateConflict: directories are nested too deeply, a path or the
        list is too long
    """
    with definition.locked(container_id):
        return namespace.with_mounts(
            lambda: [listing.parse(line) for line in _lines(container_id)])


@context.entrypoint
def write(container_id: str, spool: str) -> int:
    """Write the list of changes to a spool file; see ``layer.changes``.

    :param spool: name of a file in the spool directory
    :returns: its size in bytes
    :raises ContainerNotFound: it is not defined
    :raises StateConflict: directories are nested too deeply, a path or the
        list is too long
    :raises NoSpace: the file system of the spool directory is full
    """
    def steps(output: int) -> int:
        with confined.spool_written(), \
                open(output, 'wb', closefd=False) as file:
            file.writelines(_lines(container_id))
        return os.fstat(output).st_size

    with definition.locked(container_id), \
            confined.spool_file(spool, os.O_WRONLY) as output:
        return namespace.with_mounts(steps, output)


def _lines(container_id: str) -> Iterator[bytes]:
    """The list, which is not longer than it may be."""
    left = _LIST_MAX
    for kind, path in _changes(container_id):
        line = listing.line(kind, path)
        left -= len(line)
        if left < 0:
            raise exception.StateConflict(
                f'container {container_id}: the list of its changes is '
                f'longer than {_LIST_MAX >> 20} MiB; remove what it does not '
                'need, or take a snapshot instead')
        yield line


def _changes(container_id: str) -> Iterator[tuple[str, str]]:
    base = container.host_ids(container_id)[0]
    layers = reversed(definition.load_own(container_id).layers)
    with contextlib.ExitStack() as opened:
        def open_directory(path: str) -> int:
            fd = os.open(path, _DIRECTORY)
            opened.callback(os.close, fd)
            return fd

        upper = open_directory(
            opened.enter_context(disk.upper(container_id, base)))
        lower = [_Layer(open_directory(layer.tree(diff_id)),
                        layer.implied(diff_id)) for diff_id in layers]
        yield from _Walk(base).below(upper, lower, '')


class _Layer(typing.NamedTuple):
    """The root of a layer, which nobody changes, and which of its directories
    are made up.
    """

    fd: int
    implied: frozenset[str]


class _Walk:
    """:param base: host id of the container's root"""

    def __init__(self, base: int):
        self._ids = (base, place.ids().layers().outside)

    def below(self, upper: int, lower: list[_Layer],
              path: str) -> Iterator[tuple[str, str]]:
        """What differs in a directory and below it.

        :param lower: the layers below that have the directory, topmost first
        """
        if path.count('/') > _DEPTH_MAX:
            raise exception.StateConflict(
                f'directories below {path[:80]}... are nested more than '
                f'{_DEPTH_MAX} deep')
        for name in sorted(os.listdir(upper)):
            # Gone meanwhile, or something else by now.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                yield from self._entry(upper, lower, name, f'{path}/{name}')

    def _entry(self, upper: int, lower: list[_Layer], name: str,
               path: str) -> Iterator[tuple[str, str]]:
        if len(os.fsencode(path[1:])) >= _PATH_MAX:
            raise exception.StateConflict(
                f'the path {listing.shown(path[:80])}... has {_PATH_MAX} '
                'bytes or more; remove it')
        if os.fsencode(path[1:]) in diff.MOUNT_POINTS:
            return
        status = os.stat(name, dir_fd=upper, follow_symlinks=False)
        if diff.is_whiteout(status):
            yield listing.DELETED, path
            return
        with contextlib.ExitStack() as opened:
            before, below = self._lower_versions(lower, path[1:])
            if not stat.S_ISDIR(status.st_mode):
                yield (listing.ADDED if before is None
                       else listing.CHANGED), path
                return
            fd = os.open(name, _DIRECTORY, dir_fd=upper)
            opened.callback(os.close, fd)
            if diff.is_opaque(fd):
                below = []
            inside = self.below(fd, below, path)
            # A directory is copied up for what is in it, not only for what
            # it is.
            first = next(inside, None)
            if before is None:
                yield listing.ADDED, path
            elif first is not None or self._differ(status, before):
                yield listing.CHANGED, path
            if first is not None:
                yield first
                yield from inside

    def _differ(self, now: os.stat_result, before: os.stat_result) -> bool:
        own, layers = self._ids
        return (now.st_mode != before.st_mode
                or now.st_uid - own != before.st_uid - layers
                or now.st_gid - own != before.st_gid - layers)

    @staticmethod
    def _lower_versions(
            lower: list[_Layer], path: str,
    ) -> tuple[os.stat_result | None, list[_Layer]]:
        """What a path is in the layers, and those to merge there."""
        made_up = first = None
        merged: list[_Layer] = []
        hidden = False
        for item in lower:
            try:
                status = os.stat(path, dir_fd=item.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                if made_up is None and not diff.is_whiteout(status):
                    first = first or status
                break
            if path in item.implied:
                made_up = made_up or status
            else:
                first = first or status
            if not hidden:
                merged.append(item)
                # Its content; what it is itself, a layer below may say.
                hidden = _opaque(item, path)
            if hidden and first is not None:
                break
        return first or made_up, merged


def _opaque(item: _Layer, path: str) -> bool:
    # A descriptor that stays open, for each level and layer, would be too
    # many.
    fd = os.open(path, _DIRECTORY, dir_fd=item.fd)
    try:
        return diff.is_opaque(fd)
    finally:
        os.close(fd)
