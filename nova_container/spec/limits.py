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

"""What a container may use of its host."""

import dataclasses
import re

from nova_container import exception

# Period of the CPU quota, microseconds (the kernel's default).
CPU_PERIOD = 100000


# The list format of cpuset(7).
_CPUSET = re.compile(r'^\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*$')


def _check(value: object, bounds: dict[str, tuple[int, int]],
           what: str) -> None:
    for name, (low, high) in bounds.items():
        number = getattr(value, name)
        if number is not None and not low <= number <= high:
            raise exception.InvalidSpec(
                f'{what} {name}={number} is not in {low}..{high}')


@dataclasses.dataclass(frozen=True)
class Bandwidth:
    """A token bucket for one direction of a network interface.

    :param average: bytes per second
    :param peak: bytes per second while a burst lasts; None for no bound
    :param burst: bytes that may pass before ``average`` holds
    """

    average: int
    peak: int | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        _check(self, {'average': (1000, 1 << 40), 'peak': (1000, 1 << 40),
                      'burst': (1024, 1 << 31)}, 'bandwidth')
        if self.peak is not None and self.peak < self.average:
            raise exception.InvalidSpec(
                f'bandwidth peak={self.peak} is less than '
                f'average={self.average}')


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a container may use at most. None leaves the kernel's default.

    :param cpu_quota: microseconds of CPU time per ``cpu_period``
    :param cpu_period: microseconds, 1000..1000000
    :param cpu_shares: relative weight, 2..262144 (the cgroup v1 scale)
    :param cpuset: processors of the host, as in ``0-3,8``
    :param memory_nodes: NUMA nodes of the host, likewise
    :param memory: bytes
    :param swap: bytes of swap beyond ``memory``
    :param pids: processes and threads
    :param open_files: RLIMIT_NOFILE of the container's first process
    :param disk_read_bytes: per second, of each block device
    :param disk_read_operations: per second, of each block device
    :param disk_write_bytes: per second, of each block device
    :param disk_write_operations: per second, of each block device
    :param network_in: towards the container, for each interface
    :param network_out: from the container, for each interface
    """

    cpu_quota: int | None = None
    cpu_period: int = CPU_PERIOD
    cpu_shares: int | None = None
    cpuset: str | None = None
    memory_nodes: str | None = None
    memory: int | None = None
    swap: int = 0
    pids: int | None = None
    open_files: int | None = None
    disk_read_bytes: int | None = None
    disk_read_operations: int | None = None
    disk_write_bytes: int | None = None
    disk_write_operations: int | None = None
    network_in: Bandwidth | None = None
    network_out: Bandwidth | None = None

    def __post_init__(self) -> None:
        rate = (1, 1 << 50)
        _check(self, {'cpu_quota': (1000, 1 << 40),
                      'cpu_period': (1000, 1000000),
                      'cpu_shares': (2, 262144),
                      'memory': (4 << 20, 1 << 50),
                      'swap': (0, 1 << 50),
                      'pids': (1, 4194304),
                      'open_files': (16, 1 << 30),
                      'disk_read_bytes': rate,
                      'disk_read_operations': (1, (1 << 32) - 1),
                      'disk_write_bytes': rate,
                      'disk_write_operations': (1, (1 << 32) - 1)}, 'limit')
        for name in ('cpuset', 'memory_nodes'):
            value = getattr(self, name)
            if value is not None and not _CPUSET.match(value):
                raise exception.InvalidSpec(
                    f'limit {name}={value!r} is not a list of numbers')
