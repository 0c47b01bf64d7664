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

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import resource
import stat
import subprocess
import time
import typing
import uuid

from nova_container import exception
from nova_container.oci import runtime_config
from nova_container.privileged import block
from nova_container.privileged import cgroup
from nova_container.privileged import context
from nova_container.privileged import disk
from nova_container.privileged import identity
from nova_container.privileged import linux
from nova_container.privileged import namespace
from nova_container.privileged import oci_runtime
from nova_container.privileged import place
from nova_container.privileged import process
from nova_container.privileged import userns
from nova_container.spec import codec
from nova_container.spec import container
from nova_container.spec import idmap
from nova_container.spec import limits as limits_
from nova_container.spec import signals

# A killed process that is still there by then sits in the kernel.
_KILL_TIMEOUT = 30
_MONITOR_TIMEOUT = 10

_LOG_READ_MAX = 16 << 20


@contextlib.contextmanager
def _locked(container_id: str):
    """Hold the container's lock, also against other processes of ours.

    :raises ContainerNotFound: it is not defined
    """
    path = place.container_state(container_id)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise exception.ContainerNotFound(
            f'container {container_id} is not defined on this host')
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not os.path.exists(path):
            raise exception.ContainerNotFound(
                f'container {container_id} is not defined on this host')
        yield
    finally:
        os.close(fd)


def _write(path: str, content: str, mode: int, owner: int = 0) -> None:
    """Write a file whole or not at all."""
    temporary = f'{path}.{uuid.uuid4().hex}'
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL
                 | os.O_CLOEXEC, mode)
    with open(fd, 'w') as file:
        file.write(content)
        file.flush()
        os.fchmod(fd, mode)
        os.fchown(fd, owner, owner)
        os.fsync(fd)
    os.rename(temporary, path)


def _remove_tree(path: str) -> None:
    """Remove a directory, however deep a tenant has made it."""
    subprocess.run(['rm', '-rf', '--one-file-system', '--', path], check=True,
                   env=place.ENV, stdin=subprocess.DEVNULL,
                   capture_output=True)


def _load(container_id: str) -> container.ContainerSpec:
    try:
        with open(place.container_state(container_id, 'spec.json')) as file:
            return codec.decode(container.ContainerSpec, json.load(file))
    except FileNotFoundError:
        raise exception.ContainerNotFound(
            f'container {container_id} is not defined on this host')


def _slot(container_id: str) -> int:
    return int(os.readlink(place.container_state(container_id, 'slot')))


def limits(container_id: str) -> limits_.Limits:
    """What a container may use at most.

    :raises ContainerNotFound: it is not defined
    """
    return _load(container_id).limits


def _layer(diff_id: str) -> str:
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
    for name in ('layers', 'layers/sha256', 'containers', 'ids'):
        directory(place.state(name), 0o755, (0, 0))
    for name in ('layers/tmp', 'trash'):
        directory(place.state(name), 0o711, (0, 0))
    for name in ('spool', 'images'):
        directory(place.state(name), 0o700, (user, group))
    directory(place.CONF.container.run_path, 0o711, (0, 0))
    for name in ('c', 'exits'):
        directory(place.run(name), 0o755, (0, 0))
    directory(place.run('oci'), 0o700, (0, 0))
    namespace.ensure_mount_namespace()
    oci_runtime.runtime()


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


@context.entrypoint
def define(spec: dict[str, typing.Any]) -> None:
    """Make a container's directory, ids and disks, or give a defined one a
    new spec and keep the rest.

    :param spec: an encoded ContainerSpec
    :raises StateConflict: it runs
    :raises InvalidSpec: one of its disks would become smaller
    """
    checked = codec.decode(container.ContainerSpec, spec)
    for diff_id in checked.layers:
        if not os.path.isdir(_layer(diff_id)):
            raise exception.ContainerNotFound(
                f'container {checked.id}: layer {diff_id} is not on this host')
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
        with _locked(checked.id):
            if os.path.exists(place.container_run(checked.id)):
                raise exception.StateConflict(
                    f'container {checked.id} runs; halt it before it is '
                    'defined anew')
            if os.path.exists(os.path.join(path, 'spec.json')):
                disk.redefine(checked.id, _load(checked.id).disk,
                              checked.disk,
                              place.ids().base(_slot(checked.id)))
            _write(os.path.join(path, 'spec.json'),
                   json.dumps(codec.encode(checked)), 0o600)
        undo.pop_all()


@context.entrypoint
def create(container_id: str) -> dict[str, int]:
    """Mount the root file system and create the process, held.

    :returns: ``{'pid': ..., 'monitor': ...}``
    :raises StateConflict: it runs already
    :raises ProcessInvalid: the tenant's command, user or directory is wrong
    """
    with _locked(container_id), contextlib.ExitStack() as undo:
        spec = _load(container_id)
        run_dir = place.container_run(container_id)
        if os.path.exists(run_dir):
            raise exception.StateConflict(
                f'container {container_id} is created already')
        undo.callback(_halt, container_id)
        os.mkdir(run_dir, 0o711)
        for name in ('rootfs', 'l', 'files'):
            os.mkdir(os.path.join(run_dir, name), 0o711)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.container_state(container_id, 'exit.json'))
        shift = userns.create(place.ids().shift(_slot(container_id)))
        try:
            pid, monitor = namespace.with_mounts(_create, spec, shift)
        finally:
            os.close(shift)
        running = {'pid': pid, 'monitor': monitor}
        started = {}
        for kind, number in running.items():
            found = process.identify(number)
            started[f'{kind}_started'] = found.started if found else 0
        _write(os.path.join(run_dir, 'run.json'),
               json.dumps({**running, **started}), 0o644)
        undo.pop_all()
        return running


def _create(spec: container.ContainerSpec, shift: int) -> tuple[int, int]:
    """The part of ``create`` inside the containers' mount namespace."""
    run_dir = place.container_run(spec.id)
    ids = place.ids().container(_slot(spec.id))
    disks = disk.mount(spec.id, spec.disk, ids.outside)
    _mount_rootfs(spec, shift, disks)
    rootfs = os.path.join(run_dir, 'rootfs')
    rootfs_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        who = identity.resolve(rootfs_fd, spec.process.user)
    finally:
        os.close(rootfs_fd)
    files = _write_files(spec, ids.outside)
    if disks.ephemeral is not None:
        files += ((disks.ephemeral, '/mnt'),)
    config = runtime_config.build(spec, runtime_config.HostSide(
        rootfs=rootfs, ids=ids, cgroup=place.cgroup(spec.id), identity=who,
        files=files,
        open_files_max=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        machine=os.uname().machine))
    _write(os.path.join(run_dir, 'config.json'), json.dumps(config), 0o600)
    pid, monitor = oci_runtime.create(spec.id)
    block.throttle(spec.id, disk.places(spec.id), spec.limits)
    _give_stdio(pid, ids.outside + who.uid, ids.outside + who.gid)
    return pid, monitor


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


def _mount_rootfs(spec: container.ContainerSpec, shift: int,
                  disks: disk.Mounted) -> None:
    """Mount the overlay of the id-mapped layers and the writable layer.

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
        os.mkdir(str(name))
        mount = linux.open_tree(_layer(diff_id))
        try:
            linux.mount_setattr(
                mount, linux.MOUNT_ATTR_IDMAP | linux.MOUNT_ATTR_RDONLY
                | linux.MOUNT_ATTR_NODEV, shift)
            linux.move_mount(mount, str(name))
        finally:
            os.close(mount)
    lower = ':'.join(str(name) for name in range(len(layers)))
    linux.mount(
        'overlay', os.path.join(run_dir, 'rootfs'), 'overlay', linux.MS_NODEV,
        f'userxattr,lowerdir={lower},'
        f'upperdir={disks.upper},workdir={disks.work}')
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
        _write(path, '\n'.join(lines) + '\n', 0o644, owner)
        files.append((path, f'/etc/{name}'))
    return tuple(files)


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
    with _locked(container_id):
        require_process(container_id)
        try:
            oci_runtime.call('start', container_id)
        except exception.RuntimeFailed as e:
            raise oci_runtime.failure(container_id, e.message)
        pathlib.Path(place.container_run(container_id, 'started')).touch()


@context.entrypoint
def kill(container_id: str, signal: int) -> bool:
    """Send ``signal`` to the first process; False when it is gone."""
    if not 1 <= signal <= 64:
        raise exception.InvalidSpec(f'signal {signal} is not in 1..64')
    found = _process(container_id)
    return found is not None and process.send_signal(found, signal)


@context.entrypoint
def terminate(container_id: str) -> bool:
    """Send the container's own stop signal; False when it is gone."""
    name = _load(container_id).process.stop_signal
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
    with _locked(container_id), contextlib.ExitStack() as undo:
        before = _load(container_id)
        after = dataclasses.replace(before, limits=checked)
        found = _process(container_id)
        if found is not None and process.alive(found):
            undo.callback(_apply_limits, before)
            _apply_limits(after)
        _write(place.container_state(container_id, 'spec.json'),
               json.dumps(codec.encode(after)), 0o600)
        undo.pop_all()


def _apply_limits(spec: container.ContainerSpec) -> None:
    path = place.container_run(spec.id, 'resources.json')
    with open('/sys/devices/system/cpu/online') as online:
        processors = online.read().strip()
    _write(path, json.dumps(runtime_config.changed_resources(
        spec.limits, processors)), 0o600)
    oci_runtime.call('update', '--resources', path, spec.id)
    namespace.with_mounts(
        lambda: block.throttle(spec.id, disk.places(spec.id), spec.limits))


@context.entrypoint
def pause(container_id: str) -> None:
    """Freeze every process (cgroup freezer)."""
    with _locked(container_id):
        require_process(container_id)
        oci_runtime.call('pause', container_id)


@context.entrypoint
def resume(container_id: str) -> None:
    """Thaw a frozen container."""
    with _locked(container_id):
        require_process(container_id)
        oci_runtime.call('resume', container_id)


@context.entrypoint
def halt(container_id: str) -> None:
    """End what runs and remove everything that exists only while it runs.

    The definition and the writable layer stay. Succeeds when nothing runs.
    """
    try:
        with _locked(container_id):
            _halt(container_id)
    except exception.ContainerNotFound:
        _halt(container_id)


def _halt(container_id: str) -> None:
    run_dir = place.container_run(container_id)
    if not os.path.exists(run_dir):
        return
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
    _record_exit(container_id)
    if os.path.exists(place.run('oci', container_id)):
        oci_runtime.call('delete', '--force', container_id)
    _end_unknown(container_id)
    cgroup.remove(container_id)
    namespace.with_mounts(_unmount_below, run_dir)
    # The mounts are not visible here, so this cannot reach into them.
    _remove_tree(run_dir)


def _thaw(container_id: str) -> None:
    """A frozen process does not take even SIGKILL on cgroup v1."""
    path = (cgroup.ROOT + '/freezer' + place.cgroup(container_id)
            + '/freezer.state')
    with contextlib.suppress(FileNotFoundError):
        with open(path, 'w') as state:
            state.write('THAWED')


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
    rest = {process.identify(pid) for pid in cgroup.members(container_id)}
    for pid in cgroup.monitors():
        with contextlib.suppress(OSError):
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                words = file.read().split(b'\0')
            if container_id.encode() in words:
                rest.add(process.identify(pid))
    return rest - {None}


def _unmount_below(run_dir: str) -> None:
    targets = [line.split()[4] for line in open('/proc/thread-self/mountinfo')]
    for target in reversed(targets):
        if target.startswith(run_dir + '/'):
            linux.umount(target)


def _record_exit(container_id: str) -> None:
    """Keep how the process ended beyond the run directory."""
    kills = cgroup.oom_kills(container_id)
    ended: dict[str, typing.Any] = {
        'time': time.time(), 'oom_kills': kills,
        'oom': kills > 0 or os.path.exists(
            place.container_run(container_id, 'oom'))}
    path = place.exit_file(container_id)
    try:
        with open(path) as file:
            ended['code'] = int(file.read())
    except (FileNotFoundError, ValueError):
        ended['code'] = None
    if os.path.isdir(place.container_state(container_id)):
        _write(place.container_state(container_id, 'exit.json'),
               json.dumps(ended), 0o644)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


@context.entrypoint
def undefine(container_id: str) -> None:
    """Halt a container and remove all of it. Succeeds when it is not there."""
    try:
        with _locked(container_id):
            _halt(container_id)
            _undefine(container_id)
    except exception.ContainerNotFound:
        _halt(container_id)


def _undefine(container_id: str) -> None:
    path = place.container_state(container_id)
    trash = place.state('trash', f'{container_id}.{uuid.uuid4().hex}')
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, trash)
        _empty_trash(os.path.basename(trash))


def _empty_trash(name: str) -> None:
    """Remove a container's files, then give its ids back.

    No file of one container may be there when another gets the ids.
    """
    path = place.state('trash', name)
    try:
        slot = os.readlink(os.path.join(path, 'slot'))
    except FileNotFoundError:
        slot = None
    # The link goes last, with the directory.
    for entry in os.scandir(path):
        if entry.name != 'slot':
            _remove_tree(entry.path)
    if slot is not None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.state('ids', slot))
    _remove_tree(path)


@context.entrypoint
def recover() -> list[str]:
    """Remove what a killed service left half done. Call before anything else.

    :returns: ids of the containers that were removed or halted
    """
    touched = []
    namespace.with_mounts(disk.recover)
    for name in os.listdir(place.state('trash')):
        _empty_trash(name)
    for container_id in os.listdir(place.run('c')):
        defined = os.path.exists(
            place.container_state(container_id, 'spec.json'))
        if not defined or not os.path.exists(
                place.container_run(container_id, 'started')):
            _halt(container_id)
            touched.append(container_id)
    for container_id in os.listdir(place.state('containers')):
        if not os.path.exists(
                place.container_state(container_id, 'spec.json')):
            _undefine(container_id)
            touched.append(container_id)
    for slot in os.listdir(place.state('ids')):
        owner = os.readlink(place.state('ids', slot))
        if not os.path.lexists(place.container_state(owner)):
            os.unlink(place.state('ids', slot))
    return touched


@context.entrypoint
def layers_in_use() -> list[str]:
    """diffIDs of the layers of every defined container."""
    found = set()
    for container_id in os.listdir(place.state('containers')):
        with contextlib.suppress(exception.ContainerNotFound):
            found.update(_load(container_id).layers)
    return sorted(found)


@context.entrypoint
def teardown() -> None:
    """Halt every container and drop all that exists only while any runs."""
    if os.path.isdir(place.run('c')):
        for container_id in os.listdir(place.run('c')):
            _halt(container_id)
        namespace.drop_mount_namespace()
        _remove_tree(place.CONF.container.run_path)
    cgroup.remove_all()


@context.entrypoint
def read_log(container_id: str, limit: int) -> bytes:
    """The last ``limit`` bytes of the console log, in conmon's format."""
    if not 0 < limit <= _LOG_READ_MAX:
        raise exception.InvalidSpec(
            f'log limit {limit} is not in 1..{_LOG_READ_MAX}')
    path = place.container_state(container_id, 'log')
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return b''
    with open(fd, 'rb') as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - limit))
        return log.read(limit)
