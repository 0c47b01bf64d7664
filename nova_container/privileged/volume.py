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

A volume is in a container as a node below /dev, or as a file system mounted at
a path, never both: a tenant who could write to a mounted device could hand the
kernel whatever he likes.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import re
import stat
import struct
import time
import typing

from oslo_log import log

from nova_container import exception
from nova_container.oci import runtime_config
from nova_container.privileged import confined
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import encryption
from nova_container.privileged import file_system
from nova_container.privileged import linux
from nova_container.privileged import loop
from nova_container.privileged import namespace
from nova_container.privileged import place
from nova_container.privileged import selinux
from nova_container.privileged import userns
from nova_container.spec import codec
from nova_container.spec import container
from nova_container.spec import idmap
from nova_container.spec import volume

LOG = log.getLogger(__name__)

_DEVICE_PATH = re.compile(r'^/dev(/[A-Za-z0-9][A-Za-z0-9._:+-]*)+$')
_SHARE_PATH = re.compile(r'^[0-9a-f]{32}/[A-Za-z0-9][A-Za-z0-9._-]*$')

_BLKGETSIZE64 = 0x80081272
_BLKZEROOUT = 0x127F
_BLKROSET = 0x125D
_BLKROGET = 0x125E
_SECTOR = 512
_COPY = 4 << 20

# Seconds. The kernel lets go of a device a moment after its file system.
_BUSY_TIMEOUT = 10
_BUSY_PAUSE = 0.05


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
def _locked(volume_id: str) -> typing.Iterator[None]:
    path = place.run('volumes', f'{volume.check_id(volume_id)}.lock')
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def size(device: str) -> int:
    """Bytes of a block device."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        buffer = bytearray(8)
        fcntl.ioctl(fd, _BLKGETSIZE64, buffer)
        return struct.unpack('Q', buffer)[0]
    finally:
        os.close(fd)


def _protect(device: str, read_only: bool) -> None:
    """Have the kernel refuse to write to a block device, or no longer.

    With cgroup version 2 nothing else does: a container's root may open any
    node that is its own. One that takes no writes by itself stays as it is.
    """
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        now = bytearray(4)
        fcntl.ioctl(fd, _BLKROGET, now)
        if struct.unpack('i', now)[0] != read_only:
            fcntl.ioctl(fd, _BLKROSET, struct.pack('i', read_only))
    except OSError as e:
        if read_only or e.errno not in (errno.EACCES, errno.EROFS):
            raise
    finally:
        os.close(fd)


def require_unused(device: str, why: str) -> None:
    """
    :raises StateConflict: the host or a mount still uses the block device
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
            if not loop.over(os.stat(device).st_rdev):
                return
        except OSError as e:
            if e.errno != errno.EBUSY:
                raise
        if time.monotonic() > deadline:
            raise exception.StateConflict(
                f'{why}: {device} is still in use on this host')
        time.sleep(_BUSY_PAUSE)


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
    with _locked(volume_id):
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
        return size(found.path)


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
    with _locked(volume_id):
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
        require_unused(found.path, f'connecting volume {volume_id}')
    _protect(found.path, found.read_only)
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
    with _locked(volume_id):
        found = find(volume_id)
        if found is None:
            return
        _require_halted(volume_id)
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
    require_unused(device, f'disconnecting volume {volume_id}')
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _flush(volume_id, fd)
        # It would stay with the number, whatever the next device there is.
        _protect(device, False)
    finally:
        os.close(fd)
    if found.looped and not loop.take_down(device):
        raise exception.StateConflict(
            f'disconnecting volume {volume_id}: {device} is still in use on '
            'this host')


def _require_halted(volume_id: str) -> None:
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
    return size(found.path)


@context.entrypoint
def read(volume_id: str, length: int, spool: str) -> None:
    """Append the first bytes of a connected volume to a spool file.

    :raises NoSpace: the file system of the spool directory is full
    """
    device = require(volume_id).path
    if type(length) is not int or not 0 < length <= size(device):
        raise exception.InvalidSpec(
            f'volume {volume_id} does not have {length!r} bytes')
    with confined.spool_file(spool, os.O_WRONLY | os.O_APPEND) as output, \
            open(device, 'rb', buffering=0) as source, \
            open(output, 'wb', buffering=0, closefd=False) as target:
        while length and (block := source.read(min(length, _COPY))):
            with confined.spool_written():
                _write(target, block)
            length -= len(block)


@context.entrypoint
def copy(source_id: str, target_id: str) -> None:
    """Copy the content of a volume to another, which is not smaller.

    Blocks that are the same already, empty ones above all, are not written.

    :raises StateConflict: one of them is in use
    """
    paths = [require(name).path for name in (source_id, target_id)]
    if size(paths[0]) > size(paths[1]):
        raise exception.StateConflict(
            f'volume {target_id} is smaller than volume {source_id}')
    for name, path in zip((source_id, target_id), paths):
        if users(name):
            raise exception.StateConflict(f'volume {name} is attached')
        require_unused(path, f'copying volume {name}')
    with open(paths[0], 'rb', buffering=0) as source, \
            open(paths[1], 'r+b', buffering=0) as target:
        while block := source.read(_COPY):
            if target.read(len(block)) != block:
                target.seek(-len(block), os.SEEK_CUR)
                _write(target, block)
        os.fsync(target.fileno())


@context.entrypoint
def clear(volume_id: str) -> None:
    """Have a connected volume blank: zeros, which thin storage does not keep.

    :raises StateConflict: a container that runs has it, or it is in use
    """
    with _locked(volume_id):
        _require_halted(volume_id)
        device = require(volume_id).path
        require_unused(device, f'clearing volume {volume_id}')
        fd = os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _BLKZEROOUT, struct.pack('QQ', 0, size(device)))
        finally:
            os.close(fd)


def _write(file: typing.BinaryIO, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[file.write(view):]


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


# In the containers' mount namespace

def mount_all(spec: container.ContainerSpec,
              ids: idmap.IdMap) -> tuple[tuple[str, str], ...]:
    """Mount the volumes that are to have a path.

    :returns: directory on the host, path in the container
    """
    wanted = sorted((each.path, each) for each in spec.volumes
                    if each.path is not None)
    return tuple((mount(spec.id, each, path, ids), path)
                 for path, each in wanted)


def mount_point(container_id: str, volume_id: str) -> str:
    return place.container_run(container_id, 'volumes',
                               volume.check_id(volume_id))


def mount(container_id: str, wish: volume.Attachment, path: str,
          ids: idmap.IdMap) -> str:
    """Mount a volume's file system, its ids those of the container.

    On the volume the ids are those inside, so any container, and a virtual
    machine too, sees the same owners.

    :param path: ``wish``'s, in the container
    :returns: where it is mounted on the host
    """
    found = require(wish.volume)
    read_only = wish.read_only or found.read_only
    target = mount_point(container_id, wish.volume)
    plain = f'{target}.plain'
    for directory in (target, plain):
        os.makedirs(directory, 0o711, exist_ok=True)
    require_unused(found.path, f'mounting volume {wish.volume}')
    with contextlib.ExitStack() as undo:
        try:
            new = file_system.mount(found.path, size(found.path), plain,
                                    read_only,
                                    selinux.mount_option(container_id))
        except exception.ContainerError as e:
            raise type(e)(f'volume {wish.volume} cannot be mounted at '
                          f'{path}: {e.message}')
        except OSError as e:
            raise exception.InvalidSpec(
                f'volume {wish.volume} cannot be mounted at {path}: '
                f'{e.strerror}; its file system is damaged')
        undo.callback(linux.umount, plain)
        if new:
            _take_owner(container_id, path, plain, ids)
        shift = userns.create(ids)
        undo.callback(os.close, shift)
        tree = linux.open_tree(plain)
        undo.callback(os.close, tree)
        linux.mount_setattr(
            tree, linux.MOUNT_ATTR_IDMAP | linux.MOUNT_ATTR_NODEV
            | linux.MOUNT_ATTR_NOSUID
            | (linux.MOUNT_ATTR_RDONLY if read_only else 0), shift)
        linux.move_mount(tree, target)
    return target


def _take_owner(container_id: str, path: str, target: str,
                ids: idmap.IdMap) -> None:
    """Give a new file system the owner that the image's directory has.

    A service that is not root in its container could not write otherwise.
    """
    root = os.open(place.container_run(container_id, 'rootfs'),
                   os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        directory = linux.openat2(
            root, path.lstrip('/'), os.O_PATH | os.O_DIRECTORY,
            linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS)
    except OSError:
        return
    finally:
        os.close(root)
    status = os.fstat(directory)
    os.close(directory)
    owner, group = (number - ids.outside for number in (status.st_uid,
                                                        status.st_gid))
    if 0 <= owner < ids.count and 0 <= group < ids.count:
        os.chown(target, owner, group)
        os.chmod(target, stat.S_IMODE(status.st_mode) & 0o1777)


def make_nodes(spec: container.ContainerSpec, owner: int
               ) -> tuple[runtime_config.BlockDevice, ...]:
    """Make the nodes of the volumes that are to have none mounted."""
    return tuple(make_node(spec.id, each, owner) for each in spec.volumes
                 if each.path is None)


def make_node(container_id: str, wish: volume.Attachment,
              owner: int) -> runtime_config.BlockDevice:
    """Make a node that the container's root owns.

    It is on a file system of its own, since /run may be one without devices.
    """
    found = require(wish.volume)
    read_only = wish.read_only or found.read_only
    node = _node(container_id, wish)
    directory = os.path.dirname(node)
    os.makedirs(directory, 0o711, exist_ok=True)
    if not os.path.ismount(directory):
        linux.mount('tmpfs', directory, 'tmpfs',
                    linux.MS_NOSUID | linux.MS_NOEXEC, 'mode=711,size=64k')
    with contextlib.suppress(FileNotFoundError):
        os.unlink(node)
    os.mknod(node, stat.S_IFBLK | 0o600, found.number)
    open_node(container_id, wish, owner)
    if read_only:
        _protect(found.path, True)
    selinux.label(container_id, node)
    return runtime_config.BlockDevice(
        node=node, path=f'/dev/{wish.device}', major=found.major,
        minor=found.minor, read_only=read_only)


def _node(container_id: str, wish: volume.Attachment) -> str:
    return place.container_run(container_id, 'dev', wish.device)


def open_node(container_id: str, wish: volume.Attachment, owner: int) -> None:
    """Let the container's root open a node."""
    node = _node(container_id, wish)
    os.chown(node, owner, owner)
    read_only = wish.read_only or require(wish.volume).read_only
    os.chmod(node, 0o440 if read_only else 0o660)


def close_node(container_id: str, wish: volume.Attachment) -> None:
    """Let nobody open a node, wherever a container may have kept it.

    The number is soon another device's. That the container has none by that
    name is not enough: it may have bound it elsewhere, or passed it on as a
    descriptor that does not open it (O_PATH).
    """
    node = _node(container_id, wish)
    with contextlib.suppress(FileNotFoundError):
        os.chown(node, 0, 0)
        os.chmod(node, 0)


def remove_node(container_id: str, wish: volume.Attachment) -> None:
    """Remove a node that was closed."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_node(container_id, wish))


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
