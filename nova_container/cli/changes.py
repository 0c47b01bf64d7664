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


"""``diff``: what a container has changed in its root file system."""

import argparse

from nova_container.cli import output
from nova_container.cli import owner
from nova_container.layer import changes as listing
from nova_container.privileged import changes


def _diff(args: argparse.Namespace) -> None:
    found = changes.changes(owner.find(args.container))
    if args.format == 'json':
        output.show_json([{'kind': kind, 'path': path}
                          for kind, path in found])
        return
    for kind, path in found:
        print(kind, listing.shown(path))


def add_commands(command) -> None:
    """Add the group to the parser."""
    diff = command('diff', _diff,
                   'What a container has added (A), changed (C) and deleted '
                   '(D) in its root file system.', 'nova-container diff web')
    diff.add_argument('container', metavar='CONTAINER')
    output.add_format(diff)
