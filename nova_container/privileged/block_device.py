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

"""Block devices of the host: their size, and who may use and write them.

Requests: linux/fs.h.
"""

import errno
import fcntl
import os
import struct
import time

from nova_container import exception
from nova_container.privileged import loop

_BLKGETSIZE64 = 0x80081272
_BLKROSET = 0x125D
_BLKROGET = 0x125E

# Seconds. The kernel lets go of a device a moment after its file system.
_BUSY_TIMEOUT = 10
_BUSY_PAUSE = 0.05


def size(device: str) -> int:
    """Bytes of a block device."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        buffer = bytearray(8)
        fcntl.ioctl(fd, _BLKGETSIZE64, buffer)
        return struct.unpack('Q', buffer)[0]
    finally:
        os.close(fd)


def protect(device: str, read_only: bool) -> None:
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
