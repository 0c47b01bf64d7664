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

"""A Ceph cluster of one monitor, one manager and one OSD on a file.

Small on purpose: one placement group per 8 would be waste, caches are bounded
and nothing is replicated. The steps follow Ceph's "Manual Deployment".
"""

import pathlib
import shutil
import uuid

from onenode import command
from onenode import compute_user
from onenode import marks
from onenode import plan

USER = 'ceph'
CLIENT = 'cinder'
POOL = 'volumes'
# The OSD's file is sparse; what it holds is what the volumes hold.
OSD_SIZE = 64 << 30

_CAPABILITIES = {
    'mon.': ('mon', 'allow *'),
    'client.admin': ('mon', 'allow *', 'osd', 'allow *', 'mgr', 'allow *'),
    'mgr.a': ('mon', 'allow profile mgr', 'osd', 'allow *', 'mds', 'allow *'),
    'osd.0': ('mon', 'allow profile osd', 'mgr', 'allow profile osd',
              'osd', 'allow *'),
    f'client.{CLIENT}': ('mon', 'profile rbd', 'osd',
                         f'profile rbd pool={POOL}', 'mgr',
                         f'profile rbd pool={POOL}'),
}


def directory(layout: plan.Layout) -> pathlib.Path:
    return layout.data / 'ceph'


def config(layout: plan.Layout) -> pathlib.Path:
    return layout.etc / 'ceph/ceph.conf'


def address() -> str:
    """Where the monitor listens, in the notation of mon_host."""
    return f'v1:{plan.MANAGEMENT}:{plan.PORTS["ceph-mon"]}'


def daemon(layout: plan.Layout, kind: str, name: str) -> tuple[str, ...]:
    """The command of a daemon that stays in the foreground."""
    return (f'ceph-{kind}', '-f', '--conf', str(config(layout)),
            '--id', name, '--setuser', USER, '--setgroup', USER)


def _as_user(*words: object) -> list[object]:
    return ['setpriv', f'--reuid={USER}', f'--regid={USER}', '--init-groups',
            *words]


def _give(path: pathlib.Path) -> None:
    for entry in (path, *path.rglob('*')):
        shutil.chown(entry, USER, USER)


def cluster_id(layout: plan.Layout) -> str:
    """The cluster's UUID, made the first time."""
    path = layout.data / 'ceph-fsid'
    if not path.exists():
        marks.write(path, str(uuid.uuid4()))
    return path.read_text()


def prepare(layout: plan.Layout, log: pathlib.Path) -> bool:
    """Create keys and the monitor's store, whole or not at all."""
    final = directory(layout)
    # For sockets of the daemons.
    run = layout.run / 'ceph'
    run.mkdir(parents=True, exist_ok=True)
    shutil.chown(run, USER, USER)
    if final.exists():
        return False
    new = final.with_name('ceph.new')
    shutil.rmtree(new, ignore_errors=True)
    for name in ('mon', 'mgr', 'osd'):
        (new / name).mkdir(parents=True)
    keyring = new / 'keyring'
    create = ['--create-keyring']
    for entity, grants in _CAPABILITIES.items():
        words = [word for kind, text in zip(grants[::2], grants[1::2])
                 for word in ('--cap', kind, text)]
        command.run(['ceph-authtool', keyring, *create, '--gen-key',
                     '--name', entity, *words], log=log)
        create = []
    for entity, path in (('mgr.a', 'mgr/keyring'), ('osd.0', 'osd/keyring'),
                         ('client.admin', 'admin.keyring'),
                         (f'client.{CLIENT}', f'{CLIENT}.keyring')):
        marks.write(new / path, command.output(
            ['ceph-authtool', keyring, '--print-key', '--name', entity]),
            0o600)
        _write_keyring(new / path, entity)
    command.run(['monmaptool', '--create', '--clobber', '--fsid',
                 cluster_id(layout), '--addv', 'a', f'[{address()}]',
                 new / 'monmap'], log=log)
    _give(new)
    command.run(_as_user('ceph-mon', '--conf', config(layout), '--mkfs',
                         '--id', 'a', '--mon-data', new / 'mon', '--monmap',
                         new / 'monmap', '--keyring', keyring), log=log)
    new.rename(final)
    return True


def _write_keyring(path: pathlib.Path, entity: str) -> None:
    key = path.read_text().strip()
    marks.write(path, f'[{entity}]\n\tkey = {key}\n', 0o600)


def _ceph(layout: plan.Layout, *words: object) -> tuple[object, ...]:
    return ('ceph', '--conf', config(layout), '--connect-timeout', '60',
            *words)


def create_osd(layout: plan.Layout, log: pathlib.Path) -> bool:
    """Create the OSD's store; the monitor must run."""
    mark = 'ceph-osd'
    if marks.get(layout, mark) is not None:
        return False
    path = directory(layout) / 'osd'
    for left in path.iterdir():
        if left.name != 'keyring':
            left.unlink()
    name = str(uuid.uuid5(uuid.UUID(cluster_id(layout)), 'osd.0'))
    command.run(_ceph(layout, 'osd', 'new', name, '0'), log=log)
    command.run(_as_user('ceph-osd', '--conf', config(layout), '--id', '0',
                         '--mkfs', '--osd-uuid', name), log=log)
    marks.put(layout, mark)
    return True


def create_pool(layout: plan.Layout, log: pathlib.Path) -> bool:
    """Create the pool of Cinder's volumes; OSD and manager must run."""
    mark = 'ceph-pool'
    if marks.get(layout, mark) is not None:
        return False
    command.run(_ceph(layout, 'osd', 'pool', 'create', POOL), log=log)
    command.run(['rbd', '--conf', config(layout), 'pool', 'init', POOL],
                log=log)
    marks.put(layout, mark)
    return True


def config_values(layout: plan.Layout) -> dict[str, object]:
    """What the template of ceph.conf needs."""
    return {'ceph': directory(layout), 'ceph_client': CLIENT,
            'ceph_fsid': cluster_id(layout), 'ceph_monitor': address(),
            'ceph_pool': POOL, 'ceph_osd_size': OSD_SIZE,
            'ceph_config': config(layout)}


def group() -> int:
    """The group of the daemons.

    :raises Failure: the packages are not installed.
    """
    return compute_user.group_of(USER)
