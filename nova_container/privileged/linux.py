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

"""Linux system calls that Python does not offer, with errno and object named.

Numbers are those of the generic table, the same on x86-64, arm64, riscv64 and
s390x for every call made since Linux 5.1 (``asm-generic/unistd.h``).
"""

import ctypes
import os
import stat
import struct

AT_EMPTY_PATH = 0x1000
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
_AT_STATX_DONT_SYNC = 0x4000
_STATX_TYPE = 1

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_IDMAP = 0x100000
MOVE_MOUNT_F_EMPTY_PATH = 0x4
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442
_SYS_QUOTACTL_FD = 443

# struct statx of linux/stat.h: the mode, and major and minor of the device
# that a node is for.
_STATX = struct.Struct('28xH98xII120x')

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _MountAttr(ctypes.Structure):
    _fields_ = [('attr_set', ctypes.c_uint64),
                ('attr_clr', ctypes.c_uint64),
                ('propagation', ctypes.c_uint64),
                ('userns_fd', ctypes.c_uint64)]


class _OpenHow(ctypes.Structure):
    _fields_ = [('flags', ctypes.c_uint64),
                ('mode', ctypes.c_uint64),
                ('resolve', ctypes.c_uint64)]


def _check(result: int, what: str) -> int:
    if result < 0:
        err = ctypes.get_errno()
        raise OSError(err, f'{what}: {os.strerror(err)}')
    return result


def mount(source: str, target: str, fstype: str = '', flags: int = 0,
          data: str = '') -> None:
    """mount(2).

    :raises OSError: with the target and the options in its text
    """
    _check(_libc.mount(source.encode(), target.encode(), fstype.encode(),
                       ctypes.c_ulong(flags), data.encode()),
           f'mount {fstype or "bind"} on {target} ({data})')


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), f'umount {target}')


def syncfs(fd: int) -> None:
    """syncfs(2): bring a whole file system to its disk."""
    _check(_libc.syncfs(fd), 'syncfs')


def setns(fd: int, nstype: int) -> None:
    """setns(2) for the calling thread."""
    _check(_libc.setns(fd, nstype), f'setns({nstype:#x})')


def unshare(flags: int) -> None:
    """unshare(2) for the calling thread."""
    _check(_libc.unshare(flags), f'unshare({flags:#x})')


def set_fs_ids(user: int, group: int) -> None:
    """setfsuid(2) and setfsgid(2) for the calling thread."""
    _libc.setfsgid(group)
    _libc.setfsuid(user)


def open_tree(path: str, flags: int = 0) -> int:
    """A detached copy of the mount at ``path``: open_tree(2), as a descriptor.

    :param flags: AT_RECURSIVE for what is mounted below it, too
    """
    return _check(_libc.syscall(
        _SYS_OPEN_TREE, AT_FDCWD, ctypes.c_char_p(path.encode()),
        ctypes.c_uint(OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags)),
        f'open_tree {path}')


def mount_setattr(mount_fd: int, attrs: int, userns_fd: int = 0) -> None:
    """mount_setattr(2) on a detached mount; ``userns_fd`` with IDMAP."""
    attr = _MountAttr(attr_set=attrs, userns_fd=userns_fd)
    _check(_libc.syscall(
        _SYS_MOUNT_SETATTR, mount_fd, ctypes.c_char_p(b''),
        ctypes.c_uint(AT_EMPTY_PATH), ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr))),
        f'mount_setattr({attrs:#x})')


def move_mount(mount_fd: int, target: str) -> None:
    """Attach a detached mount at ``target``: move_mount(2)."""
    _check(_libc.syscall(
        _SYS_MOVE_MOUNT, mount_fd, ctypes.c_char_p(b''), AT_FDCWD,
        ctypes.c_char_p(target.encode()),
        ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH)),
        f'move_mount to {target}')


def openat2(dir_fd: int, path: str, flags: int, resolve: int,
            mode: int = 0) -> int:
    """openat2(2): open with a say in how the path is resolved."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    return _check(_libc.syscall(
        _SYS_OPENAT2, dir_fd, ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))),
        f'openat2 {path}')


def quotactl_fd(fd: int, command: int, who: int, data: bytearray) -> None:
    """quotactl_fd(2); ``data`` is the command's structure, in and out."""
    buffer = (ctypes.c_char * len(data)).from_buffer(data)
    _check(_libc.syscall(
        _SYS_QUOTACTL_FD, ctypes.c_uint(fd), ctypes.c_uint(command),
        ctypes.c_uint(who), buffer), f'quotactl_fd({command:#x}, {who})')


def block_device(path: str) -> int | None:
    """The number of the device that a node is for; None for another file.

    statx(2) without AT_STATX_FORCE_SYNC: a file system whose server is a
    tenant's process (FUSE) is not asked.
    """
    buffer = ctypes.create_string_buffer(_STATX.size)
    _check(_libc.statx(AT_FDCWD, os.fsencode(path), _AT_STATX_DONT_SYNC,
                       _STATX_TYPE, buffer), f'statx {path}')
    mode, major, minor = _STATX.unpack(buffer.raw)
    return os.makedev(major, minor) if stat.S_ISBLK(mode) else None
