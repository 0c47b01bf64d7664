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

"""Containers, as root: define, create, start, signal, halt, undefine.

A container is *defined* (its directory, ids and writable layer exist, also
over a reboot) or not, and a defined one may *run*: then it has a run
directory, a mounted root file system, a monitor and a process, held until
``start``. Every step may be killed half way: a definition without spec.json
and a run directory without ``started`` are rubbish, which ``recover`` removes.

All functions are idempotent in the direction of less: halting what does not
run and undefining what is not there succeed.
"""

import collections.abc
import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import resource
import shutil
import stat
import subprocess
import time
import typing
import uuid

from nova_container import exception
from nova_container.oci import rights as rights_
from nova_container.oci import runtime_config
from nova_container.privileged import apparmor
from nova_container.privileged import block
from nova_container.privileged import cgroup
from nova_container.privileged import confined
from nova_container.privileged import console_log
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import freezer
from nova_container.privileged import identity
from nova_container.privileged import initial
from nova_container.privileged import linux
from nova_container.privileged import namespace
from nova_container.privileged import oci_runtime
from nova_container.privileged import place
from nova_container.privileged import process
from nova_container.privileged import systemd
from nova_container.privileged import userns
from nova_container.privileged import volume
from nova_container.spec import codec
from nova_container.spec import container
from nova_container.spec import idmap
from nova_container.spec import limits as limits_
from nova_container.spec import policy
from nova_container.spec import signals

# Where a rescue system has the root file system of the container.
RESCUED = '/rescue'

# A killed process that is still there by then sits in the kernel.
_KILL_TIMEOUT = 30
_MONITOR_TIMEOUT = 10


def _remove_trees(*paths: str) -> None:
    """Remove directories, however deep a tenant has made them."""
    subprocess.run(['rm', '-rf', '--one-file-system', '--', *paths],
                   check=True,
                   env=place.ENV, stdin=subprocess.DEVNULL,
                   capture_output=True)


def _slot(container_id: str) -> int:
    return int(os.readlink(place.container_state(container_id, 'slot')))


def limits(container_id: str) -> limits_.Limits:
    """What a container may use at most.

    :raises ContainerNotFound: it is not defined
    """
    return definition.load(container_id).limits


def host_ids(container_id: str) -> tuple[int, int]:
    """First and last host user and group id of a defined container."""
    first = place.ids().base(_slot(container_id))
    return first, first + idmap.RANGE_SIZE - 1


def id_map(container_id: str) -> idmap.IdMap:
    """The user namespace of a defined container."""
    return place.ids().container(_slot(container_id))


def runs(container_id: str) -> bool:
    """Whether its first process is there, be it held or running."""
    found = _process(container_id)
    return found is not None and process.alive(found)


def monitor(container_id: str) -> process.Process | None:
    """The container's monitor; None if none runs."""
    found = _process(container_id, 'monitor')
    return found if found is not None and process.alive(found) else None


def layer_path(diff_id: str) -> str:
    """Directory of a layer's tree."""
    algorithm, _, value = diff_id.partition(':')
    return place.state('layers', algorithm, value, 'fs')


@context.entrypoint
def setup(user: int, group: int) -> None:
    """Make the directories, once per service start.

    :param user: the service's user, owner of spool and image records
    :param group: its group, the only one that may look into ``state_path``
    """
    def directory(path: str, mode: int, owner: tuple[int, int]) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, mode)
            os.chmod(path, mode)
            os.chown(path, *owner)

    os.makedirs(os.path.dirname(place.state()) or '/', exist_ok=True)
    directory(place.CONF.container.state_path, 0o750, (0, group))
    for name in ('layers', 'layers/sha256', 'containers', 'parked', 'ids'):
        directory(place.state(name), 0o755, (0, 0))
    for name in ('layers/tmp', 'trash'):
        directory(place.state(name), 0o711, (0, 0))
    for name in ('spool', 'images', 'blobs', 'mnt', 'connections'):
        directory(place.state(name), 0o700, (user, group))
    directory(place.CONF.container.run_path, 0o711, (0, 0))
    for name in ('c', 'exits'):
        directory(place.run(name), 0o755, (0, 0))
    for name in ('oci', 'volumes'):
        directory(place.run(name), 0o700, (0, 0))
    namespace.ensure_mount_namespace()
    oci_runtime.runtime()
    systemd.require()
    apparmor.profile()


def _allocate_slot(container_id: str) -> int:
    taken = {int(name) for name in os.listdir(place.state('ids'))}
    for slot in range(idmap.LAYER_SLOT + 1, place.ids().count):
        if slot not in taken:
            with contextlib.suppress(FileExistsError):
                os.symlink(container_id, place.state('ids', str(slot)))
                return slot
    raise exception.NoSpace(
        f'container {container_id}: every id range is in use; raise '
        '[container] id_range_count')


def _require_layers(spec: container.ContainerSpec) -> None:
    for diff_id in spec.layers:
        if not os.path.isdir(layer_path(diff_id)):
            raise exception.ContainerNotFound(
                f'container {spec.id}: layer {diff_id} is not on this host')


def require_halted(container_id: str) -> None:
    """
    :raises StateConflict: it runs
    """
    if os.path.exists(place.container_run(container_id)):
        raise exception.StateConflict(
            f'container {container_id} runs; halt it first')


@context.entrypoint
def define(spec: dict[str, typing.Any]) -> None:
    """Make a container's directory, ids and disks, or give a defined one a
    new spec and keep the rest.

    :param spec: an encoded ContainerSpec
    :raises StateConflict: it runs
    :raises InvalidSpec: one of its disks would become smaller
    """
    make(codec.decode(container.ContainerSpec, spec))


def make(checked: container.ContainerSpec,
         fill: collections.abc.Callable[[int], None] | None = None) -> None:
    """Define a container.

    :param fill: called with the host id of its root once its disks are there;
        a container that is killed meanwhile is none
    """
    _check_allowed(checked)
    _require_layers(checked)
    path = place.container_state(checked.id)
    with contextlib.ExitStack() as undo:
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            pass
        else:
            undo.callback(_undefine, checked.id)
            slot = _allocate_slot(checked.id)
            os.symlink(str(slot), os.path.join(path, 'slot'))
            disk.define(checked.id, checked.disk, place.ids().base(slot))
        with definition.locked(checked.id):
            require_halted(checked.id)
            if fill is not None:
                fill(place.ids().base(_slot(checked.id)))
            if os.path.exists(os.path.join(path, 'spec.json')):
                known = definition.load_own(checked.id)
                disk.redefine(checked.id, known.disk, checked.disk,
                              place.ids().base(_slot(checked.id)))
                # What only its first start was told stays.
                checked = dataclasses.replace(
                    checked, injected=known.injected or checked.injected,
                    config_drive=known.config_drive or checked.config_drive)
            _write_policy(checked.id,
                          definition.load_rescue(checked.id) or checked)
            definition.write(os.path.join(path, 'spec.json'),
                             json.dumps(codec.encode(checked)), 0o600)
        undo.pop_all()


def _write_policy(container_id: str, spec: container.ContainerSpec) -> None:
    definition.write(
        place.container_state(container_id, 'policy.json'),
        json.dumps(codec.encode(policy.Policy.of(spec))), 0o644)


@context.entrypoint
def rescue(spec: dict[str, typing.Any]) -> None:
    """Have a halted container start a rescue system from now on.

    It has a disk of its own, and the container's root file system at
    ``RESCUED``. Should the container be rescued already, it is so anew.

    :param spec: an encoded ContainerSpec of that id; its disks are of no
        account
    :raises StateConflict: it runs
    """
    checked = codec.decode(container.ContainerSpec, spec)
    _check_allowed(checked)
    _require_layers(checked)
    with definition.locked(checked.id):
        require_halted(checked.id)
        own = definition.load_own(checked.id)
        _end_rescue(own)
        disk.define_rescue(checked.id, own.disk,
                           place.ids().base(_slot(checked.id)))
        definition.write(place.container_state(checked.id, 'rescue.json'),
                         json.dumps(codec.encode(checked)), 0o600)
        _write_policy(checked.id, checked)


@context.entrypoint
def unrescue(container_id: str) -> None:
    """Have a halted container start its own process again.

    :raises StateConflict: it runs
    """
    with definition.locked(container_id):
        require_halted(container_id)
        _end_rescue(definition.load_own(container_id))


def _end_rescue(own: container.ContainerSpec) -> None:
    _write_policy(own.id, own)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place.container_state(own.id, 'rescue.json'))
    disk.remove_rescue(own.id)


@context.entrypoint
def create(container_id: str, restarts: int = 0) -> dict[str, int]:
    """Mount the root file system and create the process, held.

    :param restarts: how many starts in a row its restart policy has caused
    :returns: ``{'pid': ..., 'monitor': ...}``
    :raises StateConflict: it runs already
    :raises ProcessInvalid: the tenant's command, user or directory is wrong
    """
    with definition.locked(container_id), contextlib.ExitStack() as undo:
        spec = definition.load(container_id)
        _check_allowed(spec)
        if type(restarts) is not int or restarts < 0:
            raise exception.InvalidSpec(f'restarts {restarts!r} is not a '
                                        'number of starts')
        run_dir = place.container_run(container_id)
        if os.path.exists(run_dir):
            raise exception.StateConflict(
                f'container {container_id} is created already')
        undo.callback(_halt, container_id)
        os.mkdir(run_dir, 0o711)
        for name in ('rootfs', 'l', 'files'):
            os.mkdir(os.path.join(run_dir, name), 0o711)
        os.mkdir(os.path.join(run_dir, 'exec'), 0o700)
        shift = userns.create(place.ids().shift(_slot(container_id)))
        try:
            pid, monitor = namespace.with_mounts(_create, spec, shift)
        finally:
            os.close(shift)
        console_log.keep(container_id)
        running = {'pid': pid, 'monitor': monitor}
        started = {}
        for kind, number in running.items():
            found = process.identify(number)
            started[f'{kind}_started'] = found.started if found else 0
        definition.write(
            os.path.join(run_dir, 'run.json'),
            json.dumps({**running, **started, 'restarts': restarts}), 0o644)
        undo.pop_all()
        return running


def _create(spec: container.ContainerSpec, shift: int) -> tuple[int, int]:
    """The part of ``create`` inside the containers' mount namespace."""
    run_dir = place.container_run(spec.id)
    # A mount of its own, so that all below it can be handed on as one.
    linux.mount(run_dir, run_dir, flags=linux.MS_BIND)
    ids = place.ids().container(_slot(spec.id))
    own = definition.load_own(spec.id)
    disks = disk.mount(spec.id, own.disk, ids.outside,
                       rescue=definition.load_rescue(spec.id) is not None)
    rootfs = os.path.join(run_dir, 'rootfs')
    _mount_rootfs(spec, shift, disks.rescue or disks.root, rootfs)
    rootfs_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _require_directories(rootfs_fd)
        who = identity.resolve(rootfs_fd, spec.process.user)
    finally:
        os.close(rootfs_fd)
    if disks.rescue is None:
        _inject(spec, rootfs, ids)
    files = _write_files(spec, ids.outside)
    within = ''
    if disks.rescue is not None:
        rescued = os.path.join(run_dir, 'rescued')
        os.mkdir(rescued, 0o711)
        _mount_rootfs(own, shift, disks.root, rescued)
        within = RESCUED
        files += ((rescued, within),)
    if disks.ephemeral is not None:
        files += ((disks.ephemeral, f'{within}/mnt'),)
    rights = rights_.of(spec)
    if rights.own_cgroup and not cgroup.has_v2():
        raise exception.HostUnsupported(
            f'container {spec.id}: machine, nesting and privileged containers '
            'need cgroup version 2 on the host, alone or at '
            f'{cgroup.ROOT}/unified')
    if spec.nesting:
        files += _bind_nested(spec.id, disks.nested, ids.outside)
    files += volume.mount_all(spec, ids)
    config = runtime_config.build(spec, runtime_config.HostSide(
        rootfs=rootfs, ids=ids, identity=who, files=files,
        read_only=_write_config_drive(spec, ids.outside),
        cgroup=systemd.oci_path(spec.id) if systemd.manages()
        else place.cgroup(spec.id),
        open_files_max=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        machine=os.uname().machine,
        init=initial.program() if spec.init else None,
        apparmor=apparmor.profile(),
        devices=tuple(device.path for device in rights.devices
                      if os.path.exists(device.path)),
        block_devices=volume.make_nodes(spec, ids.outside),
        fixed_device_rules=cgroup.unified()))
    definition.write(os.path.join(run_dir, 'config.json'), json.dumps(config),
                     0o600)
    pid, monitor = namespace.with_tree(run_dir, oci_runtime.create, spec.id,
                                       spec.process.terminal)
    block.throttle(spec.id, disk.places(spec.id), spec.limits)
    _give_stdio(pid, ids.outside + who.uid, ids.outside + who.gid)
    give_console(run_dir)
    if rights.own_cgroup:
        cgroup.delegate(spec.id, ids.outside)
    return pid, monitor


def _bind_nested(container_id: str, source: str,
                 owner: int) -> tuple[tuple[str, str], ...]:
    """Bind the storage of runtimes inside to where its root may reach it."""
    target = place.container_run(container_id, 'nested')
    os.mkdir(target, 0o711)
    linux.mount(source, target, flags=linux.MS_BIND)
    files = []
    for name in disk.NESTED:
        path = disk.make_nested(target, name, owner)
        files.append((path, f'/var/lib/{name}'))
    return tuple(files)


def _check_allowed(spec: container.ContainerSpec) -> None:
    """
    :raises HostUnsupported: the operator does not want it on this host
    """
    for name in ('privileged', 'nesting'):
        if getattr(spec, name) and not getattr(place.CONF.container,
                                               f'{name}_allowed'):
            raise exception.HostUnsupported(
                f'container {spec.id}: the flavor asks for container:{name}, '
                f'which this host does not allow; set [container] '
                f'{name}_allowed there, or choose another flavor')


def _require_directories(rootfs_fd: int) -> None:
    """Refuse a root file system that sends the runtime out of it.

    runc, before it changes its root, follows a symbolic link at /dev to where
    that points on the host, and makes its own links there.
    """
    for name in ('dev', 'proc', 'sys'):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=rootfs_fd, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                raise exception.ImageInvalid(
                    f'/{name} of the container is not a directory; rebuild '
                    'the image with a directory there, or with nothing')


def _give_stdio(pid: int, user: int, group: int) -> None:
    """Make the pipes to conmon the container's own.

    They were made by root, whom the runtime inside the user namespace cannot
    replace; without this a process cannot open /dev/stdout. The process is
    still held, so it is the runtime that is looked at, not the tenant's.
    """
    for number in (0, 1, 2):
        path = f'/proc/{pid}/fd/{number}'
        if stat.S_ISFIFO(os.stat(path).st_mode):
            os.chown(path, user, group)


def give_console(directory: str) -> None:
    """Let the service's user attach to a monitor's terminal and resize it."""
    user = os.stat(place.state('spool'))
    for name in ('attach', 'ctl'):
        os.chown(os.path.join(directory, name), user.st_uid, user.st_gid)


def _mount_rootfs(spec: container.ContainerSpec, shift: int,
                  writable: disk.Writable, target: str) -> None:
    """Mount the overlay of the id-mapped layers and a writable layer.

    The layers are attached under one-digit names and named relative to the
    working directory, which keeps the options of a hundred layers within the
    page that mount(2) takes. Once the overlay has its own reference they are
    detached again. The writable layer itself must not be id-mapped: the
    overlay would be read-only.
    """
    run_dir = place.container_run(spec.id)
    os.chdir(os.path.join(run_dir, 'l'))
    # The topmost of equal layers hides the others, and overlay takes a
    # directory only once.
    layers = list(dict.fromkeys(reversed(spec.layers)))
    for name, diff_id in enumerate(layers):
        os.makedirs(str(name), exist_ok=True)
        mount = linux.open_tree(layer_path(diff_id))
        try:
            linux.mount_setattr(
                mount, linux.MOUNT_ATTR_IDMAP | linux.MOUNT_ATTR_RDONLY
                | linux.MOUNT_ATTR_NODEV, shift)
            linux.move_mount(mount, str(name))
        finally:
            os.close(mount)
    lower = ':'.join(str(name) for name in range(len(layers)))
    linux.mount(
        'overlay', target, 'overlay', linux.MS_NODEV,
        f'userxattr,lowerdir={lower},'
        f'upperdir={writable.upper},workdir={writable.work}')
    for name in range(len(layers)):
        linux.umount(str(name))


def _write_files(spec: container.ContainerSpec,
                 owner: int) -> tuple[tuple[str, str], ...]:
    """Files that Neutron and Nova decide, bound over the image's own."""
    names = spec.hostname.split('.')[0]
    if names != spec.hostname:
        names = f'{spec.hostname} {names}'
    hosts = ['127.0.0.1 localhost', '::1 localhost ip6-localhost ip6-loopback']
    hosts += [f'{address} {names}'
              for address in spec.addresses or ('127.0.1.1',)]
    resolv = [f'nameserver {server}' for server in spec.dns.servers]
    if spec.dns.search:
        resolv.append('search ' + ' '.join(spec.dns.search))
    files = []
    for name, lines in (('hosts', hosts), ('hostname', [spec.hostname]),
                        ('resolv.conf', resolv)):
        path = place.container_run(spec.id, 'files', name)
        definition.write(path, '\n'.join(lines) + '\n', 0o644, owner)
        files.append((path, f'/etc/{name}'))
    if spec.authorized_keys:
        path = place.container_run(spec.id, 'files', 'authorized_keys')
        definition.write(path, spec.authorized_keys.rstrip('\n') + '\n', 0o600,
                         owner)
        files.append((path, '/root/.ssh/authorized_keys'))
    return tuple(files)


def _inject(spec: container.ContainerSpec, rootfs: str,
            ids: idmap.IdMap) -> None:
    """Write the tenant's files into the root file system, once."""
    done = place.container_state(spec.id, 'injected')
    if not spec.injected or os.path.exists(done):
        return
    files = {path: file.content for file in spec.injected
             for path in file.paths}
    with open(os.memfd_create('injected'), 'w+b') as wish:
        wish.write(json.dumps(files).encode())
        wish.seek(0)
        confined.run(f'container {spec.id}: injected file', ids, rootfs,
                     wish.fileno(), job='inject')
    pathlib.Path(done).touch()


def _write_config_drive(spec: container.ContainerSpec,
                        owner: int) -> tuple[tuple[str, str], ...]:
    if not spec.config_drive:
        return ()
    top = place.container_run(spec.id, 'files', 'config-drive')
    for file in spec.config_drive:
        first = os.path.join(top, file.paths[0])
        for path in file.paths:
            name = os.path.join(top, path)
            os.makedirs(os.path.dirname(name), mode=0o700, exist_ok=True)
            if path is not file.paths[0]:
                os.link(first, name)
                continue
            definition.write(name, file.data, 0o400, owner)
    for directory, _, _ in os.walk(top):
        os.chown(directory, owner, owner)
    return ((top, '/config-drive'),)


def _running(container_id: str) -> dict[str, int] | None:
    try:
        with open(place.container_run(container_id, 'run.json')) as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def _process(container_id: str, kind: str = 'pid') -> process.Process | None:
    running = _running(container_id)
    if running is None:
        return None
    return process.Process(running[kind], running[f'{kind}_started'])


def require_process(container_id: str) -> process.Process:
    """The first process of a container that is created or runs.

    :raises StateConflict: it does not run
    """
    found = _process(container_id)
    if found is None or not process.alive(found):
        raise exception.StateConflict(f'container {container_id} is not '
                                      'running')
    return found


@context.entrypoint
def start(container_id: str) -> None:
    """Let the created process go.

    :raises StateConflict: it is not created
    :raises ProcessInvalid: the tenant's command cannot be started
    """
    with definition.locked(container_id):
        require_process(container_id)
        try:
            oci_runtime.call('start', container_id)
        except exception.RuntimeFailed as e:
            raise oci_runtime.failure(container_id, e.message)
        pathlib.Path(place.container_run(container_id, 'started')).touch()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.container_state(container_id, 'exit.json'))


@context.entrypoint
def kill(container_id: str, signal: int) -> bool:
    """Send ``signal`` to the first process; False when it is gone."""
    if not 1 <= signal <= 64:
        raise exception.InvalidSpec(f'signal {signal} is not in 1..64')
    found = _process(container_id)
    return found is not None and process.send_signal(found, signal)


@context.entrypoint
def terminate(container_id: str) -> bool:
    """Send the container's own stop signal; False when it is gone.

    What ends from now on was asked to, and ``recover`` takes it down.
    """
    with definition.locked(container_id):
        if os.path.exists(place.container_run(container_id)):
            _mark_halting(container_id)
    name = definition.load(container_id).process.stop_signal
    return kill(container_id, signals.number(name))


@context.entrypoint
def update(container_id: str, wish: dict[str, typing.Any]) -> None:
    """Give a container other limits, at once if it runs.

    The number of open files holds from the next start. Bandwidth is
    ``link.shape``'s.

    :param wish: encoded Limits
    :raises RuntimeFailed: the kernel refused; the limits are as before
    """
    checked = codec.decode(limits_.Limits, wish)
    with definition.locked(container_id), contextlib.ExitStack() as undo:
        before = definition.load_own(container_id)
        after = dataclasses.replace(before, limits=checked)
        found = _process(container_id)
        if found is not None and process.alive(found):
            undo.callback(_apply_limits, before)
            _apply_limits(after)
        definition.write(place.container_state(container_id, 'spec.json'),
                         json.dumps(codec.encode(after)), 0o600)
        undo.pop_all()


def _apply_limits(spec: container.ContainerSpec) -> None:
    path = place.container_run(spec.id, 'resources.json')
    with open('/sys/devices/system/cpu/online') as online:
        processors = online.read().strip()
    definition.write(path, json.dumps(runtime_config.changed_resources(
        spec.limits, processors)), 0o600)
    oci_runtime.call('update', '--resources', path, spec.id)
    namespace.with_mounts(
        lambda: block.throttle(spec.id, disk.places(spec.id), spec.limits))


@context.entrypoint
def pause(container_id: str) -> None:
    """Freeze every process (cgroup freezer)."""
    with definition.locked(container_id):
        require_process(container_id)
        oci_runtime.call('pause', container_id)


@context.entrypoint
def suspend(container_id: str) -> None:
    """Freeze every process, and give back what memory the kernel takes."""
    with definition.locked(container_id):
        require_process(container_id)
        # First, so that what is frozen is never taken for paused.
        pathlib.Path(place.container_run(container_id, 'suspended')).touch()
        oci_runtime.call('pause', container_id)
        cgroup.reclaim(container_id)


@context.entrypoint
def resume(container_id: str) -> None:
    """Thaw a container; succeeds if it is not frozen."""
    with definition.locked(container_id):
        require_process(container_id)
        if cgroup.frozen(container_id):
            oci_runtime.call('resume', container_id)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.container_run(container_id, 'suspended'))


@context.entrypoint
def halt(container_id: str, restarts: int | None = None) -> None:
    """End what runs and remove everything that exists only while it runs.

    The definition and the writable layer stay. Succeeds when nothing runs.

    :param restarts: the start in a row that is to follow at once; should it
        not come to that, ``exit.json`` tells that it is due
    """
    if restarts is not None and (type(restarts) is not int or restarts < 1):
        raise exception.InvalidSpec(f'restarts {restarts!r} is not a number '
                                    'of starts')
    try:
        with definition.locked(container_id):
            _halt(container_id, restarts)
            if restarts is None:
                _forget_due(container_id)
    except exception.ContainerNotFound:
        _halt(container_id)


def _halt(container_id: str, due: int | None = None) -> None:
    run_dir = place.container_run(container_id)
    if not os.path.exists(run_dir):
        return
    _mark_halting(container_id, due)
    namespace.with_mounts(
        lambda: block.release(container_id, disk.places(container_id)))
    for kind, timeout in (('pid', _KILL_TIMEOUT),
                          ('monitor', _MONITOR_TIMEOUT)):
        found = _process(container_id, kind)
        if kind == 'pid' and found is not None:
            process.send_signal(found, 9)
            _thaw(container_id)
        if found is not None and not process.wait(found, timeout):
            if kind == 'pid':
                raise exception.StateConflict(
                    f'container {container_id}: process {found.pid} did not '
                    f'end within {timeout} s of SIGKILL; look for a file '
                    'system that hangs')
            process.send_signal(found, 9)
            process.wait(found, timeout)
    _record_exit(container_id, due)
    console_log.keep(container_id)
    block.lift(container_id)
    if os.path.exists(place.run('oci', container_id)):
        oci_runtime.call('delete', '--force', container_id)
    _empty_cgroup(container_id)
    namespace.with_mounts(_unmount_below, run_dir)
    # The mounts are not visible here, so this cannot reach into them; and
    # no tenant can make anything here, deep directories least of all.
    shutil.rmtree(run_dir)


def _thaw(container_id: str) -> None:
    """A frozen process does not take even SIGKILL on cgroup v1."""
    path = (cgroup.ROOT + '/freezer' + place.cgroup(container_id)
            + '/freezer.state')
    with contextlib.suppress(FileNotFoundError):
        with open(path, 'w') as state:
            state.write('THAWED')


def _empty_cgroup(container_id: str) -> None:
    """End whatever is left in the control group and remove it.

    A command that was being started in the container may arrive late.
    """
    deadline = time.monotonic() + _KILL_TIMEOUT
    while True:
        _end_unknown(container_id)
        try:
            cgroup.remove(container_id)
            return
        except OSError as e:
            if e.errno != errno.EBUSY or time.monotonic() > deadline:
                raise


def _end_unknown(container_id: str) -> None:
    """End the helpers and the monitor of a start that was killed half way.

    No run.json names them. One that is not ended yet may start another, so
    they are looked for until there is none.
    """
    deadline = time.monotonic() + _KILL_TIMEOUT
    while time.monotonic() < deadline and (rest := _unknown(container_id)):
        for found in rest:
            process.send_signal(found, 9)
        for found in rest:
            process.wait(found, _KILL_TIMEOUT)


def _unknown(container_id: str) -> set[process.Process]:
    pids = cgroup.members(container_id)
    for pid in cgroup.monitors():
        with contextlib.suppress(OSError):
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                words = file.read().split(b'\0')
            if container_id.encode() in words:
                pids.add(pid)
    return {found for found in map(process.identify, pids)
            if found is not None}


def _unmount_below(run_dir: str) -> None:
    targets = [line.split()[4] for line in open('/proc/thread-self/mountinfo')]
    for target in reversed(targets):
        if f'{target}/'.startswith(f'{run_dir}/'):
            linux.umount(target)


def _record_exit(container_id: str, due: int | None) -> None:
    """Keep how the process ended beyond the run directory.

    Of a start that came to nothing, nothing is kept.
    """
    path = place.exit_file(container_id)
    if os.path.exists(place.container_run(container_id, 'started')) and \
            os.path.isdir(place.container_state(container_id)):
        # systemd removes the group with the last process, and its counter;
        # the monitor then has noted that there was one.
        kills = max(cgroup.oom_kills(container_id), os.path.exists(
            place.container_run(container_id, 'oom')))
        ended: dict[str, typing.Any] = {
            'time': time.time(), 'oom_kills': int(kills), 'oom': kills > 0}
        if due is not None:
            ended['due'] = due
        try:
            with open(path) as file:
                ended['code'] = int(file.read())
        except (FileNotFoundError, ValueError):
            ended['code'] = None
        definition.write(place.container_state(container_id, 'exit.json'),
                         json.dumps(ended), 0o644)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _forget_due(container_id: str) -> None:
    """No start is to follow any more."""
    path = place.container_state(container_id, 'exit.json')
    try:
        with open(path) as file:
            ended = json.load(file)
    except FileNotFoundError:
        return
    if ended.pop('due', None) is not None:
        definition.write(path, json.dumps(ended), 0o644)


@context.entrypoint
def undefine(container_id: str) -> None:
    """Halt a container and remove all of it. Succeeds when it is not there."""
    try:
        with definition.locked(container_id):
            _halt(container_id)
            _undefine(container_id)
    except exception.ContainerNotFound:
        _halt(container_id)


def _undefine(container_id: str) -> None:
    path = place.container_state(container_id)
    trash = place.state('trash', f'{container_id}.{uuid.uuid4().hex}')
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, trash)
        empty_trash(os.path.basename(trash))


def empty_trash(name: str) -> None:
    """Remove a container's files, then give its ids back.

    No file of one container may be there when another gets the ids.
    """
    path = place.state('trash', name)
    try:
        slot = os.readlink(os.path.join(path, 'slot'))
    except FileNotFoundError:
        slot = None
    # The link goes last, with the directory.
    _remove_trees(*(entry.path for entry in os.scandir(path)
                    if entry.name != 'slot'))
    if slot is not None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.state('ids', slot))
    shutil.rmtree(path)


def _mark_halting(container_id: str, due: int | None = None) -> None:
    """So that its end is not taken for one of its own accord."""
    definition.write(place.container_run(container_id, 'halting'),
                     str(due or ''), 0o644)


def _halting(container_id: str) -> str | None:
    """Which start was due after a halt that was not finished, or ''."""
    try:
        with open(place.container_run(container_id, 'halting')) as file:
            return file.read()
    except FileNotFoundError:
        return None


@context.entrypoint
def recover() -> list[str]:
    """Remove what a killed service left half done. Call before anything else.

    :returns: ids of the containers that were removed or halted
    """
    touched = []
    namespace.with_mounts(disk.recover)
    volume.recover()
    for name in os.listdir(place.state('trash')):
        empty_trash(name)
    for container_id in os.listdir(place.run('c')):
        freezer.recover(container_id)
        defined = os.path.exists(
            place.container_state(container_id, 'spec.json'))
        halting = _halting(container_id)
        if not defined or halting is not None or not os.path.exists(
                place.container_run(container_id, 'started')):
            _halt(container_id, int(halting) if halting else None)
            touched.append(container_id)
    for container_id in os.listdir(place.state('containers')):
        if not os.path.exists(
                place.container_state(container_id, 'spec.json')):
            _undefine(container_id)
            touched.append(container_id)
        elif definition.load_rescue(container_id) is None:
            disk.remove_rescue(container_id)
    for slot in os.listdir(place.state('ids')):
        owner = os.readlink(place.state('ids', slot))
        # The container at its place and one that was set aside have two.
        if not any(_has_slot(directory, slot) for directory in (
                place.container_state(owner), place.parked(owner))):
            os.unlink(place.state('ids', slot))
    return touched


def _has_slot(directory: str, slot: str) -> bool:
    try:
        return os.readlink(os.path.join(directory, 'slot')) == slot
    except FileNotFoundError:
        return False


@context.entrypoint
def layers_in_use() -> list[str]:
    """diffIDs of the layers of every container, those set aside included."""
    found: set[str] = set()
    for name in ('containers', 'parked'):
        for container_id in os.listdir(place.state(name)):
            for spec in definition.stored(place.state(name, container_id)):
                found.update(spec.layers)
    return sorted(found)


@context.entrypoint
def teardown() -> None:
    """Halt every container and drop all that exists only while any runs."""
    if os.path.isdir(place.run('c')):
        for container_id in os.listdir(place.run('c')):
            _halt(container_id)
        volume.teardown()
        namespace.drop_mount_namespace()
        shutil.rmtree(place.CONF.container.run_path)
    cgroup.remove_all()
