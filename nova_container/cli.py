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

"""The command ``nova-container``: containers of this host, for its operator.

Works on the state directories of a nova-compute service, without Nova, as
root. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

import argparse
import json
import sys

from oslo_config import cfg
import prettytable

from nova_container import conf
from nova_container import exception
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.runtime import console
from nova_container.runtime import state

CONF = cfg.CONF

_LOG_BYTES = 1 << 20


def _ps(args: argparse.Namespace) -> None:
    rows = []
    for container_id in state.ids():
        found = state.read(container_id)
        rows.append({'id': container_id, 'status': found.status.value,
                     'pid': found.process.pid if found.process else None,
                     'exit_code': found.exit_code})
    if args.format == 'json':
        print(json.dumps(rows, indent=2))
        return
    table = prettytable.PrettyTable(['ID', 'Status', 'PID', 'Exit code'])
    table.align = 'l'
    for row in rows:
        table.add_row(['' if cell is None else cell for cell in row.values()])
    print(table)


def _logs(args: argparse.Namespace) -> None:
    state.read(args.container)
    sys.stdout.buffer.write(console.text(args.container, _LOG_BYTES))


def _halt_all(args: argparse.Namespace) -> None:
    container.teardown()


def _destroy_all(args: argparse.Namespace) -> None:
    for container_id in state.ids():
        container.undefine(container_id)
    container.teardown()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='nova-container',
        description='Containers of a nova-compute service on this host.',
        epilog='example: nova-container ps --format json')
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        '--config-file', action='append', metavar='FILE',
        help='configuration of nova-compute (default: '
             '/etc/nova/nova-compute.conf and /etc/nova/nova.conf as Nova '
             'finds them)')
    commands = parser.add_subparsers(dest='command', required=True)

    def command(name, function, text):
        sub = commands.add_parser(name, help=text, description=text,
                                  parents=[shared])
        sub.set_defaults(function=function)
        return sub

    command('ps', _ps, 'List the containers.').add_argument(
        '--format', choices=('table', 'json'), default='table')
    command('logs', _logs, 'Print what a container wrote.').add_argument(
        'container', metavar='ID')
    command('halt-all', _halt_all,
            'End every container and unmount all of it; disks stay. '
            'nova-compute must not run.')
    command('destroy-all', _destroy_all,
            'End and remove every container with its disk. nova-compute must '
            'not run.')
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = _parser().parse_args(argv)
    conf.register_opts(CONF)
    CONF([], project='nova', prog='nova-compute',
         default_config_files=args.config_file)
    # As root there is no need of a privileged helper.
    context.set_client_mode(False)
    try:
        args.function(args)
    except (exception.ContainerError, OSError) as e:
        print(f'nova-container: {e}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
