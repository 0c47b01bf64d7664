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

"""Volumes of containers.

::

    (os-brick) -> connect -> attach -> detach -> disconnect -> (os-brick)

A volume is connected once for all containers of the host that have it.
"""

from nova_container.privileged import hotplug
from nova_container.privileged import volume
from nova_container.privileged import volume_content
from nova_container.spec import codec
from nova_container.spec import volume as volume_spec


def connect(volume_id: str, path: str, read_only: bool) -> int:
    """Take up a block device or a file on a share; its bytes."""
    return volume.connect(volume_id, path, read_only)


def is_unlocked(volume_id: str) -> bool:
    """Whether the content of an encrypted volume can be read."""
    return volume.is_unlocked(volume_id)


def unlock(volume_id: str, key: str) -> None:
    """Have the content of an encrypted volume read by its containers.

    :raises StateConflict: the key is wrong, or the kernel cannot
    """
    volume.unlock(volume_id, key)


def disconnect(volume_id: str) -> None:
    """Let go of it.

    :raises StateConflict: a container has it
    """
    volume.disconnect(volume_id)


def attach(container_id: str, wish: volume_spec.Attachment) -> None:
    """Give it to a container, at once if that runs."""
    hotplug.attach(container_id, codec.encode(wish))


def detach(container_id: str, volume_id: str) -> None:
    """Take it from a container; succeeds if the container has none such.

    :raises StateConflict: a process in the container uses it
    """
    hotplug.detach(container_id, volume_id)


def of(container_id: str) -> tuple[volume_spec.Attachment, ...]:
    """The volumes of a container."""
    return tuple(codec.decode(volume_spec.Attachment, each)
                 for each in volume.of(container_id))


def read(volume_id: str, length: int, spool: str) -> None:
    """Append the first bytes of a connected volume to a spool file."""
    volume_content.read(volume_id, length, spool)


def copy(source_id: str, target_id: str) -> None:
    """Copy the content of a connected volume to another one."""
    volume_content.copy(source_id, target_id)


def clear(volume_id: str) -> None:
    """Have a connected volume, that no container uses, blank."""
    volume_content.clear(volume_id)


def take_size(volume_id: str) -> int:
    """Have its device as large as it has become; its bytes."""
    return volume.take_size(volume_id)


def attached() -> dict[str, list[str]]:
    """The containers that have volumes, also halted ones, by volume."""
    return volume.attached()


def unmount_share(name: str) -> bool:
    """Unmount a share of os-brick's; False if something still uses it."""
    return volume.unmount_share(name)
