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

"""What a container uses, in numbers.

Read from the files of its control group and of its network namespace, without
a process and without root. Only a project quota's use is asked of the
privileged helper.
"""

import dataclasses
import errno
import os
import re
import time

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import disk
from nova_container.privileged import loop
from nova_container.privileged import place
from nova_container.privileged import process
from nova_container.runtime import state

_NS_PER_US = 1000

# cgroup v1 says "unlimited" with the largest number of pages.
_UNLIMITED = 1 << 60


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes.

    :param used: all that counts against the limit, with the page cache
    :param cache: of it, the page cache, which goes when memory is short
    :param swap: swap space, beyond ``used``
    :param limit: None for none
    """

    used: int
    cache: int
    swap: int
    limit: int | None


@dataclasses.dataclass(frozen=True)
class BlockIO:
    """Since the container started, over all disks."""

    read_bytes: int = 0
    read_operations: int = 0
    write_bytes: int = 0
    write_operations: int = 0


@dataclasses.dataclass(frozen=True)
class Interface:
    """A network interface as the container has it, since it was plugged.

    :param name: eth0, ...
    :param rx_bytes: received; likewise packets, errors and drops
    :param tx_bytes: sent; likewise
    :param index: its number in the container, which ``link.inside`` has, too;
        None while it is down
    """

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int
    index: int | None = None


@dataclasses.dataclass(frozen=True)
class Stats:
    """A running container's use of its host.

    :param cpu: nanoseconds of processor time since it started
    :param cpu_throttled: nanoseconds that it has waited for its CPU quota
    :param uptime: seconds since its first process was made
    :param pids: processes and threads now
    :param pids_limit: None for none
    :param oom_kills: processes ended for want of memory since it started
    :param disk_used: bytes of the writable layer; None where it has no limit
    """

    cpu: int
    cpu_throttled: int
    uptime: float
    memory: Memory
    block_io: BlockIO
    network: tuple[Interface, ...]
    pids: int
    pids_limit: int | None
    oom_kills: int
    disk_used: int | None


def _words(path: str) -> dict[str, int]:
    """A file of lines ``word number``.

    :raises ProcessLookupError: the container has ended and is gone
    """
    content = cgroup.read(path)
    if content is None:
        raise ProcessLookupError(path)
    return {word: int(number) for word, _, number in (
        line.partition(' ') for line in content.splitlines())}


def _number(path: str) -> int | None:
    """A file of one number, or of ``max``; None also when it is missing."""
    content = cgroup.read(path)
    if content is None:
        return None
    word = content.strip()
    if word == 'max' or int(word) >= _UNLIMITED:
        return None
    return int(word)


def _cpu(group: str) -> tuple[int, int]:
    if cgroup.unified():
        found = _words(f'{cgroup.ROOT}{group}/cpu.stat')
        return (found['usage_usec'] * _NS_PER_US,
                found.get('throttled_usec', 0) * _NS_PER_US)
    return (_number(f'{cgroup.ROOT}/cpuacct{group}/cpuacct.usage') or 0,
            _words(f'{cgroup.ROOT}/cpu{group}/cpu.stat')['throttled_time'])


def _memory(group: str) -> Memory:
    if cgroup.unified():
        path = f'{cgroup.ROOT}{group}/memory.'
        return Memory(_number(f'{path}current') or 0,
                      _words(f'{path}stat')['file'],
                      _number(f'{path}swap.current') or 0,
                      _number(f'{path}max'))
    path = f'{cgroup.ROOT}/memory{group}/memory.'
    found = _words(f'{path}stat')
    return Memory(_number(f'{path}usage_in_bytes') or 0, found['total_cache'],
                  found.get('total_swap', 0),
                  _number(f'{path}limit_in_bytes'))


def _is_loop(name: str) -> bool:
    """What goes through a loop device is counted at the disk below, too."""
    return loop.is_loop(os.makedev(*map(int, name.split(':'))))


def _block_io(group: str) -> BlockIO:
    if cgroup.unified():
        return _block_io_v2(f'{cgroup.ROOT}{group}/io.stat')
    fields = {}
    for name, file in (('bytes', 'io_service_bytes'),
                       ('operations', 'io_serviced')):
        count = {'Read': 0, 'Write': 0}
        path = f'{cgroup.ROOT}/blkio{group}/blkio.throttle.{file}_recursive'
        for device, kind, number in re.findall(
                r'^(\d+:\d+) (\w+) (\d+)$', cgroup.read(path) or '', re.M):
            if kind in count and not _is_loop(device):
                count[kind] += int(number)
        fields[f'read_{name}'] = count['Read']
        fields[f'write_{name}'] = count['Write']
    return BlockIO(**fields)


def _block_io_v2(path: str) -> BlockIO:
    count = {'rbytes': 0, 'rios': 0, 'wbytes': 0, 'wios': 0}
    for line in (cgroup.read(path) or '').splitlines():
        device, *pairs = line.split()
        if not _is_loop(device):
            for key, _, number in (pair.partition('=') for pair in pairs):
                if key in count:
                    count[key] += int(number)
    return BlockIO(count['rbytes'], count['rios'], count['wbytes'],
                   count['wios'])


def _lines(path: str) -> list[str]:
    """Of a file about a process's network namespace.

    :raises ProcessLookupError: the process has ended
    """
    try:
        # A container may give an interface of its own a name of any bytes.
        with open(path, errors='backslashreplace') as file:
            return file.readlines()
    except OSError as e:
        # The network namespace is just going.
        if e.errno != errno.ENXIO:
            raise
        raise ProcessLookupError(e.errno, 'it has ended', path)


def _network(pid: int) -> tuple[Interface, ...]:
    """From proc(5), /proc/pid/net/dev; the loopback is left out.

    :raises ProcessLookupError: the process has ended
    """
    directory = f'{process.directory(pid)}/net'
    indices = {name: int(index) for index, name, *_ in map(
        str.split, _lines(f'{directory}/dev_mcast'))}
    found = []
    for line in _lines(f'{directory}/dev'):
        name, colon, rest = line.partition(':')
        if colon and name.strip() != 'lo':
            numbers = [int(word) for word in rest.split()]
            card = Interface(name.strip(), *numbers[:4], *numbers[8:12])
            found.append(dataclasses.replace(
                card, index=indices.get(card.name)))
    return tuple(found)


def _pids(group: str) -> tuple[int, int | None]:
    path = f'{cgroup.ROOT}{"" if cgroup.unified() else "/pids"}{group}/pids.'
    return _number(f'{path}current') or 0, _number(f'{path}max')


def disk_used(container_id: str) -> int | None:
    """Bytes of the writable layer; None where it has no limit.

    :raises ContainerNotFound: it is not defined on this host
    """
    try:
        return loop.used(place.container_state(container_id, 'root.img'))
    except FileNotFoundError:
        return disk.used(container_id)


def read(container_id: str) -> Stats:
    """What a container that is created or runs uses.

    :raises ContainerNotFound: it is not defined on this host
    :raises StateConflict: it does not run
    """
    found = state.read(container_id).process
    group = place.cgroup(container_id)
    try:
        if found is None or not process.alive(found):
            raise ProcessLookupError
        cpu, throttled = _cpu(group)
        pids, pids_limit = _pids(group)
        ticks = os.sysconf('SC_CLK_TCK')
        return Stats(
            cpu=cpu, cpu_throttled=throttled,
            uptime=time.clock_gettime(time.CLOCK_BOOTTIME)
            - found.started / ticks,
            memory=_memory(group), block_io=_block_io(group),
            network=_network(found.pid), pids=pids, pids_limit=pids_limit,
            oom_kills=cgroup.oom_kills(container_id),
            disk_used=disk_used(container_id))
    except (FileNotFoundError, ProcessLookupError):
        raise exception.StateConflict(
            f'container {container_id} is not running')
