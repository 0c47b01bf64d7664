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

from nova_container.oci import rights as rights_
from nova_container.oci import seccomp
from nova_container.spec import container
from nova_container.spec import idmap
from nova_container.spec import limits as limits_

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
class SelinuxContexts:
    """SELinux contexts of one container.

    :param process: of its processes
    :param file: of all that it may read and write
    """

    process: str
    file: str


@dataclasses.dataclass(frozen=True)
class BlockDevice:
    """A block device that the container gets.

    :param node: its node on the host, which belongs to the container's root
    :param path: in the container
    """

    node: str
    path: str
    major: int
    minor: int
    read_only: bool

    @property
    def rule(self) -> dict[str, typing.Any]:
        """What the control group is to let through."""
        return {'allow': True, 'type': 'b', 'major': self.major,
                'minor': self.minor,
                'access': 'r' if self.read_only else 'rw'}


@dataclasses.dataclass(frozen=True)
class HostSide:
    """What only the host knows.

    :param rootfs: path of the mounted root file system
    :param ids: the container's user namespace
    :param cgroup: path of its control group below each hierarchy's root, or
        systemd's ``slice:prefix:name``
    :param files: files and directories to bind read-write: (path on the
        host, in the container)
    :param read_only: the same, read-only
    :param open_files_max: the host's own hard limit
    :param machine: as uname(2) names it
    :param init: path of the small init, where the spec wants one
    :param devices: devices of the host that exist, by path
    :param apparmor: name of a profile that the kernel has
    :param selinux: where SELinux is at work
    :param block_devices: those of volumes
    :param unified: cgroup version 2 is all there is; its rules on devices
        cannot be changed later, when volumes come
    """

    rootfs: str
    ids: idmap.IdMap
    cgroup: str
    identity: Identity
    files: tuple[tuple[str, str], ...]
    open_files_max: int
    machine: str
    init: str | None = None
    devices: tuple[str, ...] = ()
    read_only: tuple[tuple[str, str], ...] = ()
    apparmor: str | None = None
    selinux: SelinuxContexts | None = None
    block_devices: tuple[BlockDevice, ...] = ()
    unified: bool = False


# crun by itself puts a container into a group within its scope; runc does not.
_ANNOTATIONS = {'run.oci.systemd.subgroup': ''}

# Where the small init is bound in the container.
_INIT = '/dev/init'


def _mounts(spec: container.ContainerSpec, rights: rights_.Rights,
            host: HostSide) -> list[dict[str, typing.Any]]:
    def mount(destination: str, kind: str, *options: str,
              source: str | None = None) -> dict[str, typing.Any]:
        return {'destination': destination, 'type': kind,
                'source': source or kind, 'options': list(options)}

    mounts = [
        mount('/proc', 'proc', 'nosuid', 'noexec', 'nodev'),
        mount('/dev', 'tmpfs', 'nosuid', 'strictatime', 'mode=755',
              'size=65536k'),
        mount('/dev/pts', 'devpts', 'nosuid', 'noexec', 'newinstance',
              'ptmxmode=0666', 'mode=0620', 'gid=5'),
        mount('/dev/shm', 'tmpfs', 'nosuid', 'noexec', 'nodev', 'mode=1777',
              'size=65536k', source='shm'),
        mount('/dev/mqueue', 'mqueue', 'nosuid', 'noexec', 'nodev'),
        mount('/sys', 'sysfs', 'nosuid', 'noexec', 'nodev',
              'rw' if rights.sys_writable else 'ro'),
    ]
    # Beside version 1, which cannot be handed to a user namespace, version 2
    # has to be named; alone, it must not be, for crun would give it a context
    # of SELinux then.
    kind = 'cgroup2' if rights.own_cgroup and not host.unified else 'cgroup'
    mounts.append(mount('/sys/fs/cgroup', kind, 'nosuid', 'noexec', 'nodev',
                        'relatime', 'rw' if rights.own_cgroup else 'ro'))
    if spec.kind == container.MACHINE:
        # systemd mounts these itself where it may; here it may not.
        mounts += [
            mount('/run', 'tmpfs', 'nosuid', 'nodev', 'mode=755'),
            mount('/run/lock', 'tmpfs', 'nosuid', 'nodev', 'noexec',
                  'mode=1777', 'size=5120k'),
            mount('/tmp', 'tmpfs', 'nosuid', 'nodev', 'mode=1777'),
        ]
    if host.init is not None:
        mounts.append(mount(_INIT, 'bind', 'bind', 'rprivate', 'ro', 'nosuid',
                            'nodev', source=host.init))
    mounts += [mount(inside, 'bind', 'rbind', 'rprivate', 'nosuid', 'nodev',
                     source=outside)
               for outside, inside in host.files]
    mounts += [mount(inside, 'bind', 'rbind', 'rprivate', 'ro', 'nosuid',
                     'nodev', source=outside)
               for outside, inside in host.read_only]
    # Unlike the others without nodev.
    mounts += [mount(device.path, 'bind', 'bind', 'rprivate', 'nosuid',
                     'noexec', source=device.node)
               for device in host.block_devices]
    return mounts


def takes_devices(spec: container.ContainerSpec, unified: bool) -> bool:
    """Whether a container that runs can be given other block devices, or
    have its own taken away.

    :param unified: see HostSide
    """
    return not unified or rights_.of(spec).confined


def _block_rules(spec: container.ContainerSpec,
                 host: HostSide) -> list[dict[str, typing.Any]]:
    if host.unified and takes_devices(spec, True):
        # No node can be made in a user namespace: what is not bound into the
        # container cannot be opened there. But what may mount may have the
        # nodes on a volume's own file system opened.
        return [{'allow': True, 'type': 'b', 'access': 'rw'}]
    return [device.rule for device in host.block_devices]


def _resources(limits: limits_.Limits,
               devices: list[rights_.Device],
               block_rules: list[dict[str, typing.Any]]
               ) -> dict[str, typing.Any]:
    resources: dict[str, typing.Any] = {
        'devices': [{'allow': False, 'access': 'rwm'}] + [
            {'allow': True, 'type': 'c', 'major': device.major,
             'minor': device.minor, 'access': 'rw'} for device in devices]
        + block_rules,
    }
    cpu: dict[str, typing.Any] = {}
    if limits.cpu_quota is not None:
        cpu.update(quota=limits.cpu_quota, period=limits.cpu_period)
    if limits.cpu_shares is not None:
        cpu['shares'] = limits.cpu_shares
    if limits.cpuset is not None:
        cpu['cpus'] = limits.cpuset
    if limits.memory_nodes is not None:
        cpu['mems'] = limits.memory_nodes
    if cpu:
        resources['cpu'] = cpu
    if limits.memory is not None:
        # The specification's swap is memory and swap together.
        resources['memory'] = {'limit': limits.memory,
                               'swap': limits.memory + limits.swap}
    if limits.pids is not None:
        resources['pids'] = {'limit': limits.pids}
    return resources


def changed_resources(limits: limits_.Limits,
                      processors: str) -> dict[str, typing.Any]:
    """For the OCI runtime's ``update --resources``.

    Whatever is left out there stays as it was, so all is said.

    :param processors: every one of the host, where the limits name none
    """
    memory, pids = -1, -1
    nodes = {} if limits.memory_nodes is None else {
        'mems': limits.memory_nodes}
    if limits.memory is not None:
        memory = limits.memory
    if limits.pids is not None:
        pids = limits.pids
    return {
        'cpu': {'quota': limits.cpu_quota or -1, 'period': limits.cpu_period,
                'shares': limits.cpu_shares or 1024,
                'cpus': limits.cpuset or processors, **nodes},
        'memory': {'limit': memory,
                   'swap': memory + limits.swap if memory >= 0 else -1},
        'pids': {'limit': pids},
    }


def build(spec: container.ContainerSpec,
          host: HostSide) -> dict[str, typing.Any]:
    """The content of config.json."""
    rights = rights_.of(spec)
    capabilities = list(rights.capabilities)
    devices = [device for device in rights.devices
               if device.path in host.devices]
    args = list(spec.process.args)
    if host.init is not None:
        args = [_INIT, '--', *args]
    env = dict(spec.process.env)
    env.setdefault('PATH', '/usr/local/sbin:/usr/local/bin:'
                           '/usr/sbin:/usr/bin:/sbin:/bin')
    env.setdefault('HOSTNAME', spec.hostname)
    if spec.process.terminal:
        env.setdefault('TERM', 'xterm')
    env.setdefault('HOME', host.identity.home)
    if spec.kind == container.MACHINE:
        # https://systemd.io/CONTAINER_INTERFACE
        env['container'] = 'oci'
        env['container_uuid'] = spec.id
    open_files = min(spec.limits.open_files or 1048576, host.open_files_max)
    mapping = [{'containerID': host.ids.inside, 'hostID': host.ids.outside,
                'size': host.ids.count}]
    config: dict[str, typing.Any] = {
        'ociVersion': '1.0.2',
        'hostname': spec.hostname,
        'root': {'path': host.rootfs, 'readonly': False},
        'process': {
            'terminal': spec.process.terminal,
            'user': {'uid': host.identity.uid, 'gid': host.identity.gid,
                     'additionalGids': list(host.identity.groups)},
            'args': args,
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
        'mounts': _mounts(spec, rights, host),
        'annotations': dict(_ANNOTATIONS),
        'linux': {
            'namespaces': [{'type': kind} for kind in _NAMESPACES],
            'uidMappings': mapping,
            'gidMappings': mapping,
            'cgroupsPath': host.cgroup,
            'resources': _resources(spec.limits, devices,
                                    _block_rules(spec, host)),
            'sysctl': dict(_SYSCTL),
            'devices': [
                {'path': device.path, 'type': 'c', 'major': device.major,
                 'minor': device.minor, 'fileMode': 0o666}
                for device in devices],
            'maskedPaths': list(rights.masked_paths),
            'readonlyPaths': list(rights.readonly_paths),
            'seccomp': seccomp.profile(host.machine, rights.seccomp),
        },
    }
    if rights.confined and host.apparmor is not None:
        config['process']['apparmorProfile'] = host.apparmor
    if host.selinux is not None:
        config['linux']['mountLabel'] = host.selinux.file
        if rights.confined:
            config['process']['selinuxLabel'] = host.selinux.process
    return config
