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

"""A volume in a container: a node below /dev, or a file system at a path.

Never both: a tenant who could write to a mounted device could hand the kernel
whatever he likes. What changes something is to be called in the containers'
mount namespace.
"""

import contextlib
import os
import stat

from nova_container import exception
from nova_container.oci import runtime_config
from nova_container.privileged import block_device
from nova_container.privileged import file_system
from nova_container.privileged import linux
from nova_container.privileged import place
from nova_container.privileged import selinux
from nova_container.privileged import userns
from nova_container.privileged import volume as volumes
from nova_container.spec import container
from nova_container.spec import idmap
from nova_container.spec import volume


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
    found = volumes.require(wish.volume)
    read_only = wish.read_only or found.read_only
    target = mount_point(container_id, wish.volume)
    plain = f'{target}.plain'
    for directory in (target, plain):
        os.makedirs(directory, 0o711, exist_ok=True)
    block_device.require_unused(found.path, f'mounting volume {wish.volume}')
    with contextlib.ExitStack() as undo:
        try:
            new = file_system.mount(
                found.path, block_device.size(found.path), plain, read_only,
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
    found = volumes.require(wish.volume)
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
        block_device.protect(found.path, True)
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
    read_only = wish.read_only or volumes.require(wish.volume).read_only
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
