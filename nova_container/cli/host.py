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


"""``check``, ``halt-all``, ``destroy-all``: the host as a whole."""

import argparse
import contextlib
import dataclasses
import os
import shutil

from nova_container.cli import life
from nova_container.cli import output
from nova_container.cli import owner
from nova_container.privileged import ending
from nova_container.privileged import host
from nova_container.runtime import check
from nova_container.runtime import state


def _check(args: argparse.Namespace) -> int:
    found = check.findings()
    if args.format == 'json':
        output.show_json([
            {**dataclasses.asdict(finding), 'level': finding.level.value}
            for finding in found])
    else:
        for finding in found:
            print(f'{finding.level.value:<8}{finding.name:<20}'
                  f'{finding.found}')
            if finding.cost:
                print(f'{"":<28}{finding.cost}')
    return int(any(finding.level is check.Level.MISSING
                   for finding in found))


def _enter(args: argparse.Namespace) -> None:
    owner.enter(owner.Owner.LOCAL if args.local else owner.Owner.NOVA)


def _halt_all(args: argparse.Namespace) -> None:
    _enter(args)
    host.teardown()


def _destroy_all(args: argparse.Namespace) -> None:
    _enter(args)
    for container_id in state.ids():
        ending.undefine(container_id)
    host.teardown()
    if args.local:
        shutil.rmtree(owner.CONF.container.state_path, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(life.lock_path())


def add_commands(command) -> None:
    """Add the group to the parser."""
    output.add_format(command(
        'check', _check,
        'What this host offers containers, what it lacks, and what that '
        'costs. Exit code 1 if containers cannot run.',
        'nova-container check --format json'))
    for name, function, text in (
            ('halt-all', _halt_all,
             'End every container and unmount all of it; disks stay. '
             'nova-compute must not run.'),
            ('destroy-all', _destroy_all,
             'End and remove every container with its disk. nova-compute '
             'must not run.')):
        command(name, function, text, f'nova-container {name}').add_argument(
            '--local', action='store_true',
            help='those started by "run", with their images, instead of '
            'nova-compute\'s')
