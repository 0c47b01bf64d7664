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

"""A container's disks out of one host and into another, as root.

Unlike a layer, a tree travels as it is: with the overlay's own marks, and with
whatever runtimes inside have made of theirs. A container that has moved is
kept aside at its old place until somebody says which of the two it is.
"""

import contextlib
import os
import subprocess
import typing
import uuid

from nova_container import exception
from nova_container.oci import digest
from nova_container.privileged import confined
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.privileged import defining
from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import ending
from nova_container.privileged import layer
from nova_container.privileged import namespace
from nova_container.privileged import place
from nova_container.spec import codec
from nova_container.spec import container as container_spec
from nova_container.spec import idmap

_UNLIMITED = 1 << 60


def _ids(base: int) -> idmap.IdMap:
    return idmap.IdMap(0, base, idmap.RANGE_SIZE)


@context.entrypoint
def pack(container_id: str, tree: str, spool: str,
         compression: str) -> dict[str, typing.Any]:
    """Write one of the directories that a halted container has filled.

    :param tree: one of ``disk.TREES``
    :param spool: name of a file in the spool directory, to which it is
        appended
    :param compression: one of ``manifest.COMPRESSIONS``
    :returns: as ``layer.pack``, and ``offset`` in the spool file; empty for a
        directory that is not there
    :raises StateConflict: it runs
    :raises NoSpace: the file system of the spool directory is full
    """
    _check_tree(tree)
    layer.check_compression(compression)

    def steps(output: int) -> dict[str, typing.Any]:
        base = container.host_ids(container_id)[0]
        with disk.opened(container_id, base) as trees:
            if tree not in trees:
                return {}
            return layer.pack_tree(f'container {container_id}', _ids(base),
                                   trees[tree], output, compression,
                                   exact=True)

    with definition.locked(container_id), \
            confined.spool_file(spool, os.O_WRONLY) as output:
        container.require_halted(container_id)
        return namespace.with_mounts(steps, output)


def _check_tree(tree: str) -> None:
    if tree not in disk.TREES:
        raise exception.ContainerError(
            f'tree {tree!r} is not one of {", ".join(disk.TREES)}')


@context.entrypoint
def receive(spec: dict[str, typing.Any], spool: str,
            parts: tuple[tuple[str, str, int, int, str], ...]) -> None:
    """Define a container, filled with what ``pack`` wrote; whole or not at
    all.

    :param spec: an encoded ContainerSpec
    :param spool: name of a file in the spool directory
    :param parts: (tree, diffID, offset, size, compression) in it
    :raises StateConflict: it is defined already
    :raises NoSpace: a disk of the container, or of the host, is too small
    """
    checked = codec.decode(container_spec.ContainerSpec, spec)
    jobs = []
    for tree, diff_id, offset, size, compression in parts:
        _check_tree(tree)
        jobs.append((tree, digest.Digest(diff_id),
                     layer.check_place(offset, size, compression)))
    if os.path.exists(place.container_state(checked.id)):
        raise exception.StateConflict(
            f'container {checked.id} is defined on this host already')

    def fill(base: int) -> None:
        with confined.spool_file(spool) as archive:
            namespace.with_mounts(_fill, checked.id, base, archive, jobs)

    defining.make(checked, fill)


def _fill(container_id: str, base: int, archive: int,
          jobs: list[tuple[str, digest.Digest, dict[str, typing.Any]]]
          ) -> None:
    with disk.opened(container_id, base, [job[0] for job in jobs]) as trees:
        for tree, diff_id, job in jobs:
            if tree not in trees:
                raise exception.InvalidSpec(
                    f'container {container_id} has no disk for {tree}: the '
                    'flavor has none')
            layer.unpack_tree(diff_id, archive, trees[tree], _ids(base),
                              _UNLIMITED, **job, exact=True)


@context.entrypoint
def used(container_id: str) -> dict[str, int]:
    """Bytes that each directory of ``disk.TREES`` occupies, inodes counted.

    The container may run.
    """
    def steps() -> dict[str, int]:
        base = container.host_ids(container_id)[0]
        with disk.opened(container_id, base) as trees:
            return {tree: _du(path) for tree, path in trees.items()}

    with definition.locked(container_id):
        return namespace.with_mounts(steps)


# An inode of ext4.
_INODE = 256


def _du(path: str) -> int:
    total = 0
    for option, factor in (('--block-size=1', 1), ('--inodes', _INODE)):
        # It complains of what is removed meanwhile.
        done = subprocess.run(
            ['du', '--one-file-system', '--summarize', option, '--', path],
            stdin=subprocess.DEVNULL, capture_output=True, env=place.ENV)
        total += int(done.stdout.split()[0]) * factor
    return total


@context.entrypoint
def park(container_id: str) -> None:
    """Set a halted container aside: by its id there may be another one now.

    One that was parked before is removed: it has been forgotten.

    :raises StateConflict: it runs
    """
    with definition.locked(container_id):
        container.require_halted(container_id)
        _discard(container_id)
        os.rename(place.container_state(container_id),
                  place.parked(container_id))


@context.entrypoint
def unpark(container_id: str) -> bool:
    """Put a parked container back; False if there is none.

    :raises StateConflict: there is another one at its place
    """
    if not os.path.isdir(place.parked(container_id)):
        return False
    if os.path.exists(place.container_state(container_id)):
        raise exception.StateConflict(
            f'container {container_id} is on this host, and so is the one '
            'that was set aside when it moved')
    os.rename(place.parked(container_id), place.container_state(container_id))
    return True


@context.entrypoint
def discard(container_id: str) -> None:
    """Remove a parked container; succeeds if there is none."""
    _discard(container_id)


def _discard(container_id: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        name = f'{container_id}.{uuid.uuid4().hex}'
        os.rename(place.parked(container_id), place.state('trash', name))
        ending.empty_trash(name)
