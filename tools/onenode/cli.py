# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The command line of ``tools/cloud``."""

import argparse
import collections.abc as cabc
import contextlib
import fcntl
import json
import os
import pathlib
import signal
import sys
import typing as ty

from onenode import credentials
from onenode import demo
from onenode import down
from onenode import marks
from onenode import plan
from onenode import progress
from onenode import services
from onenode import status
from onenode import supervisor
from onenode import up

_DESCRIPTION = """\
Run a real OpenStack with this driver on one machine: MariaDB, RabbitMQ, OVN,
keystone, glance, placement, nova, neutron, heat and horizon. Every compute
node is a network namespace; the machine's own network is left alone.
With --volumes it has Cinder, too, with --key-manager Barbican.
"""
_EXAMPLE = """\
example:
  tools/cloud up
  eval "$(tools/cloud openrc)"
  nova list
  tools/cloud down
"""


def _example(text: str) -> dict[str, ty.Any]:
    return {'epilog': f'example:\n  {text}',
            'formatter_class': argparse.RawDescriptionHelpFormatter}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='tools/cloud', description=_DESCRIPTION, epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--dir', type=pathlib.Path, metavar='DIRECTORY',
        default=pathlib.Path(os.environ.get('NOVA_CONTAINER_CLOUD')
                             or plan.DEFAULT_ROOT),
        help='where everything is kept; also from the environment variable '
             'NOVA_CONTAINER_CLOUD (default: %(default)s)')
    commands = parser.add_subparsers(dest='command', required=True,
                                     metavar='COMMAND')

    command = commands.add_parser(
        'up', help='install what is missing, start everything, boot a '
        'container', **_example('tools/cloud up --nodes 2'))
    command.add_argument(
        '--nodes', type=int, choices=range(1, plan.MAX_NODES + 1),
        metavar='N', help='compute nodes (default: as before, 1 at first)')
    command.add_argument(
        '--driver', choices=sorted(plan.DRIVERS),
        help='container, or nova\'s fake driver, against which the '
        'container driver is measured (default: as before, container at '
        'first)')
    command.add_argument(
        '--volumes', action='store_true',
        help='with block storage: Cinder, on Ceph and on NFS (default: as '
        'before, without at first)')
    command.add_argument(
        '--key-manager', action='store_true',
        help='with a key manager, Barbican, for the certificates of signed '
        'images (default: as before, without at first)')

    command = commands.add_parser(
        'down', help='stop everything; leave databases and virtualenv',
        **_example('tools/cloud down --purge'))
    command.add_argument(
        '--purge', action='store_true',
        help='also remove the directory, the configuration and the user; '
        'Debian packages stay')

    command = commands.add_parser(
        'status', help='what runs; exit code 0 if all of it does',
        **_example('tools/cloud status --format json'))
    command.add_argument('--format', choices=('text', 'json'),
                         default='text')

    command = commands.add_parser(
        'openrc', help='print the settings for the clients',
        **_example('eval "$(tools/cloud openrc admin)"'))
    command.add_argument('user', nargs='?', choices=credentials.USERS,
                         default='demo', help='(default: demo)')

    command = commands.add_parser(
        'demo', help='build the images of a demo, have its stack, and print '
        'where it answers', **_example('tools/cloud demo wordpress'))
    command.add_argument('name', choices=sorted(demo.DEMOS))

    command = commands.add_parser(
        'restart', help='restart services',
        **_example('tools/cloud restart nova-compute@node1'))
    command.add_argument('service', nargs='+')

    command = commands.add_parser(
        'logs', help='show the log of a service',
        **_example('tools/cloud logs nova-compute@node1 --follow'))
    command.add_argument('service')
    command.add_argument('-f', '--follow', action='store_true')
    return parser


@contextlib.contextmanager
def _lock() -> cabc.Iterator[None]:
    """Only one run at a time may change this machine's cloud."""
    plan.LOCK.parent.mkdir(parents=True, exist_ok=True)
    with open(plan.LOCK, 'a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise plan.Failure('another tools/cloud is at work (process '
                               f'{file.read().strip() or "unknown"})')
        file.truncate(0)
        file.write(f'{os.getpid()}\n')
        file.flush()
        yield


def _load(root: pathlib.Path) -> dict[str, ty.Any]:
    try:
        return json.loads((root / 'data/plan.json').read_text())
    except FileNotFoundError:
        return {'nodes': 1, 'driver': 'container', 'volumes': False}


def _known(root: pathlib.Path) -> plan.Plan:
    saved = _load(root)
    return plan.Plan.of(root, saved['nodes'], saved['driver'],
                        saved.get('volumes', False),
                        saved.get('key_manager', False))


def _existing(root: pathlib.Path) -> plan.Plan:
    if not credentials.exist(plan.Layout(root)):
        raise plan.Failure(f'there is no cloud in {root}; make one with: '
                           'tools/cloud up')
    return _known(root)


def _claim(root: pathlib.Path) -> None:
    """Make the directory ours, so that a purge may remove it."""
    if root.exists() and not (root / down.OURS).exists():
        if any(root.iterdir()):
            raise plan.Failure(f'{root} is not empty and not a cloud of '
                               'this tool: choose another --dir')
    root.mkdir(parents=True, exist_ok=True)
    (root / down.OURS).touch()


def _up(arguments: argparse.Namespace) -> int:
    root = arguments.dir
    saved = _load(root)
    nodes = arguments.nodes or saved['nodes']
    if nodes < saved['nodes']:
        raise plan.Failure(
            f'this cloud has {saved["nodes"]} nodes, and Nova would miss '
            'them: tools/cloud down --purge first')
    driver = arguments.driver or saved['driver']
    if driver != saved['driver'] and credentials.exist(plan.Layout(root)):
        raise plan.Failure(
            f'this cloud has servers of the {saved["driver"]} driver: '
            'tools/cloud down --purge first, or use another --dir')
    cloud = plan.Plan.of(
        root, nodes, driver,
        arguments.volumes or saved.get('volumes', False),
        arguments.key_manager or saved.get('key_manager', False))
    up.check(cloud)
    with _lock():
        _claim(root)
        marks.write(root / 'data/plan.json', json.dumps(
            {'nodes': len(cloud.nodes), 'driver': cloud.driver,
             'volumes': cloud.volumes,
             'key_manager': cloud.key_manager}))
        report = progress.Reporter()
        run = up.Up(cloud, report)
        if not run.run():
            return 1
    report.say(_summary(cloud, run.address, report.elapsed()))
    return 0


def _summary(cloud: plan.Plan, address: str, seconds: float) -> str:
    own = '' if cloud.layout.root == plan.DEFAULT_ROOT else (
        f'--dir {cloud.layout.root} ')
    image = 'tiny' if cloud.driver == 'fake' else 'nginx'
    text = f"""
OpenStack runs with {len(cloud.nodes)} compute node(s) after {seconds:.0f} s.
The server "hello" has the floating address {address}. Go on with:

  eval "$(tools/cloud {own}openrc)"
  nova boot --image {image} --flavor c1.small --nic net-name=private web
  nova list
"""
    if cloud.driver == 'container':
        text += (f'  nova console-log hello\n'
                 f'  curl http://{address}\n')
    return text + f"""
The dashboard: http://127.0.0.1:{plan.PORTS['horizon']} (user demo, password \
$OS_PASSWORD)
The logs:      {cloud.layout.log}"""


def _down(arguments: argparse.Namespace) -> int:
    with _lock():
        cloud = _known(arguments.dir)
        report = progress.Reporter()
        return 0 if down.Down(cloud, report).run(arguments.purge) else 1


def _status(arguments: argparse.Namespace) -> int:
    found = status.collect(_existing(arguments.dir))
    print(json.dumps(found, indent=1) if arguments.format == 'json'
          else status.text(found))
    return 0 if found['ok'] else 1


def _openrc(arguments: argparse.Namespace) -> int:
    layout = _existing(arguments.dir).layout
    print(credentials.openrc(layout, arguments.user), end='')
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    cloud = _existing(arguments.dir)
    if not supervisor.Client(cloud.layout).is_running():
        raise plan.Failure('the cloud is down: tools/cloud up')
    report = progress.Reporter()
    with _lock():
        run = demo.Run(cloud, demo.DEMOS[arguments.name], report)
        if not run.run():
            return 1
    what = (f'{run.outputs["address"]} answers' if run.demo.answers
            else f'The stack {run.demo.name} is there')
    report.say(f'\n{what} after {report.elapsed():.0f} s. '
               f'Remove it with: openstack stack delete {run.demo.name}')
    return 0


def _service(cloud: plan.Plan, name: str) -> services.Service:
    known = {service.name: service for service in services.of(cloud)}
    if name not in known:
        raise plan.Failure(f'there is no service {name}; there are: '
                           + ', '.join(sorted(known)))
    return known[name]


def _restart(arguments: argparse.Namespace) -> int:
    cloud = _existing(arguments.dir)
    chosen = [_service(cloud, name) for name in arguments.service]
    with _lock():
        client = supervisor.Client(cloud.layout)
        if not client.is_running():
            raise plan.Failure('the cloud is down: tools/cloud up')
        client.stop([service.name for service in chosen])
        for service in chosen:
            client.start(service.name)
        for service in chosen:
            client.wait_started(service)
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    cloud = _existing(arguments.dir)
    log = cloud.layout.log_of(_service(cloud, arguments.service).name)
    follow = ['-F'] if arguments.follow else []
    os.execvp('tail', ['tail', '-n', '200', *follow, str(log)])


_COMMANDS = {'up': _up, 'down': _down, 'status': _status, 'openrc': _openrc,
             'demo': _demo, 'restart': _restart, 'logs': _logs}


def main() -> int:
    """Run the command line; return the exit code."""
    arguments = _parser().parse_args()
    arguments.dir = arguments.dir.resolve()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments.command != 'logs' and os.geteuid() != 0:
            raise plan.Failure(
                f'tools/cloud {arguments.command} must be run as root')
        return _COMMANDS[arguments.command](arguments)
    except plan.Failure as failure:
        print(f'tools/cloud: {failure}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
