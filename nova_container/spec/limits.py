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

from nova_container import exception

# Period of the CPU quota, microseconds (the kernel's default).
CPU_PERIOD = 100000


@dataclasses.dataclass(frozen=True)
class Limits:
    """Control group limits. None leaves the kernel's default.

    :param cpu_quota: microseconds of CPU time per ``cpu_period``
    :param cpu_period: microseconds, 1000..1000000
    :param cpu_shares: relative weight, 2..262144 (the cgroup v1 scale)
    :param memory: bytes
    :param swap: bytes of swap beyond ``memory``
    :param pids: processes and threads
    :param open_files: RLIMIT_NOFILE of the container's first process
    """

    cpu_quota: int | None = None
    cpu_period: int = CPU_PERIOD
    cpu_shares: int | None = None
    memory: int | None = None
    swap: int = 0
    pids: int | None = None
    open_files: int | None = None

    def __post_init__(self):
        for name, low, high in (('cpu_quota', 1000, 1 << 40),
                                ('cpu_period', 1000, 1000000),
                                ('cpu_shares', 2, 262144),
                                ('memory', 4 << 20, 1 << 50),
                                ('swap', 0, 1 << 50),
                                ('pids', 1, 4194304),
                                ('open_files', 16, 1 << 30)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise exception.InvalidSpec(
                    f'limit {name}={value} is not in {low}..{high}')
