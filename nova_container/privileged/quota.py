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

"""Project quotas: quotactl_fd(2) and the project id of a directory.

Works where the file system keeps and enforces them: XFS mounted with
``prjquota``, ext4 with the feature ``project`` and that option. A limit of the
project holds for every file below the directory, whoever owns it.
"""

import errno
import fcntl
import os
import struct

from nova_container.privileged import linux

_PRJQUOTA = 2
_Q_GETQUOTA = 0x800007
_Q_SETQUOTA = 0x800008
_Q_XGETQSTATV = 0x5808
_QIF_BLIMITS = 1
_QIF_ILIMITS = 4
_FS_QUOTA_PDQ_ENFD = 1 << 5

# struct if_dqblk of linux/quota.h; blocks are of 1024 bytes.
_DQBLK = struct.Struct('8QI4x')
_BLOCK = 1024
# The head of struct fs_quota_statv of linux/dqblk_xfs.h, version 1, and room
# for the rest of it.
_STATV = struct.Struct('bBH')
_STATV_SIZE = 512

# struct fsxattr of linux/fs.h.
_FSXATTR = struct.Struct('5I8x')
_FS_IOC_FSGETXATTR = 0x801c581f
_FS_IOC_FSSETXATTR = 0x401c5820
_FS_XFLAG_PROJINHERIT = 0x200

_NOT_OFFERED = (errno.ENOSYS, errno.ESRCH, errno.ENOTTY, errno.EINVAL,
                errno.EOPNOTSUPP)


def _open(directory: str) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                   | os.O_CLOEXEC)


def _call(directory: str, command: int, project: int, data: bytearray) -> None:
    fd = _open(directory)
    try:
        linux.quotactl_fd(fd, command << 8 | _PRJQUOTA, project, data)
    finally:
        os.close(fd)


def offered(directory: str) -> bool:
    """Whether the file system of ``directory`` enforces project quotas."""
    data = bytearray(_STATV_SIZE)
    data[0] = 1
    try:
        _call(directory, _Q_XGETQSTATV, 0, data)
    except OSError as e:
        if e.errno in _NOT_OFFERED:
            return False
        raise
    return bool(_STATV.unpack_from(data)[2] & _FS_QUOTA_PDQ_ENFD)


def project(directory: str) -> int:
    """The project of a directory; 0 for none, and where there are none."""
    fd = _open(directory)
    try:
        data = bytearray(_FSXATTR.size)
        fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, data)
    except OSError as e:
        if e.errno in _NOT_OFFERED:
            return 0
        raise
    finally:
        os.close(fd)
    return _FSXATTR.unpack(data)[3]


def assign(directory: str, project_id: int) -> None:
    """Make an empty directory, and all that will be in it, of a project."""
    fd = _open(directory)
    try:
        data = bytearray(_FSXATTR.size)
        fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, data)
        flags, size, extents, _, cow = _FSXATTR.unpack(data)
        fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, _FSXATTR.pack(
            flags | _FS_XFLAG_PROJINHERIT, size, extents, project_id, cow))
    finally:
        os.close(fd)


def limit(directory: str, project_id: int, size: int, files: int) -> None:
    """Limit a project on the file system of ``directory``.

    :param size: bytes; 0 for no limit
    :param files: inodes; 0 for no limit
    """
    blocks = -(-size // _BLOCK)
    _call(directory, _Q_SETQUOTA, project_id, bytearray(_DQBLK.pack(
        blocks, blocks, 0, files, files, 0, 0, 0,
        _QIF_BLIMITS | _QIF_ILIMITS)))


def used(directory: str, project_id: int) -> int:
    """Bytes that the files of a project occupy."""
    data = bytearray(_DQBLK.size)
    _call(directory, _Q_GETQUOTA, project_id, data)
    return _DQBLK.unpack(data)[2]
