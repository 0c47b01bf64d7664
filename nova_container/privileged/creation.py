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

"""From a definition to a process, as root.

Every step may be killed half way: a run directory without ``started`` is
rubbish, which ``host.recover`` removes.
"""

import contextlib
import json
import os
import resource
import stat

from nova_container import exception
from nova_container.oci import rights as rights_
from nova_container.oci import runtime_config
from nova_container.privileged import apparmor
from nova_container.privileged import attachment
from nova_container.privileged import block
from nova_container.privileged import cgroup
from nova_container.privileged import console_log
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import ending
from nova_container.privileged import identity
from nova_container.privileged import initial
from nova_container.privileged import injection
from nova_container.privileged import linux
from nova_container.privileged import namespace
from nova_container.privileged import oci_runtime
from nova_container.privileged import place
from nova_container.privileged import process
from nova_container.privileged import provided
from nova_container.privileged import rootfs
from nova_container.privileged import selinux
from nova_container.privileged import systemd
from nova_container.privileged import userns
from nova_container.spec import container as container_spec

# Where a rescue system has the root file system of the container.
RESCUED = '/rescue'


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
        container.check_allowed(spec)
        if type(restarts) is not int or restarts < 0:
            raise exception.InvalidSpec(f'restarts {restarts!r} is not a '
                                        'number of starts')
        run_dir = place.container_run(container_id)
        if os.path.exists(run_dir):
            raise exception.StateConflict(
                f'container {container_id} is created already')
        undo.callback(ending.end, container_id)
        cgroup.prepare_moves()
        os.mkdir(run_dir, 0o711)
        for name in ('rootfs', 'l', 'files'):
            os.mkdir(os.path.join(run_dir, name), 0o711)
        os.mkdir(os.path.join(run_dir, 'exec'), 0o700)
        shift = userns.create(place.ids().shift(definition.slot(container_id)))
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


def _create(spec: container_spec.ContainerSpec, shift: int) -> tuple[int, int]:
    """The part of ``create`` inside the containers' mount namespace."""
    run_dir = place.container_run(spec.id)
    # A mount of its own, so that all below it can be handed on as one.
    linux.mount(run_dir, run_dir, flags=linux.MS_BIND)
    ids = place.ids().container(definition.slot(spec.id))
    own = definition.load_own(spec.id)
    disks = disk.mount(spec.id, own.disk, ids.outside,
                       rescue=definition.load_rescue(spec.id) is not None)
    root = os.path.join(run_dir, 'rootfs')
    rescued = None if disks.rescue is None else os.path.join(
        run_dir, 'rescued')
    with disk.room_to_mount(spec.id, own.disk, ids.outside,
                            rescued is not None):
        rootfs.mount(spec, shift, disks.rescue or disks.root, root)
        if rescued is not None:
            os.mkdir(rescued, 0o711)
            rootfs.mount(own, shift, disks.root, rescued)
    rootfs_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rootfs.require_directories(rootfs_fd)
        who = identity.resolve(rootfs_fd, spec.process.user)
    finally:
        os.close(rootfs_fd)
    if rescued is None:
        injection.inject(spec, root, ids)
    files, read_only = provided.write(spec, ids.outside)
    within = ''
    if rescued is not None:
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
        files += provided.bind_nested(spec.id, disks.nested, ids.outside)
    files += attachment.mount_all(spec, ids)
    config = runtime_config.build(spec, runtime_config.HostSide(
        rootfs=root, ids=ids, identity=who, files=files, read_only=read_only,
        cgroup=systemd.oci_path(spec.id) if systemd.manages()
        else place.cgroup(spec.id),
        open_files_max=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        machine=os.uname().machine,
        init=initial.program() if spec.init else None,
        apparmor=apparmor.profile(),
        selinux=selinux.of(spec.id),
        devices=tuple(device.path for device in rights.devices
                      if os.path.exists(device.path)),
        block_devices=attachment.make_nodes(spec, ids.outside),
        unified=cgroup.unified()))
    pid, monitor = namespace.with_tree(run_dir, oci_runtime.create, spec.id,
                                       config, spec.process.terminal)
    block.throttle(spec.id, disk.places(spec.id), spec.limits)
    _give_stdio(pid, ids.outside + who.uid, ids.outside + who.gid)
    give_console(run_dir)
    if rights.own_cgroup:
        cgroup.delegate(spec.id, ids.outside)
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


def give_console(directory: str) -> None:
    """Let the service's user attach to a monitor's terminal and resize it."""
    user = os.stat(place.state('spool'))
    for name in ('attach', 'ctl'):
        os.chown(os.path.join(directory, name), user.st_uid, user.st_gid)
