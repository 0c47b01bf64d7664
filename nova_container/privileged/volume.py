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

"""Volumes that the service has connected to this host, and who has them.

os-brick, as nova-compute's own libraries have it, makes a block device of a
volume, or a file on a share that it mounts below ``<state_path>/mnt``; a file
gets a loop device here. ``<run_path>/volumes`` remembers the number of the
device, and from then on a volume is called by its id alone.

The path comes from the service, which may have been taken over. A block device
is taken only if nothing of the host uses it (it can be opened with O_EXCL), so
a mounted disk, or one of a RAID or of LVM, cannot be handed to a tenant. A
file must lie directly in a mounted share.

An encrypted volume has two: the one that was connected is kept apart, as its
backing, and the one that containers have is where its content can be read.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import re
import stat
import typing

from oslo_log import log

from nova_container import exception
from nova_container.privileged import block_device
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import encryption
from nova_container.privileged import linux
from nova_container.privileged import loop
from nova_container.privileged import namespace
from nova_container.privileged import place
from nova_container.spec import codec
from nova_container.spec import volume

LOG = log.getLogger(__name__)

_DEVICE_PATH = re.compile(r'^/dev(/[A-Za-z0-9][A-Za-z0-9._:+-]*)+$')
_SHARE_PATH = re.compile(r'^[0-9a-f]{32}/[A-Za-z0-9][A-Za-z0-9._-]*$')

_SECTOR = 512


@dataclasses.dataclass(frozen=True)
class Connected:
    """A connected volume's device.

    :param looped: it is a loop device of ours
    """

    major: int
    minor: int
    looped: bool
    read_only: bool

    @property
    def number(self) -> int:
        return os.makedev(self.major, self.minor)

    @property
    def path(self) -> str:
        """Its name in /dev.

        :raises StateConflict: the device is gone
        """
        entry = f'/sys/dev/block/{self.major}:{self.minor}/uevent'
        with contextlib.suppress(OSError):
            with open(entry) as file:
                name = dict(line.rstrip('\n').split('=', 1)
                            for line in file)['DEVNAME']
            path = f'/dev/{name}'
            if os.stat(path).st_rdev == self.number:
                return path
        raise exception.StateConflict(
            f'block device {self.major}:{self.minor} is gone')


def _record(volume_id: str) -> str:
    return place.run('volumes', f'{volume.check_id(volume_id)}.json')


def _backing_record(volume_id: str) -> str:
    return place.run('volumes', f'{volume.check_id(volume_id)}.backing')


def _load(record: str) -> Connected | None:
    try:
        with open(record) as file:
            return Connected(**json.load(file))
    except FileNotFoundError:
        return None


def _save(record: str, found: Connected) -> None:
    definition.write(record, json.dumps(dataclasses.asdict(found)), 0o600)


def find(volume_id: str) -> Connected | None:
    """The device of a volume; None if it is not connected."""
    return _load(_record(volume_id))


def require(volume_id: str) -> Connected:
    """The device of a volume.

    :raises StateConflict: it is not connected
    """
    found = find(volume_id)
    if found is None:
        raise exception.StateConflict(
            f'volume {volume_id} is not connected to this host; start the '
            'server through Nova')
    return found


@contextlib.contextmanager
def locked(volume_id: str) -> typing.Iterator[None]:
    """Hold the volume's lock, also against other processes of ours."""
    path = place.run('volumes', f'{volume.check_id(volume_id)}.lock')
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@context.entrypoint
def connect(volume_id: str, path: str, read_only: bool) -> int:
    """Take up what os-brick has connected; again is as good as once.

    :param path: a block device, or a file on a share mounted in
        ``<state_path>/mnt``
    :returns: bytes
    :raises InvalidSpec: the path is neither
    :raises StateConflict: the host uses the device itself
    """
    volume.check_id(volume_id)
    with locked(volume_id):
        known = _load(_backing_record(volume_id)) or find(volume_id)
        if _DEVICE_PATH.fullmatch(path) and '/../' not in f'{path}/':
            found = _block_device(volume_id, path, read_only, known)
        else:
            found = known or _looped_file(volume_id, path, read_only)
        if found != known:
            if _load(_backing_record(volume_id)) is not None:
                with _named(volume_id):
                    encryption.lock(volume_id)
                os.unlink(_backing_record(volume_id))
            _save(_record(volume_id), found)
        return block_device.size(found.path)


@context.entrypoint
def is_unlocked(volume_id: str) -> bool:
    """Whether the content of a connected, encrypted volume can be read."""
    backing = _load(_backing_record(volume_id))
    return backing is not None and backing != find(volume_id)


@context.entrypoint
def unlock(volume_id: str, key: str) -> None:
    """Have the content of a connected, encrypted volume read by its users.

    :raises StateConflict: the key is wrong, or the kernel cannot
    :raises InvalidSpec: it is not encrypted
    """
    with locked(volume_id):
        found = require(volume_id)
        backing = _load(_backing_record(volume_id)) or found
        if backing != found:
            return
        _save(_backing_record(volume_id), backing)
        with _named(volume_id):
            number = os.stat(encryption.unlock(
                volume_id, backing.path, key, backing.read_only)).st_rdev
        _save(_record(volume_id), Connected(
            os.major(number), os.minor(number), False, backing.read_only))


@contextlib.contextmanager
def _named(volume_id: str) -> typing.Iterator[None]:
    try:
        yield
    except exception.StateConflict as e:
        raise exception.StateConflict(f'volume {volume_id}: {e.message}')


def _block_device(volume_id: str, path: str, read_only: bool,
                  known: Connected | None) -> Connected:
    status = os.stat(path)
    if not stat.S_ISBLK(status.st_mode):
        raise exception.InvalidSpec(
            f'volume {volume_id}: {path} is not a block device')
    found = Connected(os.major(status.st_rdev), os.minor(status.st_rdev),
                      False, bool(read_only))
    if known is None or known.number != found.number:
        block_device.require_unused(found.path,
                                    f'connecting volume {volume_id}')
    block_device.protect(found.path, found.read_only)
    return found


def _looped_file(volume_id: str, path: str, read_only: bool) -> Connected:
    relative = os.path.relpath(path, place.state('mnt'))
    if not _SHARE_PATH.fullmatch(relative):
        raise exception.InvalidSpec(
            f'volume {volume_id}: {path!r} is neither a block device nor a '
            f'file on a share in {place.state("mnt")}')
    share = os.path.dirname(path)
    if not namespace.is_mount_point(share):
        raise exception.StateConflict(
            f'volume {volume_id}: nothing is mounted at {share}')
    directory = os.open(place.state('mnt'), os.O_PATH | os.O_CLOEXEC)
    try:
        image = linux.openat2(
            directory, relative,
            (os.O_RDONLY if read_only else os.O_RDWR) | os.O_NONBLOCK,
            linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS
            | linux.RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(directory)
    try:
        if not stat.S_ISREG(os.fstat(image).st_mode):
            raise exception.InvalidSpec(
                f'volume {volume_id}: {path} is not a regular file')
        device, _ = loop.attach(image, _SECTOR,
                                loop.FLAG_READ_ONLY if read_only else 0)
        number = os.fstat(device).st_rdev
        os.close(device)
    finally:
        os.close(image)
    return Connected(os.major(number), os.minor(number), True,
                     bool(read_only))


@context.entrypoint
def disconnect(volume_id: str) -> None:
    """Let go of a volume's device, so that os-brick can take it away.

    :raises StateConflict: a container has it, or it is still in use
    """
    with locked(volume_id):
        found = find(volume_id)
        if found is None:
            return
        require_halted(volume_id)
        backing = _load(_backing_record(volume_id))
        if backing is not None:
            if backing != found:
                _let_go(volume_id, found)
            with _named(volume_id):
                encryption.lock(volume_id)
            _save(_record(volume_id), backing)
            os.unlink(_backing_record(volume_id))
        _let_go(volume_id, backing or found)
        os.unlink(_record(volume_id))


def _let_go(volume_id: str, found: Connected) -> None:
    try:
        device = found.path
    except exception.StateConflict:
        LOG.warning('The device of volume %s was gone before it was let go of',
                    volume_id)
        return
    block_device.require_unused(device, f'disconnecting volume {volume_id}')
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _flush(volume_id, fd)
        # It would stay with the number, whatever the next device there is.
        block_device.protect(device, False)
    finally:
        os.close(fd)
    if found.looped and not loop.take_down(device):
        raise exception.StateConflict(
            f'disconnecting volume {volume_id}: {device} is still in use on '
            'this host')


def require_halted(volume_id: str) -> None:
    """
    :raises StateConflict: a container that runs has it
    """
    for owner in users(volume_id):
        if os.path.exists(place.container_run(owner)):
            raise exception.StateConflict(
                f'volume {volume_id} is attached to container {owner}, which '
                'runs')


def _flush(volume_id: str, device: int) -> None:
    try:
        os.fsync(device)
    except OSError as e:
        # It must go all the same, and nobody is left who could be told.
        LOG.warning('Volume %s: what was written last may be lost: %s',
                    volume_id, e.strerror)


@context.entrypoint
def take_size(volume_id: str) -> int:
    """Have the device as large as the volume has become.

    :returns: bytes, of an encrypted volume those that are encrypted
    """
    found = _load(_backing_record(volume_id)) or require(volume_id)
    if loop.is_loop(found.number):
        fd = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            loop.take_size(fd)
        finally:
            os.close(fd)
    return block_device.size(found.path)


@context.entrypoint
def unmount_share(name: str) -> bool:
    """Unmount a share in ``<state_path>/mnt``; False if it is in use.

    :param name: 32 hexadecimal digits, os-brick's
    """
    if not re.fullmatch('[0-9a-f]{32}', name):
        raise exception.InvalidSpec(f'{name!r} is not the name of a share')
    path = place.state('mnt', name)
    if namespace.is_mount_point(path):
        try:
            linux.umount(path, linux.UMOUNT_NOFOLLOW)
        except OSError as e:
            if e.errno == errno.EBUSY:
                return False
            raise
    return True


def users(volume_id: str) -> list[str]:
    """Containers that have the volume, also halted ones."""
    found = []
    for container_id in os.listdir(place.state('containers')):
        with contextlib.suppress(exception.ContainerNotFound):
            if volume_id in definition.load_own(container_id).volume_ids():
                found.append(container_id)
    return found


@context.entrypoint
def of(container_id: str) -> list[dict[str, typing.Any]]:
    """A container's volumes, as encoded Attachments."""
    return [codec.encode(each)
            for each in definition.load_own(container_id).volumes]


@context.entrypoint
def attached() -> dict[str, list[str]]:
    """The containers on this host that have volumes, by volume."""
    found: dict[str, list[str]] = {}
    for container_id in os.listdir(place.state('containers')):
        with contextlib.suppress(exception.ContainerNotFound):
            for name in definition.load_own(container_id).volume_ids():
                found.setdefault(name, []).append(container_id)
    return found


def recover() -> None:
    """Take down loop devices over shares that no record names."""
    known = set()
    for name in os.listdir(place.run('volumes')):
        if name.endswith(('.json', '.backing')):
            found = _load(place.run('volumes', name))
            if found is not None:
                known.add(found.number)
    for entry in os.scandir('/sys/block'):
        backing = os.path.join(entry.path, 'loop/backing_file')
        with contextlib.suppress(OSError):
            with open(backing) as file:
                image = file.read().rstrip('\n')
            if not image.startswith(place.state('mnt') + '/'):
                continue
            fd = os.open(f'/dev/{entry.name}', os.O_RDONLY | os.O_CLOEXEC)
            try:
                if (os.fstat(fd).st_rdev not in known
                        and loop.holds(fd, image)):
                    loop.detach(fd)
            finally:
                os.close(fd)


def teardown() -> None:
    """Let go of every volume; no container is left to use one."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(place.run('volumes')):
            if name.endswith('.backing'):
                try:
                    encryption.lock(name.removesuffix('.backing'))
                except exception.ContainerError as e:
                    LOG.warning('Volume %s stays: %s', name, e)
            if name.endswith(('.json', '.backing')):
                os.unlink(place.run('volumes', name))
        recover()
