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


"""Parser and entry point.

Exit codes: 0 done, 1 failed, 2 wrong usage; ``exec``, ``attach`` and ``run``
return the process's own.
"""

import argparse
from collections.abc import Iterator
import contextlib
import os
import signal
import sys

from oslo_config import cfg

from nova_container.cli import changes
from nova_container.cli import host
from nova_container.cli import life
from nova_container.cli import listing
from nova_container.cli import logs
from nova_container.cli import owner
from nova_container.cli import process
from nova_container.cli import store
from nova_container.cli import usage
from nova_container import conf
from nova_container import exception
from nova_container.privileged import context

CONF = cfg.CONF

_DESCRIPTION = """\
The containers of this host: those of nova-compute, and those started here
without a cloud, with "run".
"""
_EPILOG = """\
A container is named by its id, the first characters of it, or its name.

examples:
  nova-container ps
  nova-container logs --follow web
  nova-container exec -it web sh
  nova-container run nginx.tar
  nova-container check
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='nova-container', description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        '--config-file', action='append', metavar='FILE',
        help='configuration of nova-compute (default: where Nova looks: '
             '/etc/nova/nova.conf and so on)')
    commands = parser.add_subparsers(
        dest='command', required=True, metavar='COMMAND', title='commands')

    def command(name, function, text, example):
        sub = commands.add_parser(
            name, help=text, description=text, parents=[shared],
            epilog=f'example: {example}',
            formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.set_defaults(function=function, needs_root=True)
        return sub

    for group in (listing, logs, process, usage, changes, life,
                  store, host):
        group.add_commands(command)
    return parser


@contextlib.contextmanager
def _unwound() -> Iterator[None]:
    """Have signals end the command as errors do, with all of its undoing.

    A terminal is not left in raw mode, nor a container half made.
    """
    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    # Whoever has them ignored, nohup(1) for instance, wants that.
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP)
               if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    args = _parser().parse_args(argv)
    conf.register_opts(CONF)
    code = 0
    try:
        # The configuration, too, may be root's.
        if args.needs_root and os.geteuid():
            raise exception.OperatorError(
                f'{args.command} reads and changes what belongs to root; '
                'run it with sudo')
        CONF([], project='nova', prog='nova-compute',
             default_config_files=args.config_file)
        owner.remember_configuration()
        # As root there is no need of a privileged helper.
        context.set_client_mode(False)
        with _unwound():
            code = args.function(args) or 0
        # What is left of the output, while its reader's going is still seen.
        print(end='', flush=True)
        return code
    except BrokenPipeError:
        # Whoever read the output has enough: "logs | head".
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code
    except KeyboardInterrupt:
        return 130
    except cfg.Error as e:
        print(f'nova-container: {conf.told(e)}', file=sys.stderr)
        return 1
    except (exception.ContainerError, OSError) as e:
        print(f'nova-container: {e}', file=sys.stderr)
        return 1
