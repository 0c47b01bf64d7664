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


"""``stats``: what containers use."""

import argparse
import contextlib
import dataclasses
import sys
import time

from nova_container.cli import output
from nova_container.cli import owner
from nova_container import exception
from nova_container.runtime import stats

_INTERVAL = 1.0
_CLEAR = '\x1b[H\x1b[J'

_Sample = dict[str, tuple[float, stats.Stats]]


def _sample(wanted: list[str]) -> _Sample:
    found: _Sample = {}
    for _, container_id in owner.each():
        if wanted and container_id not in wanted:
            continue
        # Ended, or not started.
        with contextlib.suppress(exception.ContainerNotFound,
                                 exception.StateConflict):
            found[container_id] = (time.monotonic(),
                                   stats.read(container_id))
    return found


def _cpu_percent(before: tuple[float, stats.Stats],
                 after: tuple[float, stats.Stats]) -> float:
    """Of one processor."""
    span = (after[0] - before[0]) * 1e9
    return 100 * (after[1].cpu - before[1].cpu) / span


def _rows(before: _Sample, after: _Sample) -> list[list[object]]:
    rows = []
    for container_id, (when, now) in after.items():
        if container_id not in before:
            continue
        percent = _cpu_percent(before[container_id], (when, now))
        net = [sum(getattr(card, name) for card in now.network)
               for name in ('rx_bytes', 'tx_bytes')]
        rows.append([
            container_id[:13], f'{percent:.1f}%',
            f'{output.size(now.memory.used)} / '
            f'{output.size(now.memory.limit)}',
            f'{output.size(net[0])} / {output.size(net[1])}',
            f'{output.size(now.block_io.read_bytes)} / '
            f'{output.size(now.block_io.write_bytes)}',
            now.pids, output.size(now.disk_used), now.oom_kills])
    return rows


def _stats(args: argparse.Namespace) -> None:
    wanted = [owner.find(name) for name in args.container]
    before = _sample(wanted)
    while True:
        time.sleep(_INTERVAL)
        after = _sample(wanted)
        if args.format == 'json':
            output.show_json([
                {'id': container_id,
                 'cpu_percent': round(_cpu_percent(before[container_id],
                                                   found), 2),
                 **dataclasses.asdict(found[1])}
                for container_id, found in after.items()
                if container_id in before])
            return
        if not args.no_stream and sys.stdout.isatty():
            sys.stdout.write(_CLEAR)
        output.show_table(
            ('id', 'cpu', 'memory / limit', 'net in / out',
             'block in / out', 'pids', 'disk', 'oom kills'),
            _rows(before, after))
        sys.stdout.flush()
        if args.no_stream:
            return
        before = after


def add_commands(command) -> None:
    """Add the group to the parser."""
    usage = command('stats', _stats,
                    'What containers use, once a second; JSON: once.',
                    'nova-container stats --no-stream')
    usage.add_argument('--no-stream', action='store_true', help='once')
    usage.add_argument('container', nargs='*', metavar='CONTAINER',
                       help='default: every one that runs')
    output.add_format(usage)
