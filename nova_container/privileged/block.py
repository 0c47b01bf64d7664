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

"""Rates of block devices: which devices they are, and the limits on them.

On cgroup v2 a container's writes count as its own, also those that the kernel
writes back later. On v1 such writes are the root group's. Where the writable
layer is a loop device, nobody else's writes go there, so the limit is put on
the device in the root group too; where it is not, v1 limits direct writes and
reads only.

Kernel documentation: admin-guide/cgroup-v1/blkio-controller.rst,
admin-guide/cgroup-v2.rst (io.max).
"""

import errno
import os

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import loop
from nova_container.privileged import place
from nova_container.spec import limits

# Limit, cgroup v1's file, cgroup v2's key.
_KINDS = (
    ('disk_read_bytes', 'blkio.throttle.read_bps_device', 'rbps'),
    ('disk_read_operations', 'blkio.throttle.read_iops_device', 'riops'),
    ('disk_write_bytes', 'blkio.throttle.write_bps_device', 'wbps'),
    ('disk_write_operations', 'blkio.throttle.write_iops_device', 'wiops'),
)

_NO_LIMITS = limits.Limits()


def _asked(wish: limits.Limits) -> bool:
    return any(getattr(wish, name) is not None for name, _, _ in _KINDS)


def device(path: str) -> int | None:
    """Number of the whole disk that holds ``path``; None when there is none.

    The limits are those of a disk, not of a partition. File systems of several
    disks, as btrfs, have a number of their own and name a disk in mountinfo.
    """
    own = os.stat(path).st_dev
    number = own if os.major(own) else _source(path)
    if number is None:
        return None
    entry = os.path.realpath(
        f'/sys/dev/block/{os.major(number)}:{os.minor(number)}')
    if os.path.exists(os.path.join(entry, 'partition')):
        with open(os.path.join(os.path.dirname(entry), 'dev')) as file:
            number = os.makedev(*map(int, file.read().split(':')))
    return number if os.path.exists(entry) else None


def _source(path: str) -> int | None:
    mounts = {}
    for line in open('/proc/thread-self/mountinfo'):
        own, _, kind = line.partition(' - ')
        mounts[own.split()[4]] = kind.split()[1]
    path = os.path.realpath(path)
    while path not in mounts:
        path = os.path.dirname(path)
    try:
        return os.stat(mounts[path]).st_rdev or None
    except OSError:
        return None


def throttle(container_id: str, paths: set[str],
             wish: limits.Limits) -> None:
    """Limit the disks that hold ``paths``, for one container.

    :param paths: of directories, in the caller's mount namespace
    :raises HostUnsupported: the kernel cannot do it for these disks
    """
    found = {device(path) for path in paths}
    devices = {number for number in found if number is not None}
    # Only what is limited already needs to be told.
    if _asked(wish) and None in found:
        raise exception.HostUnsupported(
            f'container {container_id}: rates of disk are limited by the '
            f'flavor, and {place.state()} is not on a block device')
    for number in devices:
        _limit(place.cgroup(container_id), number, wish)
        if loop.is_loop(number) and not cgroup.unified():
            _limit('', number, wish)


def release(container_id: str, paths: set[str]) -> None:
    """Drop what ``throttle`` has set, also outside the container's own group.

    What is still to be written, when a container ends, shall not wait for its
    turn, and its loop device may become another's.
    """
    throttle(container_id, paths, _NO_LIMITS)


def lift(container_id: str) -> None:
    """Take a container's own rates away, before its group goes.

    With version 2 what is still to be written is held to them even then.
    """
    path = f'{cgroup.ROOT}{place.cgroup(container_id)}/io.max'
    for line in (cgroup.read(path) or '').splitlines():
        cgroup.write(path, f'{line.split()[0]} rbps=max wbps=max riops=max '
                     'wiops=max')


def _limit(group: str, number: int, wish: limits.Limits) -> None:
    name = f'{os.major(number)}:{os.minor(number)}'
    if cgroup.unified():
        words = ' '.join(f'{key}={getattr(wish, limit) or "max"}'
                         for limit, _, key in _KINDS)
        _write(f'{cgroup.ROOT}{group}/io.max', f'{name} {words}', wish)
        return
    for limit, file, _ in _KINDS:
        _write(f'{cgroup.ROOT}/blkio{group}/{file}',
               f'{name} {getattr(wish, limit) or 0}', wish)


def _write(path: str, line: str, wish: limits.Limits) -> None:
    try:
        with open(path, 'w') as file:
            file.write(line)
    except OSError as e:
        if not _asked(wish) and e.errno in (errno.ENOENT, errno.ENODEV):
            # Nothing there that could hold a limit.
            return
        raise exception.HostUnsupported(
            f'limiting the rates of disk failed: {path} ({line}): '
            f'{e.strerror}; see that the kernel has '
            'CONFIG_BLK_DEV_THROTTLING')
