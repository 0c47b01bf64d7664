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


"""``python -m benchmarks``: see ``tools/bench --help``."""

import argparse
import json
import os
import signal
import sys
import typing

import prettytable

from benchmarks import figure
from benchmarks import images
from benchmarks import runtime

_BENCHES = {'runtime': runtime, 'images': images}

_EPILOG = """\
Figures of "runtime": start, remove, exec, work; and density, which starts a
thousand containers and is measured only when it is named. podman and docker
are started by hand, with state of their own; all engines are asked in turn.
Medians.

Figures of "images", which is some 700 MB unpacked: gzip, zstd, from an
archive, against podman load, docker load, skopeo copy and two bsdtar at once,
with and without the digests that prove a layer; pull, over HTTP, against
podman pull; snapshot, of a container that has changed one file.

example: tools/bench runtime --format json -n 50 start exec
"""


def _table(rows: list[figure.Row]) -> str:
    table = prettytable.PrettyTable(
        ['Figure', 'Value', 'Against', 'Ratio', 'Target', 'Met'])
    table.align = 'l'
    for row in rows:
        met = {None: '', True: 'yes', False: 'no'}[row.met]
        table.add_row([row.figure, f'{row.value} {row.unit}', row.against,
                       '' if row.ratio is None else row.ratio,
                       '' if row.target is None else f'<= {row.target}',
                       met])
    return table.get_string()


def _end(number: int, _frame: object) -> typing.NoReturn:
    """An end from outside takes the way of an error: all is taken down."""
    sys.exit(128 + number)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='tools/bench', epilog=_EPILOG,
        description='Measure containers and images.',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', choices=tuple(_BENCHES))
    parser.add_argument('figure', nargs='*', metavar='FIGURE')
    parser.add_argument('--format', choices=('table', 'json'),
                        default='table')
    parser.add_argument('-n', type=int, default=20, metavar='N',
                        help='measurements of each figure (default: 20)')
    args = parser.parse_intermixed_args(argv)
    if unknown := set(args.figure) - set(_BENCHES[args.name].FIGURES):
        parser.error(f'no figure {", ".join(sorted(unknown))}; there are '
                     + ', '.join(_BENCHES[args.name].FIGURES))
    if os.geteuid():
        parser.error('containers are started: run it as root')
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    rows = list(_BENCHES[args.name].run(args.n, args.figure))
    if args.format == 'json':
        print(json.dumps([row.row() for row in rows], indent=2))
    else:
        print(_table(rows))
    return int(any(row.met is False for row in rows))


if __name__ == '__main__':
    sys.exit(main())
