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

"""Which containers there are, as root: define, rescue, unrescue.

Every step may be killed half way: a definition without spec.json is rubbish,
which ``host.recover`` removes.
"""

import collections.abc
import contextlib
import dataclasses
import json
import os
import typing

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import ending
from nova_container.privileged import layer
from nova_container.privileged import place
from nova_container.spec import codec
from nova_container.spec import container as container_spec
from nova_container.spec import idmap
from nova_container.spec import policy


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


def _require_layers(spec: container_spec.ContainerSpec) -> None:
    for diff_id in spec.layers:
        if not os.path.isdir(layer.tree(diff_id)):
            raise exception.ContainerNotFound(
                f'container {spec.id}: layer {diff_id} is not on this host')


@context.entrypoint
def define(spec: dict[str, typing.Any]) -> None:
    """Make a container's directory, ids and disks, or give a defined one a
    new spec and keep the rest.

    :param spec: an encoded ContainerSpec
    :raises StateConflict: it runs
    :raises InvalidSpec: one of its disks would become smaller
    """
    checked = codec.decode(container_spec.ContainerSpec, spec)
    # To be defined is to be created, mostly, before that has taken effect.
    cgroup.prepare_moves()
    make(checked)


def make(checked: container_spec.ContainerSpec,
         fill: collections.abc.Callable[[int], None] | None = None) -> None:
    """Define a container.

    :param fill: called with the host id of its root once its disks are there;
        a container that is killed meanwhile is none
    """
    container.check_allowed(checked)
    _require_layers(checked)
    path = place.container_state(checked.id)
    with contextlib.ExitStack() as undo:
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            pass
        else:
            undo.callback(ending.remove, checked.id)
            slot = _allocate_slot(checked.id)
            os.symlink(str(slot), os.path.join(path, 'slot'))
            disk.define(checked.id, checked.disk, place.ids().base(slot))
        with definition.locked(checked.id):
            container.require_halted(checked.id)
            if fill is not None:
                fill(place.ids().base(definition.slot(checked.id)))
            if os.path.exists(os.path.join(path, 'spec.json')):
                known = definition.load_own(checked.id)
                disk.redefine(checked.id, known.disk, checked.disk,
                              place.ids().base(definition.slot(checked.id)))
                # What only its first start was told stays.
                checked = dataclasses.replace(
                    checked, injected=known.injected or checked.injected,
                    config_drive=known.config_drive or checked.config_drive)
            _write_policy(checked.id,
                          definition.load_rescue(checked.id) or checked)
            definition.write(os.path.join(path, 'spec.json'),
                             json.dumps(codec.encode(checked)), 0o600)
        undo.pop_all()


def _write_policy(container_id: str,
                  spec: container_spec.ContainerSpec) -> None:
    definition.write(
        place.container_state(container_id, 'policy.json'),
        json.dumps(codec.encode(policy.Policy.of(spec))), 0o644)


@context.entrypoint
def disks(container_id: str) -> dict[str, typing.Any]:
    """A container's own disks, as it was defined: an encoded Disk.

    :raises ContainerNotFound: it is not defined
    """
    return codec.encode(definition.load_own(container_id).disk)


@context.entrypoint
def rescue(spec: dict[str, typing.Any]) -> None:
    """Have a halted container start a rescue system from now on.

    It has a disk of its own, and the container's root file system at
    ``RESCUED``. Should the container be rescued already, it is so anew.

    :param spec: an encoded ContainerSpec of that id; its disks are of no
        account
    :raises StateConflict: it runs
    """
    checked = codec.decode(container_spec.ContainerSpec, spec)
    container.check_allowed(checked)
    _require_layers(checked)
    with definition.locked(checked.id):
        container.require_halted(checked.id)
        own = definition.load_own(checked.id)
        _end_rescue(own)
        disk.define_rescue(checked.id, own.disk,
                           place.ids().base(definition.slot(checked.id)))
        definition.write(place.container_state(checked.id, 'rescue.json'),
                         json.dumps(codec.encode(checked)), 0o600)
        _write_policy(checked.id, checked)


@context.entrypoint
def unrescue(container_id: str) -> None:
    """Have a halted container start its own process again.

    :raises StateConflict: it runs
    """
    with definition.locked(container_id):
        container.require_halted(container_id)
        _end_rescue(definition.load_own(container_id))


def _end_rescue(own: container_spec.ContainerSpec) -> None:
    _write_policy(own.id, own)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place.container_state(own.id, 'rescue.json'))
    disk.remove_rescue(own.id)
