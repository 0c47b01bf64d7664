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

"""What a container may ask of the kernel, by its kind and its flavor.

All of it is relative to the container's own user namespace, which every
container has. A capability there is one over the container's own namespaces
and files, and the kernel refuses whatever concerns the host.

An application and a machine container have what docker and podman give. With
a limit on what they send they lack ``CAP_NET_RAW``: packet sockets send past
the queue that holds the limit (packet(7), PACKET_QDISC_BYPASS), and other
sockets do with a priority of their choice.

*Nesting* adds what a container runtime needs inside: every capability,
mounting and new namespaces, ``/dev/fuse`` and ``/dev/net/tun``, a writable
control group of its own, and a /proc and /sys with nothing masked, since the
kernel lets nobody mount a more revealing one than the one he has
(mount_namespaces(7)). What reaches the whole kernel at once (modules, bpf,
perf, the clock) stays refused.

*Privileged* drops every filter but one (``seccomp``), and keeps the user
namespace. Without that the container's root were the host's and owned each
device, /proc/sysrq-trigger and every other container: a flavor then gives the
host away, for which a bare metal flavor is the honest offer. For the same
reason the host's devices are not passed in.
"""

import dataclasses

from nova_container.oci import seccomp
from nova_container.spec import container

# What docker and podman give an ordinary container.
CAPABILITIES = (
    'CAP_AUDIT_WRITE', 'CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER',
    'CAP_FSETID', 'CAP_KILL', 'CAP_MKNOD', 'CAP_NET_BIND_SERVICE',
    'CAP_NET_RAW', 'CAP_SETFCAP', 'CAP_SETGID', 'CAP_SETPCAP', 'CAP_SETUID',
    'CAP_SYS_CHROOT',
)

# capabilities(7), as of Linux 5.9.
ALL_CAPABILITIES = (
    'CAP_AUDIT_CONTROL', 'CAP_AUDIT_READ', 'CAP_AUDIT_WRITE',
    'CAP_BLOCK_SUSPEND', 'CAP_BPF', 'CAP_CHECKPOINT_RESTORE', 'CAP_CHOWN',
    'CAP_DAC_OVERRIDE', 'CAP_DAC_READ_SEARCH', 'CAP_FOWNER', 'CAP_FSETID',
    'CAP_IPC_LOCK', 'CAP_IPC_OWNER', 'CAP_KILL', 'CAP_LEASE',
    'CAP_LINUX_IMMUTABLE', 'CAP_MAC_ADMIN', 'CAP_MAC_OVERRIDE', 'CAP_MKNOD',
    'CAP_NET_ADMIN', 'CAP_NET_BIND_SERVICE', 'CAP_NET_BROADCAST',
    'CAP_NET_RAW', 'CAP_PERFMON', 'CAP_SETFCAP', 'CAP_SETGID', 'CAP_SETPCAP',
    'CAP_SETUID', 'CAP_SYSLOG', 'CAP_SYS_ADMIN', 'CAP_SYS_BOOT',
    'CAP_SYS_CHROOT', 'CAP_SYS_MODULE', 'CAP_SYS_NICE', 'CAP_SYS_PACCT',
    'CAP_SYS_PTRACE', 'CAP_SYS_RAWIO', 'CAP_SYS_RESOURCE', 'CAP_SYS_TIME',
    'CAP_SYS_TTY_CONFIG', 'CAP_WAKE_ALARM',
)

MASKED_PATHS = (
    '/proc/acpi', '/proc/asound', '/proc/interrupts', '/proc/kcore',
    '/proc/keys', '/proc/latency_stats', '/proc/sched_debug', '/proc/scsi',
    '/proc/timer_list', '/proc/timer_stats', '/sys/devices/virtual/powercap',
    '/sys/firmware',
)

READONLY_PATHS = (
    '/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger',
)


@dataclasses.dataclass(frozen=True)
class Device:
    """A character device of the host, passed in."""

    path: str
    major: int
    minor: int


NESTING_DEVICES = (Device('/dev/fuse', 10, 229), Device('/dev/net/tun', 10,
                                                        200))


@dataclasses.dataclass(frozen=True)
class Rights:
    """One answer to each question that config.json asks.

    :param seccomp: name of a profile
    :param confined: by the host's AppArmor profile or SELinux type for
        containers, which let nobody mount
    :param own_cgroup: the container may divide its control group further
    """

    capabilities: tuple[str, ...] = CAPABILITIES
    seccomp: str = seccomp.DEFAULT
    masked_paths: tuple[str, ...] = MASKED_PATHS
    readonly_paths: tuple[str, ...] = READONLY_PATHS
    sys_writable: bool = False
    confined: bool = True
    own_cgroup: bool = False
    devices: tuple[Device, ...] = ()


def of(spec: container.ContainerSpec) -> Rights:
    """The rights of a container."""
    rights = Rights(own_cgroup=spec.kind == container.MACHINE)
    if spec.limits.network_out is not None:
        rights = dataclasses.replace(rights, capabilities=tuple(
            name for name in CAPABILITIES if name != 'CAP_NET_RAW'))
    if spec.nesting or spec.privileged:
        rights = Rights(capabilities=ALL_CAPABILITIES,
                        seccomp=seccomp.NESTING, masked_paths=(),
                        readonly_paths=(), confined=False, own_cgroup=True)
    if spec.nesting:
        rights = dataclasses.replace(rights, devices=NESTING_DEVICES)
    if spec.privileged:
        rights = dataclasses.replace(rights, seccomp=seccomp.PRIVILEGED,
                                     sys_writable=True)
    return rights
