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

"""What the option --volumes adds: stand-ins, files of Cinder, its API.

The kernel that this runs on need not have the modules for RBD, NFS and
dm-crypt, and few kernels let a network namespace use them. Cinder, Ceph,
os-brick and Nova are the real ones; only ``rbd map``, ``mount -t nfs`` and
``cryptsetup open`` are replaced, by the programs in ``Layout.stand_ins``,
which come first in the PATH of nova-compute and cinder-volume.
"""

import contextlib
import pathlib

from onenode import ceph
from onenode import command
from onenode import marks
from onenode import plan
from onenode import template

DEVICES = pathlib.Path('/dev/rbd')
MAPPINGS = pathlib.Path('/dev/mapper')
# Name to template. Cinder looks whether there is a mount.nfs.
STAND_INS = {'cryptsetup': 'stand-in-cryptsetup',
             'mount': 'stand-in-mount', 'mount.nfs': 'stand-in-mount',
             'rbd': 'stand-in-rbd'}
_MODULES = ('rados', 'rbd')


def values(layout: plan.Layout) -> dict[str, object]:
    """What templates know besides the values of every cloud."""
    return {**ceph.config_values(layout), 'run': layout.run,
            'stand_ins': layout.stand_ins}


def write_stand_ins(layout: plan.Layout) -> bool:
    changed = False
    for name, source in STAND_INS.items():
        changed |= marks.write(
            layout.stand_ins / name,
            template.render(source, values(layout)), 0o755)
    return changed


def link_modules(layout: plan.Layout, log: pathlib.Path) -> bool:
    """Let the virtualenv's Python import Ceph's extension modules.

    They are not on PyPI; Debian builds them for the same Python.
    """
    target, = layout.venv.glob('lib/python3*/site-packages')
    changed = False
    for name in _MODULES:
        path = pathlib.Path(command.output(
            ['/usr/bin/python3', '-c',
             f'import {name}; print({name}.__file__)']).strip())
        link = target / path.name
        if not link.is_symlink():
            link.symlink_to(path)
            changed = True
    return changed


def prepare(layout: plan.Layout) -> bool:
    """Create the directories of Cinder and of the NFS share."""
    share = layout.data / 'nfs'
    existed = share.exists()
    share.mkdir(exist_ok=True)
    for name in ('mnt', 'conversion'):
        (layout.data / 'cinder' / name).mkdir(parents=True, exist_ok=True)
    return not existed


def remove_links(layout: plan.Layout) -> None:
    """Remove the names of devices that the stand-ins made."""
    for link in DEVICES.glob('*/*'):
        if (layout.run / 'rbd' / link.relative_to(DEVICES)).exists():
            link.unlink()
    for directory in (layout.run / 'crypt').glob('*'):
        (MAPPINGS / directory.name).unlink(missing_ok=True)
    for directory in (*DEVICES.glob('*'), DEVICES):
        with contextlib.suppress(OSError):
            directory.rmdir()
