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

"""A container's spec as the OCI runtime's config.json.

Pure: everything known only on the host (ids, root file system, files to bind)
comes in as ``HostSide``.

See the OCI runtime specification 1.0.2, config.md and config-linux.md.
"""

import dataclasses
import typing

from nova_container.oci import seccomp
from nova_container.spec import container
from nova_container.spec import idmap

# What docker and podman give an ordinary container.
CAPABILITIES = (
    'CAP_AUDIT_WRITE', 'CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER',
    'CAP_FSETID', 'CAP_KILL', 'CAP_MKNOD', 'CAP_NET_BIND_SERVICE',
    'CAP_NET_RAW', 'CAP_SETFCAP', 'CAP_SETGID', 'CAP_SETPCAP', 'CAP_SETUID',
    'CAP_SYS_CHROOT',
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

_NAMESPACES = ('pid', 'network', 'ipc', 'uts', 'mount', 'cgroup', 'user')

# Harmless inside a network namespace of the container's own: an ordinary user
# may bind low ports and send ICMP echo requests.
_SYSCTL = {
    'net.ipv4.ip_unprivileged_port_start': '0',
    'net.ipv4.ping_group_range': '0 65535',
}


@dataclasses.dataclass(frozen=True)
class Identity:
    """Numeric user of the process, as the image's own files resolve it."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = '/'


@dataclasses.dataclass(frozen=True)
class HostSide:
    """What only the host knows.

    :param rootfs: path of the mounted root file system
    :param ids: the container's user namespace
    :param cgroup: path of its control group below each hierarchy's root
    :param files: files and directories to bind read-write: (path on the
        host, in the container)
    :param open_files_max: the host's own hard limit
    :param machine: as uname(2) names it
    """

    rootfs: str
    ids: idmap.IdMap
    cgroup: str
    identity: Identity
    files: tuple[tuple[str, str], ...]
    open_files_max: int
    machine: str


def _mounts(host: HostSide) -> list[dict[str, typing.Any]]:
    def mount(destination, kind, *options, source=None):
        return {'destination': destination, 'type': kind,
                'source': source or kind, 'options': list(options)}

    return [
        mount('/proc', 'proc', 'nosuid', 'noexec', 'nodev'),
        mount('/dev', 'tmpfs', 'nosuid', 'strictatime', 'mode=755',
              'size=65536k'),
        mount('/dev/pts', 'devpts', 'nosuid', 'noexec', 'newinstance',
              'ptmxmode=0666', 'mode=0620', 'gid=5'),
        mount('/dev/shm', 'tmpfs', 'nosuid', 'noexec', 'nodev', 'mode=1777',
              'size=65536k', source='shm'),
        mount('/dev/mqueue', 'mqueue', 'nosuid', 'noexec', 'nodev'),
        mount('/sys', 'sysfs', 'nosuid', 'noexec', 'nodev', 'ro'),
        mount('/sys/fs/cgroup', 'cgroup', 'nosuid', 'noexec', 'nodev',
              'relatime', 'ro'),
        *(mount(inside, 'bind', 'rbind', 'rprivate', 'nosuid', 'nodev',
                source=outside)
          for outside, inside in host.files),
    ]


def _resources(limits: container.limits_.Limits) -> dict[str, typing.Any]:
    resources: dict[str, typing.Any] = {
        'devices': [{'allow': False, 'access': 'rwm'}],
    }
    cpu: dict[str, typing.Any] = {}
    if limits.cpu_quota is not None:
        cpu.update(quota=limits.cpu_quota, period=limits.cpu_period)
    if limits.cpu_shares is not None:
        cpu['shares'] = limits.cpu_shares
    if limits.cpuset is not None:
        cpu['cpus'] = limits.cpuset
    if cpu:
        resources['cpu'] = cpu
    if limits.memory is not None:
        # The specification's swap is memory and swap together.
        resources['memory'] = {'limit': limits.memory,
                               'swap': limits.memory + limits.swap}
    if limits.pids is not None:
        resources['pids'] = {'limit': limits.pids}
    return resources


def changed_resources(limits: container.limits_.Limits,
                      processors: str) -> dict[str, typing.Any]:
    """For the OCI runtime's ``update --resources``.

    Whatever is left out there stays as it was, so all is said.

    :param processors: every one of the host, where the limits name none
    """
    memory, pids = -1, -1
    if limits.memory is not None:
        memory = limits.memory
    if limits.pids is not None:
        pids = limits.pids
    return {
        'cpu': {'quota': limits.cpu_quota or -1, 'period': limits.cpu_period,
                'shares': limits.cpu_shares or 1024,
                'cpus': limits.cpuset or processors},
        'memory': {'limit': memory,
                   'swap': memory + limits.swap if memory >= 0 else -1},
        'pids': {'limit': pids},
    }


def build(spec: container.ContainerSpec,
          host: HostSide) -> dict[str, typing.Any]:
    """The content of config.json."""
    capabilities = list(CAPABILITIES)
    env = dict(spec.process.env)
    env.setdefault('PATH', '/usr/local/sbin:/usr/local/bin:'
                           '/usr/sbin:/usr/bin:/sbin:/bin')
    env.setdefault('HOSTNAME', spec.hostname)
    if spec.process.terminal:
        env.setdefault('TERM', 'xterm')
    env.setdefault('HOME', host.identity.home)
    open_files = min(spec.limits.open_files or 1048576, host.open_files_max)
    mapping = [{'containerID': host.ids.inside, 'hostID': host.ids.outside,
                'size': host.ids.count}]
    return {
        'ociVersion': '1.0.2',
        'hostname': spec.hostname,
        'root': {'path': host.rootfs, 'readonly': False},
        'process': {
            'terminal': spec.process.terminal,
            'user': {'uid': host.identity.uid, 'gid': host.identity.gid,
                     'additionalGids': list(host.identity.groups)},
            'args': list(spec.process.args),
            'env': [f'{name}={value}' for name, value in env.items()],
            'cwd': spec.process.cwd,
            'capabilities': {
                'bounding': capabilities,
                'effective': capabilities,
                'permitted': capabilities,
            },
            'rlimits': [{'type': 'RLIMIT_NOFILE', 'soft': open_files,
                         'hard': open_files}],
            'noNewPrivileges': False,
        },
        'mounts': _mounts(host),
        'linux': {
            'namespaces': [{'type': kind} for kind in _NAMESPACES],
            'uidMappings': mapping,
            'gidMappings': mapping,
            'cgroupsPath': host.cgroup,
            'resources': _resources(spec.limits),
            'sysctl': dict(_SYSCTL),
            'seccomp': seccomp.profile(host.machine),
            'maskedPaths': list(MASKED_PATHS),
            'readonlyPaths': list(READONLY_PATHS),
        },
    }
