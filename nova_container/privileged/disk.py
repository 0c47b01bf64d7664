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

"""A container's disks, as root: the writable layer and the ephemeral disk.

While a container is rescued, there is a third one, the writable layer of the
rescue system, as large as the first.

Each is a *volume*: one or two directories in the container's persistent
directory, and a limit that holds for all of their content. What enforces it is
found by trying when the volume is made, and told afterwards by what is there:

- nothing, for a root disk without a limit;
- a project quota, where the file system has them;
- the file system on the volume, for one that boots from it (``boot_volume``);
- a file system of its own in ``<volume>.img`` elsewhere, which is mounted in
  the containers' mount namespace while the container runs. Its directories
  are made at the first mount.

Files are limited as bytes are, so that many empty ones do not fill the host's
file system either.
"""

import collections.abc
import contextlib
import dataclasses
import os
import subprocess
import typing

from nova_container import exception
from nova_container.privileged import boot_volume
from nova_container.privileged import context
from nova_container.privileged import implied
from nova_container.privileged import linux
from nova_container.privileged import loop
from nova_container.privileged import place
from nova_container.privileged import quota
from nova_container.privileged import selinux
from nova_container.spec import container
from nova_container.spec import disk


@dataclasses.dataclass(frozen=True)
class _Volume:
    """
    :param name: as the attribute of spec.disk.Disk
    :param directories: name, whether the container's root owns it, mode
    """

    name: str
    directories: tuple[tuple[str, bool, int], ...]

    def size(self, wish: disk.Disk) -> int | None:
        return getattr(wish, self.name)


_ROOT = _Volume('root', (('upper', True, 0o755), ('work', False, 0o700),
                         ('nested', False, 0o711)))
_EPHEMERAL = _Volume('ephemeral', (('mnt', True, 0o755),))
_RESCUE = _Volume('rescue', (('rescue-upper', True, 0o755),
                             ('rescue-work', False, 0o700)))
_VOLUMES = (_ROOT, _EPHEMERAL, _RESCUE)

# Bytes.
_ROOM = 1 << 20

# Where podman and docker keep images and containers, below /var/lib.
NESTED = ('containers', 'docker')

# What of them goes with a container that moves, and where it is.
TREES = {'upper': 'upper', **{name: f'nested/{name}' for name in NESTED},
         'mnt': 'mnt'}


@dataclasses.dataclass(frozen=True)
class Writable:
    """The directories of an overlay that are written to."""

    upper: str
    work: str


@dataclasses.dataclass(frozen=True)
class Mounted:
    """Where the disks of a container are, in the containers' namespace.

    :param root: of the root file system
    :param nested: for container runtimes inside, whose overlays cannot lie
        on this one
    :param ephemeral: what the container has at /mnt, if it has it
    :param rescue: of the rescue system, while there is one
    """

    root: Writable
    nested: str
    ephemeral: str | None
    rescue: Writable | None


def _image(container_id: str, volume: _Volume) -> str:
    return place.container_state(container_id, f'{volume.name}.img')


def _project(volume: _Volume, base: int) -> int:
    """A project id of a volume's own: no two containers share ids."""
    return base + _VOLUMES.index(volume)


def _mount_point(container_id: str, volume: _Volume) -> str:
    return place.container_run(container_id, 'disk', volume.name)


def _make_directories(parent: str, volume: _Volume, base: int,
                      project: int | None = None) -> None:
    """Whole or not at all, each."""
    for name, inside, mode in volume.directories:
        path = os.path.join(parent, name)
        if os.path.isdir(path):
            continue
        unfinished = f'{path}.new'
        with contextlib.suppress(FileExistsError):
            os.mkdir(unfinished)
        if project is not None:
            quota.assign(unfinished, project)
        owner = base if inside else 0
        os.chown(unfinished, owner, owner)
        os.chmod(unfinished, mode)
        os.rename(unfinished, path)


def _limit_project(path: str, project: int, size: int) -> None:
    quota.limit(path, project, size, size // loop.BYTES_PER_INODE)


@contextlib.contextmanager
def room_to_mount(container_id: str, wish: disk.Disk, base: int,
                  rescue: bool) -> collections.abc.Iterator[None]:
    """Meanwhile, a disk that is full by its quota takes a little more.

    Overlay makes a directory each time it is mounted, and a mount for which
    there is no room is read-only: nothing could be removed any more.

    :param rescue: of the rescue system's disk, too
    """
    path = place.container_state(container_id)

    def limit(more: int) -> None:
        for volume in (_ROOT, *((_RESCUE,) if rescue else ())):
            if wish.root is not None and not os.path.exists(
                    _image(container_id, volume)):
                _limit_project(path, _project(volume, base),
                               wish.root + more)

    limit(_ROOM)
    try:
        yield
    finally:
        limit(0)


def _make(container_id: str, volume: _Volume, size: int | None,
          base: int) -> None:
    path = place.container_state(container_id)
    if size is None:
        _make_directories(path, volume, base)
    elif quota.offered(path):
        project = _project(volume, base)
        # Before anything can be written.
        _limit_project(path, project, size)
        _make_directories(path, volume, base, project)
    else:
        loop.make(_image(container_id, volume), size, base)


def define(container_id: str, wish: disk.Disk, base: int) -> None:
    """Make the disks of a container that is being defined.

    :param base: host id of the container's root
    :raises NoSpace: the host's file system does not take it
    :raises HostUnsupported: nothing on this host can limit a disk
    """
    if wish.boot is None:
        _make(container_id, _ROOT, wish.root, base)
    if wish.ephemeral is not None:
        _make(container_id, _EPHEMERAL, wish.ephemeral, base)


def redefine(container_id: str, before: disk.Disk, wish: disk.Disk,
             base: int) -> None:
    """Give the disks of a container that does not run another size.

    May be repeated when it was killed half way.

    :raises InvalidSpec: a disk would become smaller
    """
    for volume in (_ROOT, _EPHEMERAL):
        old, new = volume.size(before), volume.size(wish)
        if old == new:
            continue
        unlimited = float('inf') if volume is _ROOT else 0
        if (unlimited if new is None else new) < (
                unlimited if old is None else old):
            raise exception.InvalidSpec(
                f'container {container_id}: its {volume.name} disk cannot '
                f'shrink from {old or "unlimited"} to {new or 0} bytes')
        if volume is _EPHEMERAL and old is None:
            _make(container_id, volume, new, base)
        else:
            _grow(container_id, volume, new, base)


def _grow(container_id: str, volume: _Volume, size: int | None,
          base: int) -> None:
    path = place.container_state(container_id)
    image = _image(container_id, volume)
    if os.path.exists(image):
        if size is None:
            host = os.statvfs(path)
            size = host.f_blocks * host.f_frsize
        loop.grow(image, size)
    else:
        _limit_project(path, _project(volume, base), size or 0)


def define_rescue(container_id: str, wish: disk.Disk, base: int) -> None:
    """Make the disk of a rescue system, empty.

    :param wish: the container's own disks
    :raises InvalidSpec: the root disk is a volume
    """
    if wish.boot is not None:
        raise exception.InvalidSpec(
            f'container {container_id} boots from volume {wish.boot.volume}, '
            'and so it is not rescued; attach the volume to another server')
    remove_rescue(container_id)
    _make(container_id, _RESCUE, wish.root, base)


def remove_rescue(container_id: str) -> None:
    """Remove the disk of a rescue system, if it is there."""
    path = place.container_state(container_id)
    for name in (f'{_RESCUE.name}.img',
                 *(name for name, _, _ in _RESCUE.directories)):
        for found in (os.path.join(path, name),
                      os.path.join(path, f'{name}.new')):
            if os.path.lexists(found):
                subprocess.run(['rm', '-rf', '--one-file-system', '--', found],
                               check=True, env=place.ENV, capture_output=True,
                               stdin=subprocess.DEVNULL)


def mount(container_id: str, wish: disk.Disk, base: int,
          rescue: bool) -> Mounted:
    """Have the disks at hand, mounted if need be, in the mount namespace of
    the containers. They are unmounted with all else below the run directory.

    :param rescue: that of the rescue system, too
    """
    stop_reading(container_id)
    options = selinux.mount_option(container_id)

    def at(volume: _Volume) -> str:
        if volume is _ROOT and wish.boot is not None:
            return _mount_boot(container_id, wish.boot, base, options)
        image = _image(container_id, volume)
        if not os.path.exists(image):
            return place.container_state(container_id)
        target = _mount_point(container_id, volume)
        os.makedirs(target, 0o711)
        loop.mount(image, target, options)
        _make_directories(target, volume, base)
        return target

    def writable(directory: str, prefix: str = '') -> Writable:
        return Writable(os.path.join(directory, f'{prefix}upper'),
                        os.path.join(directory, f'{prefix}work'))

    root = at(_ROOT)
    ephemeral = None
    if wish.ephemeral is not None:
        ephemeral = os.path.join(at(_EPHEMERAL), 'mnt')
        selinux.label(container_id, ephemeral)
    return Mounted(
        root=writable(root), nested=os.path.join(root, 'nested'),
        ephemeral=ephemeral,
        rescue=writable(at(_RESCUE), 'rescue-') if rescue else None)


def _mount_boot(container_id: str, boot: disk.BootVolume, base: int,
                options: str) -> str:
    target = _mount_point(container_id, _ROOT)
    boot_volume.mount(boot, target, base, options)
    names = [name for name, _, _ in _ROOT.directories]
    boot_volume.require_directories(
        boot, *(os.path.join(target, name) for name in (
            *names, *(f'{name}.new' for name in names),
            *(f'nested/{name}' for name in NESTED),
            f'work/{implied.UNFINISHED}')))
    _make_directories(target, _ROOT, base)
    return target


def mounted(container_id: str) -> set[str]:
    """Mount points of the file systems that are the container's alone, in the
    containers' mount namespace.
    """
    return {target for volume in _VOLUMES
            if os.path.ismount(target := _mount_point(container_id, volume))}


def places(container_id: str) -> set[str]:
    """Directories on each file system that the container reads or writes."""
    return {place.state()} | mounted(container_id)


@contextlib.contextmanager
def upper(container_id: str, base: int) -> typing.Iterator[str]:
    """The writable layer, whether the container runs or not.

    :param base: host id of the container's root

    To be entered in the containers' mount namespace, under the container's
    lock. ``stop_reading`` cleans up after one that was killed.

    :raises StateConflict: it is on a volume, which only a container that runs
        has mounted
    """
    image = _image(container_id, _ROOT)
    target = _mount_point(container_id, _ROOT)
    plain = place.container_state(container_id, 'upper')
    if os.path.ismount(target):
        yield os.path.join(target, 'upper')
    elif os.path.isdir(plain):
        yield plain
    elif not os.path.exists(image):
        raise exception.StateConflict(
            f'container {container_id}: its writable layer is on the volume '
            'that it boots from; start it first')
    else:
        stop_reading(container_id)
        target = place.run('disks', container_id)
        os.makedirs(target, 0o700)
        try:
            loop.mount(image, target)
            _make_directories(target, _ROOT, base)
            yield os.path.join(target, 'upper')
        finally:
            stop_reading(container_id)


def stop_reading(container_id: str) -> None:
    """Undo ``upper``, in the containers' mount namespace."""
    target = place.run('disks', container.check_id(container_id))
    for path in (*(os.path.join(target, volume.name) for volume in _VOLUMES),
                 target):
        if os.path.ismount(path):
            linux.umount(path)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(path)


@contextlib.contextmanager
def opened(container_id: str, base: int,
           nested: collections.abc.Container[str] = ()
           ) -> typing.Iterator[dict[str, str]]:
    """Each directory of TREES that the container has, whether it runs or not.

    To be entered as ``upper`` is.

    :param nested: which of NESTED it has to have
    """
    found: dict[str, str] = {}
    with contextlib.ExitStack() as undo:
        undo.callback(stop_reading, container_id)
        stop_reading(container_id)
        for volume in (_ROOT, _EPHEMERAL):
            image = _image(container_id, volume)
            top = place.container_state(container_id)
            if os.path.exists(image):
                top = _mount_point(container_id, volume)
                if not os.path.ismount(top):
                    top = place.run('disks', container_id, volume.name)
                    os.makedirs(top, 0o700)
                    loop.mount(image, top)
                    _make_directories(top, volume, base)
            if volume is _ROOT:
                for name in NESTED:
                    if name in nested:
                        make_nested(os.path.join(top, 'nested'), name, base)
            found.update((tree, os.path.join(top, path))
                         for tree, path in TREES.items()
                         if os.path.isdir(os.path.join(top, path)))
        yield found


def make_nested(parent: str, name: str, owner: int) -> str:
    """The directory of a kind of container runtime inside, made if need be.

    :param parent: the directory ``nested``, from wherever
    :param owner: host id of the container's root
    """
    path = os.path.join(parent, name)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o711)
    os.chown(path, owner, owner)
    return path


def recover() -> None:
    """Undo each ``upper`` that was killed, in the containers' mount namespace.
    """
    with contextlib.suppress(FileNotFoundError):
        for container_id in os.listdir(place.run('disks')):
            stop_reading(container_id)


@context.entrypoint
def used(container_id: str) -> int | None:
    """Bytes that the writable layer occupies; None when nobody counts."""
    image = _image(container_id, _ROOT)
    if os.path.exists(image):
        return loop.used(image)
    path = place.container_state(container_id, 'upper')
    try:
        project = quota.project(path)
    except FileNotFoundError:
        if os.path.isdir(os.path.dirname(path)):
            # On a volume.
            return None
        raise exception.ContainerNotFound(
            f'container {container_id} is not defined on this host')
    return quota.used(path, project) if project else None
