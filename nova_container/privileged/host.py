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

"""What belongs to the host as a whole, as root: set up, recover, tear down."""

import contextlib
import os
import re
import shutil

from nova_container import conf
from nova_container import exception
from nova_container.privileged import apparmor
from nova_container.privileged import cgroup
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import ending
from nova_container.privileged import freezer
from nova_container.privileged import namespace
from nova_container.privileged import oci_runtime
from nova_container.privileged import place
from nova_container.privileged import recovery
from nova_container.privileged import selinux
from nova_container.privileged import systemd
from nova_container.privileged import volume

# Overlay file systems over id-mapped layers.
_KERNEL_MIN = (5, 19)


def require_kernel() -> str:
    """The kernel's release.

    :raises HostUnsupported: it is too old
    """
    release = os.uname().release
    match = re.match(r'(\d+)\.(\d+)', release)
    if not match or (int(match[1]), int(match[2])) < _KERNEL_MIN:
        raise exception.HostUnsupported(
            f'Linux {release} cannot mount layers with mapped ids: boot '
            'Linux 5.19 or later')
    return release


@context.entrypoint
def setup(user: int, group: int) -> None:
    """Make the directories, once per service start.

    :param user: the service's user, owner of spool and image records
    :param group: its group, the only one that may look into ``state_path``
    :raises HostUnsupported: no container could be started here
    """
    if wrong := conf.wrong_values(place.CONF):
        raise exception.HostUnsupported('; '.join(wrong))
    require_kernel()
    oci_runtime.runtime()
    oci_runtime.conmon()
    systemd.require()
    apparmor.profile()
    selinux.contexts(0)

    def directory(path: str, mode: int, owner: tuple[int, int]) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, mode)
            os.chmod(path, mode)
            os.chown(path, *owner)
        selinux.restore(path)

    for path in (place.CONF.container.state_path,
                 place.CONF.container.run_path):
        os.makedirs(os.path.dirname(path.rstrip('/')), exist_ok=True)
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


@context.entrypoint
def recover() -> list[str]:
    """Remove what a killed service left half done. Call before anything else.

    :returns: ids of the containers that were removed or halted
    """
    touched = []
    namespace.with_mounts(disk.recover)
    volume.recover()
    for name in os.listdir(place.state('trash')):
        with recovery.of(name.partition('.')[0]):
            ending.empty_trash(name)
    for container_id in os.listdir(place.run('c')):
        with recovery.of(container_id):
            freezer.let_go(container_id)
            defined = os.path.exists(
                place.container_state(container_id, 'spec.json'))
            halting = _halting(container_id)
            if not defined or halting is not None or not os.path.exists(
                    place.container_run(container_id, 'started')):
                ending.end(container_id, int(halting) if halting else None)
                touched.append(container_id)
    for container_id in os.listdir(place.state('containers')):
        with recovery.of(container_id):
            if not os.path.exists(
                    place.container_state(container_id, 'spec.json')):
                ending.remove(container_id)
                touched.append(container_id)
            elif definition.load_rescue(container_id) is None:
                disk.remove_rescue(container_id)
    trash = [place.state('trash', name)
             for name in os.listdir(place.state('trash'))]
    for slot in os.listdir(place.state('ids')):
        # The helper of the killed service may be giving it back.
        with contextlib.suppress(FileNotFoundError):
            owner = os.readlink(place.state('ids', slot))
            # The container at its place and one that was set aside have two.
            if not any(_has_slot(directory, slot) for directory in (
                    place.container_state(owner), place.parked(owner),
                    *trash)):
                os.unlink(place.state('ids', slot))
    return touched


def _halting(container_id: str) -> str | None:
    """Which start was due after a halt that was not finished, or ''."""
    try:
        with open(place.container_run(container_id, 'halting')) as file:
            return file.read()
    except FileNotFoundError:
        return None


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
            ending.end(container_id)
        volume.teardown()
        namespace.drop_mount_namespace()
        shutil.rmtree(place.CONF.container.run_path)
    cgroup.remove_all()
