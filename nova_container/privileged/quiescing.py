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

"""A container's volumes at rest, so that a copy of them is whole.

What file systems and block devices have in memory is written, and nothing
writes to them until the container is let go. A file system is not frozen
(ioctl FIFREEZE): its journal is on the disk, and freezing it would hold up
whoever looks at it from outside, a helper of ours for instance.
"""

import collections.abc
import contextlib
import os

from nova_container import exception
from nova_container.privileged import attachment
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import freezer
from nova_container.privileged import linux
from nova_container.privileged import namespace
from nova_container.privileged import volume


@context.entrypoint
def quiesce(container_id: str) -> None:
    """Write what a container has not written yet, and hold its processes.

    :raises StateConflict: it does not run, or is held still already
    :raises ContainerError: a volume did not take what was to be written
    """
    with definition.locked(container_id), contextlib.ExitStack() as undo:
        if not freezer.runs(container_id):
            raise exception.StateConflict(
                f'container {container_id} is not running')
        # Most of it before, so that it is held for a moment only.
        namespace.with_mounts(_write, container_id)
        undo.callback(freezer.let_go, container_id)
        freezer.hold(container_id)
        namespace.with_mounts(_write, container_id)
        undo.pop_all()


@context.entrypoint
def unquiesce(container_id: str) -> bool:
    """Let the processes go; False if they were not held, or are gone."""
    try:
        with definition.locked(container_id):
            return freezer.let_go(container_id)
    except exception.ContainerNotFound:
        return False


def _write(container_id: str) -> None:
    """In the mount namespace of the containers."""
    file_systems = disk.mounted(container_id)
    for each in definition.load_own(container_id).volumes:
        if each.path is not None:
            file_systems.add(attachment.mount_point(container_id, each.volume))
        else:
            _sync(volume.require(each.volume).path, os.fsync)
    for path in file_systems:
        _sync(path, linux.syncfs)


def _sync(path: str, sync: collections.abc.Callable[[int], None]) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(fd)
    except OSError as e:
        raise exception.ContainerError(
            f'writing to {path} failed: {e.strerror}; look at the storage of '
            'the volume')
    finally:
        os.close(fd)
