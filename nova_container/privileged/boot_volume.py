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

"""The writable layer of a container that boots from a volume.

The volume begins with the archive of an image, and behind that there is a file
system with the writable layer, so that all of a server is on its volume and
goes where that goes. Its ids are those inside the container; the mount is
id-mapped. Overlay works as the host's root, who therefore needs an id on the
volume, too: the first one that no container has.

All of it may have been written by a tenant, who had the volume as a device
elsewhere: the file system (``file_system`` says what that means) and the
directories in it, none of which may be a link to one of the host's.
"""

import contextlib
import os
import stat

from nova_container import exception
from nova_container.privileged import block_device
from nova_container.privileged import file_system
from nova_container.privileged import linux
from nova_container.privileged import loop
from nova_container.privileged import userns
from nova_container.privileged import volume
from nova_container.spec import disk
from nova_container.spec import idmap

# Of the loop device.
_BLOCK = 4096

# What a file system is worth being made in, bytes.
_MIN = 64 << 20


def mount(boot: disk.BootVolume, target: str, base: int,
          options: str) -> None:
    """Mount the file system behind the archive, made if it is not there yet.

    To be called in the containers' mount namespace; it goes with the mount at
    ``target``.

    :param target: a new directory
    :param base: host id of the container's root
    :param options: more of mount(8), with a comma before them
    :raises InvalidSpec: there is something else, or no room
    :raises StateConflict: the volume is not connected, or in use
    :raises HostUnsupported: the operator does not want it
    """
    found = volume.require(boot.volume)
    if found.read_only:
        raise exception.InvalidSpec(
            f'volume {boot.volume} is read-only, so no server boots from it')
    if block_device.size(found.path) < boot.offset + _MIN:
        raise exception.InvalidSpec(
            f'volume {boot.volume} has less than {_MIN >> 20} MiB behind its '
            'image; extend it')
    block_device.require_unused(found.path,
                                f'booting from volume {boot.volume}')
    plain = f'{target}.plain'
    for directory in (target, plain):
        os.makedirs(directory, 0o711)
    image = os.open(found.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        device, path = loop.attach(image, _BLOCK, loop.FLAG_AUTOCLEAR,
                                   boot.offset)
    finally:
        os.close(image)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, device)
        try:
            file_system.mount(path, block_device.size(path), plain, False,
                              options)
        except exception.ContainerError as e:
            raise type(e)(f'volume {boot.volume} behind its image: '
                          f'{e.message}')
        except OSError as e:
            raise exception.InvalidSpec(
                f'volume {boot.volume} behind its image: {e.strerror}; its '
                'file system is damaged')
        undo.callback(linux.umount, plain)
        shift = userns.create(idmap.IdMap(0, base),
                              idmap.IdMap(idmap.RANGE_SIZE, 0, 1))
        undo.callback(os.close, shift)
        tree = linux.open_tree(plain)
        undo.callback(os.close, tree)
        linux.mount_setattr(
            tree, linux.MOUNT_ATTR_IDMAP | linux.MOUNT_ATTR_NODEV, shift)
        linux.move_mount(tree, target)


def require_directories(boot: disk.BootVolume, *paths: str) -> None:
    """
    :raises InvalidSpec: one of them is there, and is something else
    """
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise exception.InvalidSpec(
                    f'volume {boot.volume} behind its image: '
                    f'{os.path.basename(path)} is not a directory; somebody '
                    'has changed its file system')
