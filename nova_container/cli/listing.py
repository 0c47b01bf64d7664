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


"""``ps`` and ``inspect``."""

import argparse
import contextlib
import os
import shlex
import time
import typing

from nova_container.cli import output
from nova_container.cli import owner
from nova_container import exception
from nova_container.privileged import container
from nova_container.privileged import definition
from nova_container.privileged import place
from nova_container.runtime import state
from nova_container.spec import codec

_COMMAND_WIDTH = 30
_TICKS = os.sysconf('SC_CLK_TCK')


def _started(current: state.State) -> float | None:
    """When the process started, seconds since the epoch."""
    if current.process is None:
        return None
    return (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
            + current.process.started / _TICKS)


def _row(whose: owner.Owner, container_id: str) -> dict[str, typing.Any]:
    current = state.read(container_id)
    spec = owner.specification(container_id)
    return {
        'id': container_id,
        'name': spec and spec.hostname,
        'command': spec and shlex.join(spec.process.args),
        'status': current.status.value,
        'pid': current.process and current.process.pid,
        'started': output.timestamp(_started(current)),
        'exit_code': current.exit_code,
        'oom': current.oom,
        'owner': whose.value,
    }


def _status(row: dict[str, typing.Any]) -> str:
    text = row['status']
    if row['started']:
        began = output.datetime.datetime.fromisoformat(row['started'])
        text += ' ' + output.ago(time.time() - began.timestamp())
    if row['exit_code'] is not None:
        text += f' ({row["exit_code"]}{", out of memory" * row["oom"]})'
    return text


def _ps(args: argparse.Namespace) -> None:
    rows = []
    for found in owner.each():
        # One may be removed meanwhile.
        with contextlib.suppress(exception.ContainerNotFound):
            rows.append(_row(*found))
    if not args.all:
        rows = [row for row in rows if row['status'] != 'stopped']
    if args.quiet:
        for row in rows:
            print(row['id'])
    elif args.format == 'json':
        output.show_json(rows)
    else:
        output.show_table(
            ('id', 'name', 'command', 'status', 'pid', 'owner'),
            [(row['id'][:13], row['name'],
              _shortened(row['command'] or '(half made)'), _status(row),
              row['pid'], row['owner']) for row in rows])


def _shortened(text: str) -> str:
    text = ''.join(c if c.isprintable() else '?' for c in text)
    if len(text) <= _COMMAND_WIDTH:
        return text
    return text[:_COMMAND_WIDTH - 3] + '...'


def _inspect(args: argparse.Namespace) -> None:
    found = []
    for name in args.container:
        container_id = owner.find(name)
        current = state.read(container_id)
        found.append({
            'id': container_id,
            'status': current.status.value,
            'pid': current.process and current.process.pid,
            'monitor': current.monitor and current.monitor.pid,
            'started': output.timestamp(_started(current)),
            'exit_code': current.exit_code,
            'oom': current.oom,
            'ids': list(container.host_ids(container_id)),
            'cgroup': place.cgroup(container_id),
            'paths': {
                'state': place.container_state(container_id),
                'run': place.container_run(container_id),
                'log': place.container_state(container_id, 'log'),
            },
            'spec': codec.encode(definition.load(container_id)),
        })
    output.show_json(found)


def add_commands(command) -> None:
    """Add the group to the parser."""
    ps = command('ps', _ps, 'List the containers that run.',
                 'nova-container ps --all --format json')
    ps.add_argument('-a', '--all', action='store_true',
                    help='also those that do not run')
    ps.add_argument('-q', '--quiet', action='store_true', help='ids only')
    output.add_format(ps)

    inspect = command('inspect', _inspect,
                      'Everything about containers, as JSON.',
                      'nova-container inspect web')
    inspect.add_argument('container', nargs='+', metavar='CONTAINER')
