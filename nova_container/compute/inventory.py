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

"""What this host offers: resources, inventory, traits."""

import functools
import json
import os
import re
import subprocess

from nova.objects import fields
import os_resource_classes as orc
import os_traits
from oslo_config import cfg
from oslo_utils import versionutils
import psutil

from nova_container.compute import numa
from nova_container.privileged import oci_runtime

CONF = cfg.CONF

_MIB = 1 << 20
_GIB = 1 << 30
_NS_PER_S = 10 ** 9


# What os-traits calls other than the kernel does.
_FLAGS = {
    'aes': 'AESNI', 'bmi1': 'BMI', 'fma': 'FMA3', 'pclmulqdq': 'CLMUL',
    'pni': 'SSE3', 'sha_ni': 'SHA', 'sse4_1': 'SSE41', 'sse4_2': 'SSE42',
    'amx_bf16': 'AMXBF16', 'amx_int8': 'AMXINT8', 'amx_tile': 'AMXTILE',
    'avx512_bitalg': 'AVX512BITALG', 'avx512_vbmi2': 'AVX512VBMI2',
    'avx512_vnni': 'AVX512VNNI', 'avx512_vpopcntdq': 'AVX512VPOPCNTDQ',
    'gfni': 'AVX512GFNI', 'vaes': 'AVX512VAES',
    'vpclmulqdq': 'AVX512VPCLMULQDQ',
}

# What images call it (img_hv_type).
HYPERVISOR = fields.HVType.DOCKER


def architecture() -> str:
    """The host's, by Nova's name for it."""
    return fields.Architecture.canonicalize(os.uname().machine)


@functools.cache
def _runtime_version() -> int:
    """Version of the OCI runtime as Nova's integer, 1.1.5 -> 1001005."""
    done = subprocess.run([oci_runtime.runtime(), '--version'], text=True,
                          capture_output=True, check=True)
    found = re.search(r'version (\d+\.\d+(\.\d+)?)', done.stdout)
    return versionutils.convert_version_to_int(found[1]) if found else 0


def cpu_times() -> dict[str, int]:
    """As nova.virt.driver.ComputeDriver.get_host_cpu_stats has it:
    nanoseconds since the host booted, and MHz.
    """
    times = psutil.cpu_times()
    frequency = psutil.cpu_freq()
    return {'kernel': int((times.system + times.irq + times.softirq)
                          * _NS_PER_S),
            'idle': int(times.idle * _NS_PER_S),
            'user': int((times.user + times.nice) * _NS_PER_S),
            'iowait': int(times.iowait * _NS_PER_S),
            'frequency': int(frequency.current) if frequency else 0}


def disk() -> tuple[int, int]:
    """Size and use of the file system of ``state_path``, GiB."""
    usage = psutil.disk_usage(CONF.container.state_path)
    return usage.total // _GIB, usage.used // _GIB


def resources(nodename: str) -> dict[str, object]:
    """As nova.virt.driver.ComputeDriver.get_available_resource has it."""
    memory = psutil.virtual_memory()
    total, used = disk()
    arch = architecture()
    return {
        'vcpus': len(numa.shared()),
        'memory_mb': memory.total // _MIB,
        'local_gb': total,
        'vcpus_used': 0,
        'memory_mb_used': (memory.total - memory.available) // _MIB,
        'local_gb_used': used,
        'hypervisor_type': HYPERVISOR,
        'hypervisor_version': _runtime_version(),
        'hypervisor_hostname': nodename,
        'cpu_info': json.dumps({'arch': arch}),
        'disk_available_least': total - used,
        'supported_instances': [
            (arch, kind, fields.VMMode.EXE)
            for kind in (HYPERVISOR, fields.HVType.LXC)],
        'numa_topology': numa.topology()._to_json(),
    }


def inventory(ratios: dict[str, float],
              reserved_disk: int) -> dict[str, dict[str, object]]:
    """Inventory of the compute node's resource provider.

    :param ratios: allocation ratio of each resource class
    :param reserved_disk: GiB
    """
    def item(resource_class, total, reserved):
        return {'total': total, 'reserved': min(reserved, total),
                'min_unit': 1, 'max_unit': total, 'step_size': 1,
                # A processor of one's own is never given twice.
                'allocation_ratio': ratios.get(resource_class, 1.0)}

    memory = psutil.virtual_memory().total // _MIB
    found = {
        orc.VCPU: item(orc.VCPU, len(numa.shared()), CONF.reserved_host_cpus),
        orc.PCPU: item(orc.PCPU, len(numa.dedicated()), 0),
        orc.MEMORY_MB: item(orc.MEMORY_MB, memory,
                            CONF.reserved_host_memory_mb),
        orc.DISK_GB: item(orc.DISK_GB, disk()[0], reserved_disk),
    }
    return {name: entry for name, entry in found.items() if entry['total']}


def traits() -> dict[str, bool]:
    """Traits beyond those that Nova derives from the capabilities, and
    whether the host has each.
    """
    names = {f'HW_ARCH_{architecture().upper()}'}
    names.update(f'HW_CPU_X86_{_FLAGS.get(flag, flag).upper()}'
                 for flag in _flags())
    # By this Nova's scheduler decides about hw:cpu_thread_policy.
    return {os_traits.HW_CPU_HYPERTHREADING: numa.has_threads(),
            **dict.fromkeys(names & set(os_traits.get_traits()), True)}


@functools.cache
def _flags() -> frozenset[str]:
    """What the processors can do, by the kernel's names (proc(5), cpuinfo).
    """
    with open('/proc/cpuinfo') as file:
        found = re.search(r'^flags\s*:(.*)$', file.read(), re.M)
    return frozenset(found[1].split() if found else ())
