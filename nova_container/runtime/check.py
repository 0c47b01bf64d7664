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


"""What this host offers containers, what it lacks, and what that costs.

Each probe looks, or tries in a namespace that is thrown away, and returns one
finding. Nothing on the host is changed. Needs root.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import enum
import glob
import os
import pathlib
import pwd
import re
import resource
import shutil
import subprocess
import tempfile
import threading

from oslo_config import cfg

from nova_container import conf
from nova_container import exception
from nova_container.privileged import apparmor
from nova_container.privileged import cgroup
from nova_container.privileged import encryption
from nova_container.privileged import host
from nova_container.privileged import initial
from nova_container.privileged import linux
from nova_container.privileged import oci_runtime
from nova_container.privileged import place
from nova_container.privileged import selinux
from nova_container.privileged import systemd
from nova_container.privileged import userns
from nova_container.spec import idmap

_NAMESPACES = ('cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts')

# Controllers by their names in version 2, what each is for, and whether no
# container runs without it.
_CONTROLLERS = (
    ('cpu', 'processor quota and weight', True),
    ('memory', 'memory limit', True),
    ('pids', 'limit of processes', True),
    ('cpuset', 'binding to processors', False),
    ('io', 'limits of disk bandwidth', False),
)
_VERSION_1 = {'io': 'blkio'}

# A path of ours below run_path, which a socket must fit into (unix(7)).
_SOCKET_PATH_MAX = 107
_LONGEST_SOCKET = len('/c/' + '0' * 36 + '/attach')

_OPEN_FILES_WANTED = 65536


class Level(enum.Enum):
    """How much a finding matters."""

    OK = 'ok'
    LACKS = 'lacks'
    MISSING = 'missing'


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    :param level: MISSING: no container runs; LACKS: something is not there
        that some may want
    :param found: what was found
    :param cost: what that means, and what to do; empty if all is well
    """

    name: str
    level: Level
    found: str
    cost: str = ''


def _ok(name: str, found: str) -> Finding:
    return Finding(name, Level.OK, found)


def _kernel() -> Iterator[Finding]:
    try:
        yield _ok('kernel', host.require_kernel())
    except exception.HostUnsupported as e:
        yield Finding('kernel', Level.MISSING, os.uname().release, str(e))


def _options() -> Iterator[Finding]:
    """What oslo.config passes over in silence, or says only later."""
    for wrong in conf.wrong_values(place.CONF):
        yield Finding('option', Level.MISSING, 'a wrong value',
                      f'{wrong}; nova-compute does not start')
    known = {name for option in conf.OPTS
             for name in (option.dest, option.name, *(
                 old.name for old in option.deprecated_opts))}
    files = [*place.CONF.config_file, *(
        path for directory in place.CONF.config_dir
        for path in sorted(glob.glob(f'{directory}/*.conf')))]
    for path in files:
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(path, sections).parse()
        for name in sections.get(conf.GROUP.name, {}).keys() - known:
            yield Finding('option', Level.LACKS, f'{name} in {path}',
                          f'[{conf.GROUP.name}] has no such option, and it '
                          'is ignored; see the configuration reference')


def _namespaces() -> Iterator[Finding]:
    absent = [name for name in _NAMESPACES
              if not os.path.exists(f'/proc/self/ns/{name}')]
    if absent:
        yield Finding('namespaces', Level.MISSING, 'no ' + ', '.join(absent),
                      'containers cannot be told apart; the kernel was built '
                      'without them')
    else:
        yield _ok('namespaces', ', '.join(_NAMESPACES))
    try:
        os.close(userns.create(place.ids().container(1)))
    except OSError as e:
        yield Finding('user namespace', Level.MISSING, str(e),
                      'root in a container would be root of the host; see '
                      'sysctl user.max_user_namespaces')
    else:
        yield _ok('user namespace', 'a range of ids can be mapped')


def _cgroup_version() -> str:
    if cgroup.unified():
        return 'version 2'
    kinds = {line.split(' - ')[1].split()[0]
             for line in open('/proc/self/mountinfo')
             if ' - cgroup' in line}
    if kinds == {'cgroup', 'cgroup2'}:
        return 'version 1, with version 2 beside it (hybrid)'
    return 'version 1' if kinds else 'not mounted'


def _controllers() -> set[str]:
    """Names of the controllers that limits can be set with."""
    if cgroup.unified():
        path = pathlib.Path(cgroup.ROOT, 'cgroup.controllers')
        return set(path.read_text().split())
    return {name for root in cgroup.hierarchies()
            for name in os.path.basename(root).split(',')}


def _cgroups() -> Iterator[Finding]:
    version = _cgroup_version()
    if version == 'not mounted':
        yield Finding('cgroups', Level.MISSING, version,
                      'nothing can be limited; mount them at '
                      '/sys/fs/cgroup')
        return
    yield _ok('cgroups', version)
    yield _ok('cgroup manager',
              'systemd' if systemd.manages() else 'cgroupfs')
    known = _controllers()
    for name, purpose, required in _CONTROLLERS:
        mine = name if cgroup.unified() else _VERSION_1.get(name, name)
        if mine in known:
            yield _ok(f'cgroup {mine}', purpose)
        else:
            yield Finding(
                f'cgroup {mine}',
                Level.MISSING if required else Level.LACKS, 'not available',
                f'no {purpose}; see cgroup_disable and '
                'cgroup.subtree_control')
    yield _swap_accounting()


def _swap_accounting() -> Finding:
    name = 'swap accounting'
    if cgroup.unified():
        # The root group has no such file, each other one does.
        paths = list(pathlib.Path(cgroup.ROOT).glob('*/memory.swap.max'))
    else:
        paths = list(pathlib.Path(cgroup.ROOT).glob(
            'memory/memory.memsw.limit_in_bytes'))
    if paths:
        return _ok(name, 'available')
    return Finding(name, Level.LACKS, 'not available',
                   'a container may swap without limit; boot with '
                   'swapaccount=1')


def _existing(path: str) -> str:
    """``path`` or the nearest directory above it that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _mount_of(path: str) -> tuple[str, str]:
    """Type and options of the file system that a path is on."""
    wanted = os.stat(path).st_dev
    device = f'{os.major(wanted)}:{os.minor(wanted)}'
    found = ('unknown', '')
    for line in open('/proc/self/mountinfo'):
        before, after = line.split(' - ')
        if before.split()[2] == device:
            fields = after.split()
            found = (fields[0], fields[2])
    return found


def _apart(steps: Callable[[], None]) -> None:
    """Run ``steps`` in a mount namespace that is thrown away."""
    errors: list[BaseException] = []

    def body() -> None:
        try:
            linux.unshare(linux.CLONE_FS | linux.CLONE_NEWNS)
            linux.mount('none', '/', flags=linux.MS_REC | linux.MS_SLAVE)
            steps()
        except BaseException as e:
            errors.append(e)

    thread = threading.Thread(target=body, name='check')
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _storage() -> Iterator[Finding]:
    """Mounts as containers have them, where their layers are to be."""
    where = _existing(place.state())
    kind, options = _mount_of(where)
    yield _ok('state_path', f'{place.state()} on {kind}')
    with tempfile.TemporaryDirectory(prefix='.check-', dir=where) as top:
        for name in ('lower', 'upper', 'work', 'mapped', 'root'):
            os.mkdir(os.path.join(top, name))
        layers = place.ids().layers().outside
        shown = place.ids().base(1)
        os.chown(os.path.join(top, 'lower'), layers, layers)
        os.chown(os.path.join(top, 'upper'), shown, shown)

        def map_ids() -> None:
            namespace = userns.create(place.ids().shift(1))
            tree = linux.open_tree(os.path.join(top, 'lower'))
            try:
                linux.mount_setattr(
                    tree, linux.MOUNT_ATTR_IDMAP | linux.MOUNT_ATTR_RDONLY,
                    namespace)
                linux.move_mount(tree, os.path.join(top, 'mapped'))
            finally:
                os.close(tree)
                os.close(namespace)
            owner = os.stat(os.path.join(top, 'mapped')).st_uid
            if owner != shown:
                raise OSError(f'the owner is {owner}, not {shown}')

        def overlay() -> None:
            map_ids()
            linux.mount(
                'overlay', os.path.join(top, 'root'), 'overlay', 0,
                f'userxattr,lowerdir={top}/mapped,upperdir={top}/upper,'
                f'workdir={top}/work')
            with open(os.path.join(top, 'root', 'x'), 'w'):
                pass

        for name, attempt, cost in (
                ('id-mapped mounts', map_ids,
                 f'layers cannot be shared between containers; {kind} does '
                 'not allow them: put state_path on ext4, XFS or btrfs'),
                ('overlay, userxattr', overlay,
                 'no root file system can be put together from layers')):
            try:
                _apart(attempt)
            except OSError as e:
                yield Finding(name, Level.MISSING, str(e), cost)
            else:
                yield _ok(name, f'works on {kind}')
    yield _quota(kind, options)


def _quota(kind: str, options: str) -> Finding:
    name = 'disk quota'
    words = set(options.split(','))
    if kind in ('xfs', 'ext4') and words & {'prjquota', 'pquota'}:
        return _ok(name, f'project quota of {kind}')
    if kind == 'btrfs':
        return _ok(name, 'btrfs quota groups can be enabled')
    cost = (f'disk limits need an image file per container; mount {kind} '
            'with prjquota' if kind == 'xfs' else
            'disk limits need an image file per container; XFS with prjquota '
            'does without')
    if os.path.exists('/dev/loop-control'):
        return Finding(name, Level.LACKS, f'none on {kind}, loop devices '
                       'available', cost)
    return Finding(name, Level.LACKS, f'none on {kind}, no loop devices',
                   'disks of containers cannot be limited; load the module '
                   'loop')


def _security() -> Iterator[Finding]:
    actions = pathlib.Path('/proc/sys/kernel/seccomp/actions_avail')
    if actions.exists() and 'errno' in actions.read_text().split():
        yield _ok('seccomp', 'filters available')
    else:
        yield Finding('seccomp', Level.MISSING, 'no filters',
                      'system calls cannot be refused; the kernel was built '
                      'without CONFIG_SECCOMP_FILTER')
    active = []
    if _starts_with('/sys/module/apparmor/parameters/enabled', 'Y'):
        active.append('AppArmor')
    if selinux.enabled():
        enforcing = _starts_with('/sys/fs/selinux/enforce', '1')
        active.append('SELinux' if enforcing else 'SELinux (permissive)')
    if active:
        yield _ok('security module', ', '.join(active))
        if 'AppArmor' in active:
            yield _apparmor()
        if selinux.enabled():
            yield _selinux()
    else:
        yield Finding('security module', Level.LACKS, 'none active',
                      'no second line of defence behind namespaces, '
                      'capabilities and seccomp; enable AppArmor or SELinux')


def _selinux() -> Finding:
    name = 'SELinux contexts'
    try:
        found = selinux.contexts(0)
    except exception.HostUnsupported as e:
        return Finding(name, Level.MISSING, 'not known', str(e))
    if found is None:
        return Finding(name, Level.LACKS, 'not used',
                       'containers run in the context of the privileged '
                       'helper; see [container] selinux')
    return _ok(name, found.process)


def _apparmor() -> Finding:
    name = 'AppArmor profile'
    if not os.access('/sys/kernel/security/apparmor/profiles', os.R_OK):
        return Finding(name, Level.LACKS, 'only root can see them',
                       'not known whether containers are confined by one')
    try:
        found = apparmor.profile()
    except exception.HostUnsupported as e:
        return Finding(name, Level.MISSING, 'not loaded', str(e))
    if found is None:
        return Finding(
            name, Level.LACKS, f'{apparmor.PROFILE} is not loaded',
            'no second line of defence behind namespaces, capabilities and '
            'seccomp; copy etc/apparmor.d of this project to /etc and load '
            'it with apparmor_parser --replace')
    return _ok(name, found)


def _starts_with(path: str, text: str) -> bool:
    try:
        with open(path) as file:
            return file.read().startswith(text)
    except OSError:
        return False


def _version(program: str) -> str | None:
    """First version number that ``program --version`` prints, with name."""
    path = shutil.which(program, path=place.ENV['PATH'])
    if path is None:
        return None
    done = subprocess.run([path, '--version'], capture_output=True, text=True,
                          env=place.ENV, stdin=subprocess.DEVNULL)
    match = re.search(r'\d+(\.\d+)+\S*', done.stdout + done.stderr)
    return f'{program} {match[0] if match else "of unknown version"}'


def _programs() -> Iterator[Finding]:
    name = 'OCI runtime'
    try:
        runtime = oci_runtime.runtime()
    except exception.HostUnsupported as e:
        yield Finding(name, Level.MISSING, 'none', str(e))
    else:
        version = _version(runtime) or 'none'
        if 'crun' in runtime and 'hybrid' in _cgroup_version():
            yield Finding(name, Level.MISSING, version,
                          'crun refuses hybrid cgroups; set [container] '
                          'oci_runtime = runc')
        else:
            yield _ok(name, version)
    try:
        yield _ok('conmon', _version(oci_runtime.conmon()) or 'none')
    except exception.HostUnsupported as e:
        yield Finding('conmon', Level.MISSING, 'none', str(e))
    if _version('mke2fs'):
        yield _ok('e2fsprogs', 'installed')
    else:
        yield Finding('e2fsprogs', Level.LACKS, 'no mke2fs',
                      'disks of containers cannot be limited without project '
                      'quotas; install the package e2fsprogs')
    try:
        yield _ok('init', initial.program())
    except exception.HostUnsupported as e:
        yield Finding('init', Level.LACKS, 'none', str(e))
    yield _encryption()


def _encryption() -> Finding:
    """dm-crypt(4) is a module, loaded when it is first used."""
    name = 'encrypted volumes'
    try:
        program = encryption.program()
    except exception.HostUnsupported as e:
        return Finding(name, Level.LACKS, 'none', str(e))
    if not os.path.exists('/dev/mapper/control'):
        return Finding(name, Level.LACKS, f'{program}, no device mapper',
                       'volumes of an encrypted type cannot be attached')
    return _ok(name, program)


def _ids() -> Iterator[Finding]:
    ranges = place.ids()
    first = ranges.start
    last = ranges.base(ranges.count - 1) + idmap.RANGE_SIZE - 1
    clashes = []
    for path in ('/etc/subuid', '/etc/subgid'):
        for name, low, high in _subordinate(path):
            if low <= last and first <= high:
                clashes.append(f'{path}: {name} has {low}-{high}')
    clashes += [f'user {user.pw_name} is {user.pw_uid}'
                for user in pwd.getpwall() if first <= user.pw_uid <= last]
    found = f'{first}-{last}'
    if clashes:
        yield Finding('id range', Level.MISSING,
                      f'{found}; {"; ".join(clashes)}',
                      'a user of the host would own files and processes of '
                      'containers; set [container] id_range_start')
    else:
        yield _ok('id range', f'{found}, nobody else\'s')


def _subordinate(path: str) -> Iterator[tuple[str, int, int]]:
    """Lines of subuid(5): name, first and last id."""
    try:
        lines = pathlib.Path(path).read_text().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        fields = line.strip().split(':')
        if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
            low = int(fields[1])
            yield fields[0], low, low + int(fields[2]) - 1


def _run_path() -> Iterator[Finding]:
    path = place.run().rstrip('/')
    kind, _ = _mount_of(_existing(path))
    if kind == 'tmpfs':
        yield _ok('run_path', f'{path} on tmpfs')
    else:
        yield Finding('run_path', Level.LACKS, f'{path} on {kind}',
                      'what ran before a reboot seems to run after it until '
                      'it is looked at; put run_path on a tmpfs')
    length = len(path) + _LONGEST_SOCKET
    if length > _SOCKET_PATH_MAX:
        yield Finding('run_path length', Level.MISSING,
                      f'sockets have paths of {length} bytes',
                      f'the kernel takes {_SOCKET_PATH_MAX}; set a shorter '
                      '[container] run_path')


def _limits() -> Iterator[Finding]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= _OPEN_FILES_WANTED:
        yield _ok('open files', f'up to {hard}')
    else:
        yield Finding('open files', Level.LACKS, f'up to {hard}',
                      'containers cannot have more; raise LimitNOFILE of '
                      'the service')


def _devices() -> Iterator[Finding]:
    absent = [path for path in ('/dev/fuse', '/dev/net/tun')
              if not os.path.exists(path)]
    if absent:
        yield Finding('nesting', Level.LACKS, 'no ' + ', '.join(absent),
                      'container engines inside containers work with '
                      'restrictions; load the modules fuse and tun')
    else:
        yield _ok('nesting', '/dev/fuse and /dev/net/tun are there')


def _network() -> Iterator[Finding]:
    if not shutil.which('tc', path=place.ENV['PATH']):
        yield Finding('veth', Level.LACKS, 'not known',
                      'it cannot be tried whether containers can have '
                      'interfaces; install the package iproute2')
        return
    for name, command, level, cost in (
            ('veth', 'ip link add nct0 type veth peer name nct1',
             Level.MISSING, 'containers cannot have interfaces; load the '
             'module veth'),
            ('traffic control', 'ip link add nct0 type veth peer name nct1 '
             '&& tc qdisc add dev nct0 root handle 1: htb default 1 '
             '&& tc class add dev nct0 parent 1: classid 1:1 htb rate 1mbit',
             Level.LACKS, 'network bandwidth cannot be limited; load the '
             'module sch_htb')):
        done = subprocess.run(['unshare', '--net', 'sh', '-c', command],
                              capture_output=True, text=True, env=place.ENV,
                              stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            yield _ok(name, 'works')
        else:
            said = done.stderr.strip().splitlines() or ['no message']
            yield Finding(name, level, said[-1], cost)


# What is looked at, in the order in which it is best read.
PROBES: dict[str, Callable[[], Iterator[Finding]]] = {
    'Kernel': _kernel,
    'Options': _options,
    'Namespaces': _namespaces,
    'Control groups': _cgroups,
    'Storage': _storage,
    'Runtime directory': _run_path,
    'Ids': _ids,
    'Security': _security,
    'Programs': _programs,
    'Network': _network,
    'Limits': _limits,
    'Devices': _devices,
}


def findings(*subjects: str) -> list[Finding]:
    """What is found of some subjects of PROBES, or of all.

    :raises OperatorError: not root
    """
    if os.geteuid():
        raise exception.OperatorError(
            'the host check tries what only root may do; run it with sudo')
    found: list[Finding] = []
    for subject in subjects or PROBES:
        try:
            found += PROBES[subject]()
        except cfg.ConfigFileValueError as e:
            found.append(Finding(subject, Level.MISSING, 'not looked at',
                                 conf.told(e)))
    return found
