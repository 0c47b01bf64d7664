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


"""Whose containers: nova-compute's, or those that ``run`` started here.

The latter have directories, control groups and ids of their own, named after
nova-compute's and next to them, so that neither ever touches the other's.
"""

from collections.abc import Iterator
import contextlib
import enum
from typing import Any

from oslo_config import cfg

from nova_container import exception
from nova_container.privileged import definition
from nova_container.runtime import state
from nova_container.spec import container as spec
from nova_container.spec import idmap

CONF = cfg.CONF

_LOCAL_RANGES = 1024
_ID_MAX = (1 << 32) - 1

_nova: dict[str, Any] = {}


class Owner(enum.Enum):
    """Who decides about a container."""

    NOVA = 'nova'
    LOCAL = 'local'


def remember_configuration() -> None:
    """Note where nova-compute's containers are; once, after CONF is read."""
    _nova.update({name: CONF.container[name] for name in (
        'state_path', 'run_path', 'cgroup_parent', 'id_range_start',
        'id_range_count')})


def _local() -> dict[str, str | int]:
    start = (_nova['id_range_start']
             + _nova['id_range_count'] * idmap.RANGE_SIZE)
    if start + _LOCAL_RANGES * idmap.RANGE_SIZE > _ID_MAX:
        raise exception.OperatorError(
            f'no {_LOCAL_RANGES} id ranges are left after those of '
            'nova-compute; lower [container] id_range_start or '
            'id_range_count')
    return {'state_path': f'{_nova["state_path"]}-local',
            'run_path': f'{_nova["run_path"]}-local',
            'cgroup_parent': f'{_nova["cgroup_parent"]}-local',
            'id_range_start': start, 'id_range_count': _LOCAL_RANGES}


def enter(owner: Owner) -> None:
    """From now on, every path is that owner's."""
    places = _nova if owner is Owner.NOVA else _local()
    for name, value in places.items():
        CONF.set_override(name, value, 'container')


def each() -> Iterator[tuple[Owner, str]]:
    """Every container; its owner is entered when it is handed out."""
    for owner in Owner:
        enter(owner)
        for container_id in state.ids():
            yield owner, container_id


def specification(container_id: str) -> spec.ContainerSpec | None:
    """What the container is; None for one half made or half removed."""
    with contextlib.suppress(exception.ContainerNotFound):
        return definition.load(container_id)
    return None


def find(name: str, only: Owner | None = None) -> str:
    """The container of that id, start of an id, or name; enters its owner.

    :param only: refuse containers of another owner
    :raises ContainerNotFound: there is none
    :raises StateConflict: there are several, or it is another owner's
    :raises InvalidSpec: it is no name
    """
    if not name:
        # Every id begins like that: a variable that is not set, in a script.
        raise exception.InvalidSpec(
            'an empty word names no container; use its id, the first '
            'characters of it, or its name')
    found: list[tuple[Owner, str]] = []
    for owner, container_id in each():
        if container_id == name:
            found = [(owner, container_id)]
            break
        known = specification(container_id)
        if (container_id.startswith(name)
                or known is not None and known.hostname == name):
            found.append((owner, container_id))
    if not found:
        raise exception.ContainerNotFound(
            f'no container {name} on this host; "nova-container ps" lists '
            'them')
    if len(found) > 1:
        raise exception.StateConflict(
            f'{name} means several containers: '
            + ', '.join(container_id for _, container_id in found)
            + '; use more of the id')
    owner, container_id = found[0]
    if only is not None and owner is not only:
        raise exception.StateConflict(
            f'container {container_id} belongs to nova-compute, which would '
            'not know; use the openstack command')
    enter(owner)
    return container_id
