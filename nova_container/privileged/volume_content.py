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

"""What is on a connected volume, as a whole: read, copied, cleared."""

import fcntl
import os
import struct
import typing

from nova_container import exception
from nova_container.privileged import block_device
from nova_container.privileged import confined
from nova_container.privileged import context
from nova_container.privileged import volume

# linux/fs.h
_BLKZEROOUT = 0x127F
_COPY = 4 << 20


@context.entrypoint
def read(volume_id: str, length: int, spool: str) -> None:
    """Append the first bytes of a connected volume to a spool file.

    :raises NoSpace: the file system of the spool directory is full
    """
    device = volume.require(volume_id).path
    if type(length) is not int or not 0 < length <= block_device.size(device):
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
    paths = [volume.require(name).path for name in (source_id, target_id)]
    if block_device.size(paths[0]) > block_device.size(paths[1]):
        raise exception.StateConflict(
            f'volume {target_id} is smaller than volume {source_id}')
    for name, path in zip((source_id, target_id), paths):
        if volume.users(name):
            raise exception.StateConflict(f'volume {name} is attached')
        block_device.require_unused(path, f'copying volume {name}')
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
    with volume.locked(volume_id):
        volume.require_halted(volume_id)
        device = volume.require(volume_id).path
        block_device.require_unused(device, f'clearing volume {volume_id}')
        fd = os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _BLKZEROOUT, struct.pack(
                'QQ', 0, block_device.size(device)))
        finally:
            os.close(fd)


def _write(file: typing.BinaryIO, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[file.write(view):]
