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

"""A flavor as limits and disks.

Extra specs have the names and units of the libvirt driver's, so that a flavor
means the same on both kinds of host.
"""

from nova_container.compute import numa
from nova_container import exception
from nova_container.spec import disk
from nova_container.spec import limits

_MIB = 1 << 20
_GIB = 1 << 30

# cgroup v1's scale, on which an ordinary process has 1024.
_SHARES_PER_VCPU = 1024
_SHARES_MAX = 262144

# tc(8)'s kbps and kb, in which libvirt gives the kernel its rates and bursts.
_KILOBYTES_PER_SECOND = 1000
_KILOBYTES = 1024

# A container's reads and writes are limited each; the kernel has no limit on
# their sum.
_REFUSED = ('quota:disk_total_bytes_sec', 'quota:disk_total_iops_sec')


def _number(extra_specs: dict[str, str], key: str) -> int | None:
    """0 is for "not set", as it is to libvirt."""
    value = extra_specs.get(key)
    if value is None:
        return None
    try:
        return int(value) or None
    except ValueError:
        raise exception.InvalidSpec(
            f'flavor extra spec {key}={value!r} is not a number')


def _bandwidth(extra_specs: dict[str, str],
               direction: str) -> limits.Bandwidth | None:
    average, peak, burst = (
        _number(extra_specs, f'quota:vif_{direction}_{kind}')
        for kind in ('average', 'peak', 'burst'))
    if average is None:
        if peak is not None or burst is not None:
            raise exception.InvalidSpec(
                f'flavor extra specs quota:vif_{direction}_peak and _burst '
                f'need quota:vif_{direction}_average')
        return None
    return limits.Bandwidth(
        average=average * _KILOBYTES_PER_SECOND,
        peak=peak and peak * _KILOBYTES_PER_SECOND,
        burst=burst and burst * _KILOBYTES)


def resources(flavor, pids_limit: int,
              where: numa.Place = numa.Place()) -> limits.Limits:
    """Limits of a flavor.

    vCPUs are a CPU quota of as many processors, unless ``quota:cpu_quota``
    and ``quota:cpu_period`` say otherwise, for each vCPU; a negative quota is
    for none.

    :param flavor: nova.objects.Flavor
    :param pids_limit: where the flavor has no ``container:pids_limit``
    :param where: on the host; processors of its own need no quota
    :raises InvalidSpec: an extra spec makes no sense
    """
    specs = flavor.extra_specs
    for key in _REFUSED:
        if _number(specs, key):
            raise exception.InvalidSpec(
                f'flavor extra spec {key} is not supported by the container '
                f'driver; use {key.replace("total", "read")} and '
                f'{key.replace("total", "write")}')
    period = _number(specs, 'quota:cpu_period') or limits.CPU_PERIOD
    quota = (_number(specs, 'quota:cpu_quota')
             or (-1 if where.dedicated else period))
    return limits.Limits(
        cpu_quota=flavor.vcpus * quota if quota > 0 else None,
        cpu_period=period,
        cpu_shares=(_number(specs, 'quota:cpu_shares')
                    or min(flavor.vcpus * _SHARES_PER_VCPU, _SHARES_MAX)),
        cpuset=where.cpuset,
        memory_nodes=where.memory_nodes,
        memory=flavor.memory_mb * _MIB,
        swap=(flavor.swap or 0) * _MIB,
        pids=_number(specs, 'container:pids_limit') or pids_limit,
        open_files=_number(specs, 'container:open_files'),
        disk_read_bytes=_number(specs, 'quota:disk_read_bytes_sec'),
        disk_read_operations=_number(specs, 'quota:disk_read_iops_sec'),
        disk_write_bytes=_number(specs, 'quota:disk_write_bytes_sec'),
        disk_write_operations=_number(specs, 'quota:disk_write_iops_sec'),
        # Inbound is towards the instance, as libvirt has it.
        network_in=_bandwidth(specs, 'inbound'),
        network_out=_bandwidth(specs, 'outbound'))


def disks(flavor, boot: disk.BootVolume | None = None) -> disk.Disk:
    """Disks of a flavor; a root disk of 0 is for no limit.

    :param flavor: nova.objects.Flavor
    :param boot: in place of the flavor's root disk
    """
    return disk.Disk(root=None if boot else flavor.root_gb * _GIB or None,
                     ephemeral=flavor.ephemeral_gb * _GIB or None, boot=boot)
