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

"""What is on disk of a container: its lock, its spec, files written safely."""

from collections.abc import Iterator
import contextlib
import fcntl
import json
import os
import uuid

from nova_container import exception
from nova_container.privileged import place
from nova_container.spec import codec
from nova_container.spec import container


@contextlib.contextmanager
def locked(container_id: str, wait: bool = True) -> Iterator[None]:
    """Hold the container's lock, also against other processes of ours.

    :raises ContainerNotFound: it is not defined
    :raises BlockingIOError: another one holds it, and ``wait`` is False
    """
    path = place.container_state(container_id)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise exception.ContainerNotFound(
            f'container {container_id} is not defined on this host')
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait
                    else fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.exists(path):
            raise exception.ContainerNotFound(
                f'container {container_id} is not defined on this host')
        yield
    finally:
        os.close(fd)


def write(path: str, content: str | bytes, mode: int, owner: int = 0,
          group: int | None = None) -> None:
    """Write a file whole or not at all.

    What is to be there after a crash of the host is brought to its disk;
    what lies in ``run_path`` is of no use then.

    :param group: as ``owner`` unless given
    """
    temporary = f'{path}.{uuid.uuid4().hex}'
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL
                 | os.O_CLOEXEC, mode)
    with open(fd, 'wb') as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fchmod(fd, mode)
        os.fchown(fd, owner, owner if group is None else group)
        if not path.startswith(place.run()):
            os.fsync(fd)
    os.rename(temporary, path)


def slot(container_id: str) -> int:
    """Which range of user ids, and what else is one container's alone."""
    return int(os.readlink(place.container_state(container_id, 'slot')))


def load(container_id: str) -> container.ContainerSpec:
    """What the container runs: its own spec, or that of its rescue.

    :raises ContainerNotFound: it is not defined
    """
    return load_rescue(container_id) or load_own(container_id)


def load_own(container_id: str) -> container.ContainerSpec:
    """The container's own spec, as it was defined.

    :raises ContainerNotFound: it is not defined
    """
    spec = _read(container_id, 'spec.json')
    if spec is None:
        raise exception.ContainerNotFound(
            f'container {container_id} is not defined on this host')
    return spec


def load_rescue(container_id: str) -> container.ContainerSpec | None:
    """What the container runs instead of its own process while it is rescued.
    """
    return _read(container_id, 'rescue.json')


def stored(directory: str) -> list[container.ContainerSpec]:
    """Every spec in the directory of a container."""
    found = (_decode(os.path.join(directory, name))
             for name in ('spec.json', 'rescue.json'))
    return [spec for spec in found if spec is not None]


def _read(container_id: str, name: str) -> container.ContainerSpec | None:
    return _decode(place.container_state(container_id, name))


def _decode(path: str) -> container.ContainerSpec | None:
    try:
        with open(path) as file:
            return codec.decode(container.ContainerSpec, json.load(file))
    except FileNotFoundError:
        return None
