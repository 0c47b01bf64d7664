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


"""Tables for people, JSON for programs."""

import argparse
from collections.abc import Sequence
import datetime
import json
import typing

import prettytable


def add_format(parser: argparse.ArgumentParser) -> None:
    """The option ``--format``."""
    parser.add_argument('--format', choices=('table', 'json'),
                        default='table', help='default: table')


def show_json(value: typing.Any) -> None:
    """Print ``value`` as indented JSON."""
    print(json.dumps(value, indent=2))


def show_table(columns: Sequence[str],
               rows: Sequence[Sequence[object]]) -> None:
    """Print a table without rules, as docker does."""
    table = prettytable.PrettyTable([name.upper() for name in columns])
    table.align = 'l'
    table.border = False
    table.left_padding_width, table.right_padding_width = 0, 3
    for row in rows:
        table.add_row(['' if cell is None else cell for cell in row])
    print('\n'.join(line.rstrip() for line in table.get_string().split('\n')))


def size(count: float | None) -> str:
    """Bytes as people read them: ``12.5MiB``."""
    if count is None:
        return '-'
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if count < 1024:
            break
        count /= 1024
    else:
        unit = 'TiB'
    return f'{count:.4g}{unit}'


def ago(seconds: float) -> str:
    """A time span in its largest unit: ``5 minutes``."""
    for unit, length in (('day', 86400), ('hour', 3600), ('minute', 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f'{count} {unit}{"s" if count > 1 else ""}'
    return f'{int(seconds)} seconds'


def timestamp(seconds: float | None) -> str | None:
    """Seconds since the epoch in ISO 8601, UTC."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(
        seconds, datetime.timezone.utc).isoformat(timespec='seconds')
