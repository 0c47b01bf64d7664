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

"""Disks as ext4 images in sparse files, mounted through loop devices.

A loop device lives as long as the mount on it: it is set up with autoclear,
so the kernel takes it down with the last reference, a killed process's
included, and none can leak. Blocks that are freed inside are given back to the
host's file system (``discard``).

Each image has a lock, flock(2) on itself. The programs that work on it hold
it too, since they may outlive the process that started them, and so does the
loop device: two mounts of one image would destroy it.
"""

import contextlib
import errno
import fcntl
import glob
import os
import struct
import subprocess
import time

from nova_container import exception
from nova_container.privileged import linux
from nova_container.privileged import place

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CLR_FD = 0x4C01
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_SET_CAPACITY = 0x4C07
_BLKROSET = 0x125D

# LO_FLAGS_* of linux/loop.h.
FLAG_READ_ONLY = 1
FLAG_AUTOCLEAR = 4
_FLAG_DIRECT_IO = 16

# struct loop_config of linux/loop.h: descriptor, block size, and of struct
# loop_info64 only the flags.
_LOOP_CONFIG = struct.Struct('II24xQ20xI176x64x')

_BLOCK = 4096
_MAJOR = 7
_ATTEMPTS = 64

# Seconds. A file system goes with the last file that is open on it.
_BUSY_TIMEOUT = 10
_BUSY_PAUSE = 0.02

# One inode for this many bytes: half of what mke2fs has by default, since
# container images are made of small files.
BYTES_PER_INODE = 8192

# noinit_itable: the kernel would fill the holes with empty inode tables.
_OPTIONS = 'discard,noinit_itable'


def _open(image: str, flags: int = 0) -> int:
    """The image, locked.

    :raises StateConflict: it is mounted or being worked on, and stays so
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT
    fd = os.open(image, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags,
                 0o600)
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise exception.StateConflict(
                    f'the disk {image} is still in use; look for a process '
                    'that has one of its files open (losetup, lsof)')
            time.sleep(_BUSY_PAUSE)


def _command(fd: int, *args: str, codes: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(args, stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, env=place.ENV, pass_fds=(fd,),
                          errors='replace')
    if done.returncode not in codes:
        raise exception.OperatorError(
            f'{" ".join(args)} failed: '
            f'{(done.stderr or done.stdout).strip()}')


def make(image: str, size: int, owner: int) -> None:
    """Make an image with an empty file system.

    :param size: bytes
    :param owner: user and group of its root directory
    :raises NoSpace: the host's file system does not take such a file
    :raises HostUnsupported: mke2fs is not installed
    """
    fd = _open(image, os.O_CREAT)
    try:
        os.ftruncate(fd, 0)
        os.ftruncate(fd, size)
        _command(fd, 'mke2fs', '-q', '-F', '-t', 'ext4', '-m', '0',
                 '-b', str(_BLOCK), '-i', str(BYTES_PER_INODE),
                 '-E', f'root_owner={owner}:{owner},lazy_itable_init=1',
                 image)
    except FileNotFoundError:
        raise exception.HostUnsupported(
            'mke2fs is not installed: install the package e2fsprogs')
    except OSError as e:
        raise exception.NoSpace(
            f'making the disk {image} of {size} bytes failed: {e.strerror}')
    finally:
        os.close(fd)


def grow(image: str, size: int) -> None:
    """Make an image that is not mounted larger; may be repeated if killed.

    The kernel would do it while mounted, but only for CAP_SYS_RESOURCE.
    """
    fd = _open(image)
    try:
        _undo(fd, image)
        os.ftruncate(fd, size)
        _check(fd, image)
        _command(fd, 'resize2fs', '-z', _undo_file(image), image)
        os.unlink(_undo_file(image))
    finally:
        os.close(fd)


def _undo_file(image: str) -> str:
    return f'{image}.undo'


def _undo(fd: int, image: str) -> None:
    """Take back a ``grow`` that was killed."""
    undo = _undo_file(image)
    if os.path.exists(undo):
        # It refuses a file that was cut before anything was changed.
        _command(fd, 'e2undo', '-f', undo, image, codes=(0, 1))
        _check(fd, image)
        os.unlink(undo)


def _check(fd: int, image: str) -> None:
    # 1: it has repaired something.
    _command(fd, 'e2fsck', '-f', '-p', image, codes=(0, 1))


def attach(image: int, block: int, flags: int,
           offset: int = 0) -> tuple[int, str]:
    """A loop device over an image: its descriptor and its path.

    :param image: descriptor, open for writing unless FLAG_READ_ONLY is set
    :param block: bytes of a block
    :param flags: FLAG_* besides direct I/O
    :param offset: bytes of the image that are left out
    :raises HostUnsupported: the host has no loop devices
    """
    config = _LOOP_CONFIG.pack(image, block, offset, flags | _FLAG_DIRECT_IO)
    try:
        control = os.open('/dev/loop-control', os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        raise exception.HostUnsupported(
            f'opening /dev/loop-control failed: {e.strerror}; load the '
            'module loop, or put [container] state_path on a file system '
            'with project quotas')
    try:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            path = f'/dev/loop{number}'
            with contextlib.ExitStack() as undo:
                try:
                    device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                    undo.callback(os.close, device)
                    fcntl.ioctl(device, _LOOP_CONFIGURE, config)
                except OSError as e:
                    # Another process was faster, or it is being taken down.
                    if e.errno not in (errno.EBUSY, errno.ENXIO):
                        raise
                    continue
                if not flags & FLAG_READ_ONLY:
                    # It may have been made so for who had the number before.
                    fcntl.ioctl(device, _BLKROSET, struct.pack('i', 0))
                undo.pop_all()
                return device, path
    finally:
        os.close(control)
    raise exception.HostUnsupported('no loop device could be had: other '
                                    'processes took each that was free')


def mount(image: str, target: str, options: str = '') -> None:
    """Mount an image.

    :param options: more of mount(8), with a comma before them
    """
    fd = _open(image)
    try:
        _undo(fd, image)
        device, path = attach(fd, _BLOCK, FLAG_AUTOCLEAR)
        try:
            linux.mount(path, target, 'ext4', linux.MS_NODEV,
                        _OPTIONS + options)
        finally:
            os.close(device)
    finally:
        os.close(fd)


def detach(device: int) -> None:
    """Take a loop device down with its last user: LOOP_CLR_FD."""
    fcntl.ioctl(device, _LOOP_CLR_FD)


def take_down(path: str) -> bool:
    """Take a loop device down.

    :returns: False if somebody still uses it; then it goes with him
    """
    before = _bound(path)
    if before is not None:
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            detach(device)
        except OSError as e:
            # Somebody was the last to use it after it was taken down before.
            if e.errno != errno.ENXIO:
                raise
        finally:
            os.close(device)
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while before is not None and _bound(path) == before:
        if time.monotonic() > deadline:
            return False
        time.sleep(_BUSY_PAUSE)
    return True


def _bound(path: str) -> tuple[int, int, int] | None:
    """What a loop device is over; None for nothing."""
    try:
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _status(device)
        finally:
            os.close(device)
    except OSError as e:
        # It is free, or being taken down.
        if e.errno != errno.ENXIO:
            raise
        return None


def _status(device: int) -> tuple[int, int, int]:
    """Of what a loop device is over: st_dev, st_ino, st_rdev.

    Names tell nothing: another mount namespace may have the same.
    """
    # struct loop_info64.
    buffer = bytearray(232)
    fcntl.ioctl(device, _LOOP_GET_STATUS64, buffer)
    return struct.unpack_from('QQQ', buffer)


def holds(device: int, image: str) -> bool:
    """Whether a loop device is over this very file."""
    try:
        status = os.stat(image)
        return _status(device)[:2] == (status.st_dev, status.st_ino)
    except OSError:
        return False


def over(number: int) -> bool:
    """Whether a loop device is over a block device.

    :param number: of the block device (stat(2))
    """
    for entry in glob.glob('/sys/block/loop*/loop'):
        path = f'/dev/{os.path.basename(os.path.dirname(entry))}'
        try:
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if _status(device)[2] == number:
                return True
        except OSError:
            # It has just gone.
            continue
        finally:
            os.close(device)
    return False


def take_size(device: int) -> None:
    """Have a loop device as large as its image has become."""
    fcntl.ioctl(device, _LOOP_SET_CAPACITY)


def used(image: str) -> int:
    """Bytes that an image occupies on the host."""
    return os.stat(image).st_blocks * 512


def is_loop(device: int) -> bool:
    """Whether a device number (stat(2)) is that of a loop device."""
    return os.major(device) == _MAJOR
