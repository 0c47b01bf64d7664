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

"""File systems on volumes.

What is on a volume comes from a tenant. It is told apart by its magic number
alone, no program of ours looks further into it before the kernel does, and
only what ``[container] volume_file_systems`` has is mounted, without set-user-
id programs and devices.
"""

import os
import struct
import subprocess

from nova_container import exception
from nova_container.privileged import linux
from nova_container.privileged import place

# Nothing that is in use begins with so many zeros.
_BLANK = 1 << 20

# ext4's documentation, "Super Block": at 1024, s_magic at 56 in it.
_EXT4_SUPERBLOCK = 1024
_EXT4_MAGIC = 0xEF53
_XFS_MAGIC = b'XFSB'

_OPTIONS = {
    'ext4': 'errors=remount-ro',
    # A clone of a volume has the same UUID as the volume.
    'xfs': 'nouuid',
}
_MAKE = {
    'ext4': ('mke2fs', '-q', '-F', '-t', 'ext4', '-m', '0', '-E',
             'root_owner=0:0,lazy_itable_init=1,nodiscard'),
    'xfs': ('mkfs.xfs', '-q', '-K'),
}
_PACKAGE = {'mke2fs': 'e2fsprogs', 'e2fsck': 'e2fsprogs',
            'resize2fs': 'e2fsprogs', 'mkfs.xfs': 'xfsprogs',
            'xfs_growfs': 'xfsprogs'}


def _command(*args: str, codes: tuple[int, ...] = (0,)) -> None:
    try:
        done = subprocess.run(args, stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, env=place.ENV,
                              errors='replace')
    except FileNotFoundError:
        raise exception.HostUnsupported(
            f'{args[0]} is not installed: install the package '
            f'{_PACKAGE[args[0]]}')
    if done.returncode not in codes:
        raise exception.StateConflict(
            f'{" ".join(args)} failed: {(done.stderr or done.stdout).strip()}')


def _kind(device: str) -> str | None:
    """What is on a device; None for nothing.

    :raises InvalidSpec: something else than we mount
    """
    with open(device, 'rb') as file:
        head = file.read(_BLANK)
    if head.startswith(_XFS_MAGIC):
        return 'xfs'
    magic = head[_EXT4_SUPERBLOCK + 56:_EXT4_SUPERBLOCK + 58]
    if magic == _EXT4_MAGIC.to_bytes(2, 'little'):
        return 'ext4'
    if not head.strip(b'\0'):
        return None
    raise exception.InvalidSpec('it holds neither ext4 nor xfs and is not '
                                'blank')


def _ext4_size(device: str) -> int:
    """Bytes: s_blocks_count and s_log_block_size of the superblock."""
    with open(device, 'rb') as file:
        file.seek(_EXT4_SUPERBLOCK)
        block = file.read(1024)
    low, = struct.unpack_from('<I', block, 4)
    logarithm, = struct.unpack_from('<I', block, 24)
    high, = struct.unpack_from('<I', block, 0x150)
    return (high << 32 | low) << (10 + min(logarithm, 16))


def mount(device: str, size: int, target: str, read_only: bool,
          options: str = '') -> bool:
    """Mount a volume, made a file system on if it is blank.

    One that is smaller than its device is grown.

    :param size: bytes of the device
    :param options: more of mount(8), with a comma before them
    :returns: whether the file system is new
    :raises InvalidSpec: it holds something else
    :raises HostUnsupported: the operator does not want it
    """
    allowed = place.CONF.container.volume_file_systems
    found = _kind(device)
    kind: str = found or next(iter(allowed), '')
    if kind not in allowed:
        raise exception.HostUnsupported(
            f'this host does not mount {kind or "any file system"} of '
            'volumes; see [container] volume_file_systems there')
    if found is None and read_only:
        raise exception.InvalidSpec('it is blank, and read-only')
    if found is None:
        _command(*_MAKE[kind], device)
    elif kind == 'ext4' and not read_only and (
            _ext4_size(device) < size - (1 << 20)):
        # The kernel would do it while mounted, but only for
        # CAP_SYS_RESOURCE.
        _command('e2fsck', '-f', '-p', device, codes=(0, 1))
        _command('resize2fs', device)
    flags = linux.MS_NOSUID | linux.MS_NODEV
    linux.mount(device, target, kind,
                flags | (linux.MS_RDONLY if read_only else 0),
                _OPTIONS[kind] + options)
    if kind == 'xfs' and not read_only:
        _command('xfs_growfs', target)
    if found is None and kind == 'ext4':
        # Programs want an empty directory; e2fsck makes it when it needs it.
        os.rmdir(os.path.join(target, 'lost+found'))
    return found is None
