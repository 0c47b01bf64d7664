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

"""A container's numbers as Nova's diagnostics.

The units are Nova's: nova.objects.diagnostics (memory in MiB, processor time
in nanoseconds) and, before microversion 2.48, what the libvirt driver has
(memory in KiB).
"""

from nova.objects import diagnostics

from nova_container.compute import inventory
from nova_container.privileged import link
from nova_container.runtime import stats

_KIB = 1 << 10
_MIB = 1 << 20


def standard(instance, state: str,
             found: stats.Stats) -> diagnostics.Diagnostics:
    """For microversion 2.48 and later.

    ``driver`` stays unset: Nova's field knows only drivers of its own.

    :param instance: nova.objects.Instance
    :param state: name of the power state
    """
    limit = found.memory.limit
    result = diagnostics.Diagnostics(
        state=state, hypervisor=inventory.HYPERVISOR, hypervisor_os='linux',
        uptime=int(found.uptime), config_drive=bool(instance.config_drive))
    result.memory_details = diagnostics.MemoryDiagnostics(
        maximum=instance.flavor.memory_mb if limit is None
        else limit // _MIB,
        used=found.memory.used // _MIB)
    # The kernel counts the time of a group, not of each processor.
    result.add_cpu(id=0, time=found.cpu)
    # By number: interfaces that came or went meanwhile have other names than
    # the order of the ports gives.
    macs = {link.inside(vif['devname']): vif['address']
            for vif in instance.get_network_info() if vif['devname']}
    macs.pop(None, None)
    for nic in found.network:
        result.add_nic(
            mac_address=macs.get(nic.index),
            rx_octets=nic.rx_bytes, rx_packets=nic.rx_packets,
            rx_errors=nic.rx_errors, rx_drop=nic.rx_dropped,
            tx_octets=nic.tx_bytes, tx_packets=nic.tx_packets,
            tx_errors=nic.tx_errors, tx_drop=nic.tx_dropped)
    result.add_disk(
        read_bytes=found.block_io.read_bytes,
        read_requests=found.block_io.read_operations,
        write_bytes=found.block_io.write_bytes,
        write_requests=found.block_io.write_operations)
    return result


def plain(found: stats.Stats) -> dict[str, int]:
    """For microversions before 2.48, by the libvirt driver's names."""
    numbers = {
        'cpu0_time': found.cpu,
        'memory': (found.memory.limit or 0) // _KIB,
        'memory-actual': found.memory.used // _KIB,
        'memory-cache': found.memory.cache // _KIB,
        'memory-swap': found.memory.swap // _KIB,
        'root_read': found.block_io.read_bytes,
        'root_read_req': found.block_io.read_operations,
        'root_write': found.block_io.write_bytes,
        'root_write_req': found.block_io.write_operations,
        'pids': found.pids,
        'oom-kills': found.oom_kills,
    }
    if found.disk_used is not None:
        numbers['root_used'] = found.disk_used
    for nic in found.network:
        for name in ('rx', 'tx'):
            numbers[f'{nic.name}_{name}'] = getattr(nic, f'{name}_bytes')
            for kind, word in (('packets', 'packets'), ('errors', 'errors'),
                               ('dropped', 'drop')):
                numbers[f'{nic.name}_{name}_{word}'] = getattr(
                    nic, f'{name}_{kind}')
    return numbers
