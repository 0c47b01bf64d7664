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

"""Giving a volume to a container that runs, and taking it away.

What is done inside is done in the container's own mount namespace, whose root
is the container's: a symbolic link that a tenant put in the way leads nowhere
else. Files are made as the container's root, for the host's root has no id
there.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import json
import os
import stat
import time
import typing

from nova_container import exception
from nova_container.oci import runtime_config
from nova_container.privileged import attachment
from nova_container.privileged import block_device
from nova_container.privileged import cgroup
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import linux
from nova_container.privileged import namespace
from nova_container.privileged import open_files
from nova_container.privileged import place
from nova_container.privileged import process
from nova_container.privileged import volume
from nova_container.spec import codec
from nova_container.spec import container as container_spec
from nova_container.spec import idmap
from nova_container.spec import volume as volume_spec

# Seconds. A tenant decides how much there is to be looked at.
_LOOK_TIMEOUT = 10


@context.entrypoint
def attach(container_id: str, wish: dict[str, typing.Any]) -> None:
    """Give a container a connected volume, at once if it runs.

    :param wish: an encoded Attachment; again is as good as once
    :raises InvalidSpec: the device or the path is taken
    :raises StateConflict: the volume is not connected
    """
    wanted = codec.decode(volume_spec.Attachment, wish)
    volume.require(wanted.volume)
    with definition.locked(container_id), contextlib.ExitStack() as undo:
        before = definition.load_own(container_id)
        rest = tuple(each for each in before.volumes
                     if each.volume != wanted.volume)
        for same in set(before.volumes) - set(rest):
            # As far as whoever was killed had come.
            _unplug(container_id, same)
        after = dataclasses.replace(before, volumes=(*rest, wanted))
        # First, so that whoever was killed in the middle has it detached.
        _save(after)
        undo.callback(_save, dataclasses.replace(before, volumes=rest))
        init = container.init(container_id)
        if init is not None:
            with _unless_ended(init):
                _plug(container_id, wanted)
        undo.pop_all()


@context.entrypoint
def detach(container_id: str, volume_id: str) -> None:
    """Take a volume from a container; succeeds if it has none such.

    :raises StateConflict: a process in the container uses it
    """
    volume_spec.check_id(volume_id)
    with definition.locked(container_id):
        before = definition.load_own(container_id)
        gone = [each for each in before.volumes if each.volume == volume_id]
        if gone:
            _unplug(container_id, gone[0])
        _save(dataclasses.replace(before, volumes=tuple(
            each for each in before.volumes if each.volume != volume_id)))


def _save(spec: container_spec.ContainerSpec) -> None:
    definition.write(place.container_state(spec.id, 'spec.json'),
                     json.dumps(codec.encode(spec)), 0o600)


def _plug(container_id: str, wish: volume_spec.Attachment) -> None:
    ids = container.id_map(container_id)
    with contextlib.ExitStack() as undo:
        if wish.path is None:
            _require_taking_devices(container_id, 'attach')
            device = namespace.with_mounts(attachment.make_node, container_id,
                                           wish, ids.outside)
            _let_through(container_id, device, True)
            undo.callback(_let_through, container_id, device, False)
            source, make, path = device.node, _make_file, device.path
        else:
            source = namespace.with_mounts(
                attachment.mount, container_id, wish, wish.path, ids)
            undo.callback(namespace.with_mounts, _unmount, source)
            make, path = _make_directory, wish.path
        tree = namespace.with_mounts(linux.open_tree, source)
        try:
            _inside(container_id, _put, make, tree, path, ids)
        finally:
            os.close(tree)
        undo.pop_all()


def _require_taking_devices(container_id: str, verb: str) -> None:
    if not runtime_config.takes_devices(definition.load(container_id),
                                        cgroup.unified()):
        raise exception.StateConflict(
            f'with cgroup version 2, which devices a nested or privileged '
            f'container may open is settled when it starts: stop the server, '
            f'{verb} the volume and start it')


def _inside(container_id: str, steps: typing.Callable[..., None],
            *args: typing.Any) -> None:
    """``steps`` where the container's processes see the file system."""
    _where(container.require_process(container_id), steps, *args)


def _where(seen_by: process.Process, steps: typing.Callable[..., None],
           *args: typing.Any) -> None:
    ended = exception.StateConflict(
        f'process {seen_by.pid} of the container has just ended')
    try:
        fd = os.open(f'{process.directory(seen_by.pid)}/ns/mnt',
                     os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise ended
    try:
        if not process.alive(seen_by):
            raise ended
        namespace.with_mounts_of(fd, steps, *args)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _unless_ended(seen_by: process.Process) -> Iterator[None]:
    """What fails because a process has ended need not be done any more."""
    try:
        yield
    except exception.StateConflict:
        if process.alive(seen_by):
            raise


def _put(make: typing.Callable[[str], None], tree: int, path: str,
         ids: idmap.IdMap) -> None:
    try:
        linux.set_fs_ids(ids.outside, ids.outside)
        try:
            make(path)
        finally:
            linux.set_fs_ids(0, 0)
        linux.move_mount(tree, path)
    except OSError as e:
        raise exception.InvalidSpec(
            f'{path} cannot be made in the container: {e.strerror}')


def _make_file(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return
    if not stat.S_ISREG(os.stat(path, follow_symlinks=False).st_mode):
        raise OSError(errno.EEXIST, 'something else has that name')


def _make_directory(path: str) -> None:
    os.makedirs(path, 0o755, exist_ok=True)


def _unplug(container_id: str, gone: volume_spec.Attachment) -> None:
    found = volume.find(gone.volume)
    if found is None:
        return
    init = container.init(container_id)
    if gone.path is None:
        if init is None:
            return
        _require_taking_devices(container_id, 'detach')
        with contextlib.ExitStack() as undo:
            namespace.with_mounts(attachment.close_node, container_id, gone)
            undo.callback(namespace.with_mounts, attachment.open_node,
                          container_id, gone,
                          container.id_map(container_id).outside)
            _refuse_open(container_id, gone, found)
            with _unless_ended(init):
                _where(init, _take_device, f'/dev/{gone.device}',
                       found.number)
            undo.pop_all()
        namespace.with_mounts(attachment.remove_node, container_id, gone)
        device = runtime_config.BlockDevice(
            node='', path='', major=found.major, minor=found.minor,
            read_only=found.read_only)
        _let_through(container_id, device, False)
        return
    if init is not None:
        with _unless_ended(init):
            _where(init, _take_mount, gone.path, found.number)
    target = attachment.mount_point(container_id, gone.volume)
    namespace.with_mounts(_unmount, target)
    monitor = container.monitor(container_id)
    if monitor is not None:
        # It has a copy of all that was mounted when the container began.
        with _unless_ended(monitor):
            _where(monitor, _unmount, target)
    block_device.require_unused(found.path, f'detaching volume {gone.volume}')


def _take_device(path: str, number: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path, follow_symlinks=False).st_rdev == number:
            linux.umount(path, linux.MNT_DETACH | linux.UMOUNT_NOFOLLOW)
            os.unlink(path)


def _take_mount(path: str, number: int) -> None:
    try:
        if os.stat(path, follow_symlinks=False).st_dev != number:
            return
        linux.umount(path, linux.UMOUNT_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError as e:
        if e.errno != errno.EBUSY:
            raise
        raise exception.StateConflict(
            f'the volume at {path} is in use by a process in the container; '
            'end that process, or stop the server, and detach then')


def _unmount(target: str) -> None:
    if os.path.ismount(target):
        linux.umount(target, linux.UMOUNT_NOFOLLOW)


def _refuse_open(container_id: str, gone: volume_spec.Attachment,
                 found: volume.Connected) -> None:
    """
    :raises StateConflict: a process of the container has the device open, or
        nobody can tell
    """
    advice = 'unmount it there, or stop the server, and detach then'
    deadline = time.monotonic() + _LOOK_TIMEOUT
    for pid in cgroup.members(container_id):
        for path in open_files.of(pid):
            if time.monotonic() > deadline:
                raise exception.StateConflict(
                    'the container has more files open than can be looked '
                    f'at; stop the server, and detach /dev/{gone.device} '
                    'then')
            # It may be gone by now, or on a file system that has ended.
            with contextlib.suppress(OSError):
                if linux.block_device(path) == found.number:
                    raise exception.StateConflict(
                        f'/dev/{gone.device} is open in the container; '
                        f'{advice}')
                if open_files.queued(path):
                    raise exception.StateConflict(
                        'a socket of the container has descriptors that '
                        f'nobody has taken yet, and /dev/{gone.device} may '
                        f'be among them; {advice}')


def _let_through(container_id: str, device: runtime_config.BlockDevice,
                 allowed: bool) -> None:
    """Change the control group's rule on a device.

    With version 2 one rule is for all block devices (runtime_config).
    """
    if cgroup.unified():
        return
    rule = device.rule
    path = (f'{cgroup.ROOT}/devices{place.cgroup(container_id)}/devices.'
            + ('allow' if allowed else 'deny'))
    with open(path, 'w') as file:
        file.write(f'b {device.major}:{device.minor} '
                   + (rule['access'] if allowed else 'rwm'))
