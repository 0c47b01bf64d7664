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

"""OVN's central databases."""

import pathlib

from onenode import command
from onenode import plan


def prepare(layout: plan.Layout, log: pathlib.Path) -> bool:
    """Create the databases, whole or not at all."""
    layout.northbound.parent.mkdir(parents=True, exist_ok=True)
    directory = layout.data / 'ovn'
    directory.mkdir(exist_ok=True)
    created = False
    for name in ('nb', 'sb'):
        final = directory / f'{name}.db'
        if final.exists():
            continue
        new = directory / f'{name}.new'
        for left in (new, directory / f'.{name}.new.~lock~'):
            left.unlink(missing_ok=True)
        command.run(['ovsdb-tool', 'create', new,
                     f'/usr/share/ovn/ovn-{name}.ovsschema'], log=log)
        new.rename(final)
        created = True
    return created


def initialize(layout: plan.Layout, log: pathlib.Path) -> bool:
    """Create the databases' global rows."""
    for program, socket in (('ovn-nbctl', layout.northbound),
                            ('ovn-sbctl', layout.southbound)):
        command.run([program, f'--db=unix:{socket}', 'init'], log=log)
    return False
