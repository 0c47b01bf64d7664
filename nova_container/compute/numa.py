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

"""Processors and memory by NUMA node, and which of them a server gets.

[compute] cpu_shared_set and cpu_dedicated_set mean what they mean to the
libvirt driver. Which processors a server with ``hw:cpu_policy=dedicated`` or
``hw:numa_nodes`` gets is Nova's decision; it is in the server's
``numa_topology``.
"""

import dataclasses
import pathlib
import re

from nova import exception as nova_exception
from nova import objects
from nova.virt import hardware
import psutil

_NODES = pathlib.Path('/sys/devices/system/node')
_PROCESSORS = pathlib.Path('/sys/devices/system/cpu')

_KIB_PER_MIB = 1 << 10
_PAGE_KIB = 4


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a container runs; None for all of the host.

    :param cpuset: processors, in the kernel's list format
    :param memory_nodes: NUMA nodes, likewise
    :param dedicated: the processors are its own
    """

    cpuset: str | None = None
    memory_nodes: str | None = None
    dedicated: bool = False


def online() -> set[int]:
    """Processors of the host."""
    return hardware.parse_cpu_spec(
        (_PROCESSORS / 'online').read_text().strip())


def dedicated() -> set[int]:
    """Processors of which each is one server's ([compute] cpu_dedicated_set).

    :raises Invalid: one of them is not there, or shared as well
    """
    return _checked('cpu_dedicated_set',
                    hardware.get_cpu_dedicated_set() or set())


def shared() -> set[int]:
    """Processors for all other servers ([compute] cpu_shared_set).

    :raises Invalid: one of them is not there, or dedicated as well
    """
    given = hardware.get_cpu_shared_set()
    if given is None:
        return set() if hardware.get_cpu_dedicated_set() else online()
    return _checked('cpu_shared_set', given)


def _checked(option: str, given: set[int]) -> set[int]:
    both = (hardware.get_cpu_dedicated_set() or set()) & (
        hardware.get_cpu_shared_set() or set())
    wrong = both or given - online()
    if wrong:
        raise nova_exception.Invalid(
            f'[compute] {option}: processors '
            f'{hardware.format_cpu_spec(wrong)} are '
            + ('in cpu_shared_set and in cpu_dedicated_set' if both
               else 'not online'))
    return given


def topology() -> 'objects.NUMATopology':
    """The host's, as Nova's scheduler and claims have it."""
    return objects.NUMATopology(cells=[
        objects.NUMACell(
            id=number, cpuset=cpus & shared(), pcpuset=cpus & dedicated(),
            memory=memory // _KIB_PER_MIB, cpu_usage=0, memory_usage=0,
            pinned_cpus=set(), siblings=_siblings(cpus),
            mempages=[objects.NUMAPagesTopology(
                size_kb=_PAGE_KIB, total=memory // _PAGE_KIB, used=0)],
            network_metadata=objects.NetworkMetadata(
                physnets=set(), is_tunneled=False),
            socket=None)
        for number, cpus, memory in _nodes()])


def _nodes() -> list[tuple[int, set[int], int]]:
    """Number, processors and memory, KiB, of each node."""
    found = []
    for path in sorted(_NODES.glob('node[0-9]*'),
                       key=lambda path: int(path.name[4:])):
        memory = re.search(r'MemTotal:\s+(\d+) kB',
                           (path / 'meminfo').read_text())
        cpus = (path / 'cpulist').read_text().strip()
        if memory and cpus:
            found.append((int(path.name[4:]),
                          hardware.parse_cpu_spec(cpus) & online(),
                          int(memory[1])))
    if len(found) > 1:
        return found
    # A kernel without NUMA has one node that it does not show; that of a
    # virtual machine can forget memory that was taken away and given back.
    number = found[0][0] if found else 0
    return [(number, online(), psutil.virtual_memory().total >> 10)]


def _siblings(cpus: set[int]) -> list[set[int]]:
    """The processors of each core."""
    cores = {frozenset(hardware.parse_cpu_spec(
        (_PROCESSORS / f'cpu{cpu}/topology/thread_siblings_list')
        .read_text().strip())) for cpu in cpus}
    return [set(core) for core in sorted(cores, key=min)]


def has_threads() -> bool:
    """Whether a core has more than one processor."""
    return any(len(core) > 1 for core in _siblings(online()))


def place(instance) -> Place:
    """Where a server runs.

    :param instance: nova.objects.Instance
    """
    wanted = instance.numa_topology
    if wanted is None or not wanted.cells:
        given = hardware.get_cpu_shared_set()
        return Place(given and hardware.format_cpu_spec(given))
    cells = {cell.id: cell for cell in topology().cells}
    cpus = set()
    for cell in wanted.cells:
        cpus |= set((cell.cpu_pinning or {}).values())
        if cell.cpuset and cell.id in cells:
            cpus |= cells[cell.id].cpuset
    return Place(hardware.format_cpu_spec(cpus),
                 ','.join(str(cell.id) for cell in wanted.cells),
                 not any(cell.cpuset for cell in wanted.cells))
