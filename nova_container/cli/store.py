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

"""``store``: the layers of this host."""

import argparse
from typing import Any

from nova_container.cli import output
from nova_container.cli import owner
from nova_container import exception
from nova_container.image import store
from nova_container.oci import digest
from nova_container.privileged import layer as privileged_layer
from nova_container.runtime import state

_AGE = 24 * 3600


def _containers() -> list[tuple[str, tuple[str, ...]]]:
    """Ids of the containers, and their layers."""
    found = []
    for container_id in state.ids():
        spec = owner.specification(container_id)
        if spec is not None:
            found.append((container_id, spec.layers))
    return found


def _list(args: argparse.Namespace, images: store.ImageStore) -> None:
    users = images.users()
    containers = _containers()
    rows: list[dict[str, Any]] = [
        {'layer': str(layer.diff_id), 'bytes': layer.size,
         'unpacked': output.timestamp(layer.unpacked),
         'images': users.get(layer.diff_id, []),
         'containers': [name for name, layers in containers
                        if layer.diff_id in layers]}
        for layer in sorted(images.layers(), key=lambda layer: -layer.size)]
    if args.format == 'json':
        output.show_json(rows)
        return
    output.show_table(
        ('layer', 'size', 'unpacked', 'images', 'containers'),
        [(digest.Digest(row['layer']).short, output.size(row['bytes']),
          row['unpacked'], len(row['images']), len(row['containers']))
         for row in rows])


def _verify(args: argparse.Namespace, images: store.ImageStore) -> int:
    users = images.users()
    found = []
    for layer in images.layers():
        good = privileged_layer.check(layer.diff_id)
        if good is None:
            privileged_layer.seal(layer.diff_id)
        found.append({
            'layer': str(layer.diff_id),
            'state': {True: 'good', False: 'damaged', None: 'new'}[good],
            'images': users.get(layer.diff_id, []),
            'containers': [name for name, layers in _containers()
                           if layer.diff_id in layers]})
    if args.format == 'json':
        output.show_json(found)
    else:
        output.show_table(
            ('layer', 'state', 'images', 'containers'),
            [(digest.Digest(row['layer']).short, row['state'],
              ' '.join(row['images']), ' '.join(row['containers']))
             for row in found])
    return int(any(row['state'] == 'damaged' for row in found))


def _prune(args: argparse.Namespace, images: store.ImageStore) -> None:
    if not args.older_than >= 0:
        raise exception.InvalidSpec('--older-than: a number of seconds')
    before = {layer.diff_id: layer.size for layer in images.layers()}
    containers = [layers for _name, layers in _containers()]
    images.expire(images.images_of(containers),
                  [layer for layers in containers for layer in layers],
                  args.older_than)
    after = {layer.diff_id for layer in images.layers()}
    gone = {layer: size for layer, size in before.items()
            if layer not in after}
    if args.format == 'json':
        output.show_json([{'layer': str(layer), 'bytes': size}
                          for layer, size in gone.items()])
    else:
        for layer in gone:
            print(layer.short)
        print(f'{len(gone)} layers removed, '
              f'{output.size(sum(gone.values()))}')


_ACTIONS = {'list': _list, 'verify': _verify, 'prune': _prune}


def _store(args: argparse.Namespace) -> int | None:
    owner.enter(owner.Owner.LOCAL if args.local else owner.Owner.NOVA)
    images = store.ImageStore(owner.CONF.container.state_path)
    try:
        return _ACTIONS[args.action](args, images)
    finally:
        images.close()


def add_commands(command) -> None:
    """Add the group to the parser."""
    parser = command(
        'store', _store, 'The layers on this host: list them; verify that '
        'they are what was unpacked (exit code 1 if one is damaged); prune '
        'what nothing has used for a while.', 'nova-container store verify')
    parser.add_argument('action', choices=sorted(_ACTIONS))
    parser.add_argument(
        '--older-than', type=float, default=_AGE, metavar='SECONDS',
        help=f'of prune: without use for so long (default: {_AGE})')
    parser.add_argument(
        '--local', action='store_true',
        help='those of containers started by "run", instead of '
        'nova-compute\'s')
    output.add_format(parser)
