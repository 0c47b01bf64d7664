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


"""``exec`` and ``attach``: into a container, from the operator's terminal.
"""

import argparse
from collections.abc import Callable
import os
import sys

from nova_container.cli import owner
from nova_container import exception
from nova_container.privileged import process
from nova_container.runtime import attachment
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import command

_UNKNOWN = 125
# Seconds that a monitor may take to end after its container.
_MONITOR_TIMEOUT = 10


def environment(items: list[str]) -> tuple[tuple[str, str], ...]:
    """``NAME=value``, or ``NAME`` for the operator's own value.

    :raises InvalidSpec: the operator has no such variable
    """
    pairs = []
    for item in items:
        name, equals, value = item.partition('=')
        if not equals:
            if name not in os.environ:
                raise exception.InvalidSpec(
                    f'--env {name}: there is no such variable here; write '
                    f'{name}=VALUE')
            value = os.environ[name]
        pairs.append((name, value))
    return tuple(pairs)


def _exec(args: argparse.Namespace) -> int:
    container_id = owner.find(args.container)
    if args.tty and not sys.stdin.isatty():
        raise exception.InvalidSpec(
            '--tty: the input of this command is not a terminal')
    if not (args.interactive or args.tty):
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, sys.stdin.fileno())
        os.close(nothing)
    return engine.execute_here(
        container_id, command.Command(
            args=(args.program, *args.arguments),
            env=environment(args.env), cwd=args.workdir, user=args.user),
        args.tty)


def attach(container_id: str,
           begin: Callable[[], None] | None = None) -> int:
    """Connect this terminal to a container; its exit code, 0 if detached.

    :param begin: called once connected
    """
    monitor = state.read(container_id).monitor
    detached = attachment.interact(
        container_id, sys.stdin.fileno(), sys.stdout.fileno(),
        sys.stderr.fileno(), begin)
    if detached:
        return 0
    # It closes the console first, and then writes the exit code.
    if monitor is not None:
        process.wait(monitor, _MONITOR_TIMEOUT)
    code = state.read(container_id).exit_code
    return _UNKNOWN if code is None else code


def _attach(args: argparse.Namespace) -> int:
    return attach(owner.find(args.container))


def add_commands(add) -> None:
    """Add the group to the parser."""
    run = add('exec', _exec,
              'Run a command in a container, and return what it returned.',
              'nova-container exec -it web sh')
    run.add_argument('-i', '--interactive', action='store_true',
                     help='pass this command\'s input on')
    run.add_argument('-t', '--tty', action='store_true',
                     help='in a terminal of its own, with input')
    run.add_argument('-e', '--env', action='append', default=[],
                     metavar='NAME=VALUE')
    run.add_argument('-w', '--workdir', metavar='DIR')
    run.add_argument('-u', '--user', metavar='USER[:GROUP]')
    run.add_argument('container', metavar='CONTAINER')
    run.add_argument('program', metavar='COMMAND')
    run.add_argument('arguments', nargs=argparse.REMAINDER,
                     metavar='ARGUMENT')

    connect = add('attach', _attach,
                  'Connect this terminal to a container\'s own process; '
                  'Ctrl-P Ctrl-Q disconnects it, or Ctrl-C where the process '
                  'has no terminal.',
                  'nova-container attach web')
    connect.add_argument('container', metavar='CONTAINER')
