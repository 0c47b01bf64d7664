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

"""MariaDB: its files, and the schemas of the services."""

import collections.abc as cabc
import pathlib
import shutil

from onenode import command
from onenode import marks
from onenode import passwords
from onenode import plan

# Step name to the databases it fills.
SCHEMAS = {
    'keystone': ('keystone',),
    'glance': ('glance',),
    'placement': ('placement',),
    'neutron': ('neutron',),
    'heat': ('heat',),
    'cinder': ('cinder',),
    'barbican': ('barbican',),
    'nova': ('nova_api', 'nova_cell0', 'nova_cell1'),
}


def prepare(layout: plan.Layout, log: pathlib.Path) -> bool:
    """Create the data directory, whole or not at all."""
    final = layout.data / 'mysql'
    layout.mysql_socket.parent.mkdir(parents=True, exist_ok=True)
    shutil.chown(layout.mysql_socket.parent, 'mysql', 'mysql')
    if final.exists():
        return False
    new = layout.data / 'mysql.new'
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    shutil.chown(new, 'mysql', 'mysql')
    command.run(['mariadb-install-db', '--no-defaults', '--user=mysql',
                 f'--datadir={new}', '--skip-test-db',
                 '--auth-root-authentication-method=socket'], log=log)
    new.rename(final)
    return True


def execute(layout: plan.Layout, statements: str) -> str:
    """Execute SQL as root."""
    return command.output(
        ['mariadb', '--no-defaults', '--batch', '--skip-column-names',
         f'--socket={layout.mysql_socket}'], stdin=statements)


def create_account(layout: plan.Layout) -> bool:
    """Create the account of the services."""
    databases = [name for names in SCHEMAS.values() for name in names]
    wanted = ' '.join(databases)
    if marks.get(layout, 'database-account') == wanted:
        return False
    password = passwords.load(layout)['database']
    execute(layout,
            "CREATE OR REPLACE USER openstack@localhost "
            f"IDENTIFIED BY '{password}';"
            + ''.join(f'GRANT ALL ON {name}.* TO openstack@localhost;'
                      for name in databases))
    marks.put(layout, 'database-account', wanted)
    return True


def _commands(layout: plan.Layout, name: str
              ) -> cabc.Iterator[tuple[object, ...]]:
    etc, venv = layout.etc, layout.bin

    def manage(program: str, *configs: str) -> tuple[object, ...]:
        return (venv / program, *(word for config in configs
                                  for word in ('--config-file', etc / config)))
    if name == 'keystone':
        yield (*manage('keystone-manage', 'keystone/keystone.conf'),
               'db_sync')
    elif name == 'glance':
        glance = manage('glance-manage', 'glance/glance-api.conf')
        yield *glance, 'db_sync'
        # The properties that the dashboard knows by name.
        yield (*glance, 'db_load_metadefs',
               layout.venv / 'etc/glance/metadefs')
    elif name == 'placement':
        yield (*manage('placement-manage', 'placement/placement.conf'),
               'db', 'sync')
    elif name == 'neutron':
        yield (*manage('neutron-db-manage', 'neutron/neutron.conf',
                       'neutron/ml2_conf.ini'), 'upgrade', 'heads')
    elif name == 'heat':
        yield *manage('heat-manage', 'heat/heat.conf'), 'db_sync'
    elif name == 'cinder':
        yield *manage('cinder-manage', 'cinder/cinder.conf'), 'db', 'sync'
    elif name == 'barbican':
        yield ('env', f'HOME={etc}/barbican', venv / 'barbican-db-manage',
               'upgrade')
    elif name == 'nova':
        nova = manage('nova-manage', 'nova/nova.conf')
        password = passwords.load(layout)['database']
        yield *nova, 'api_db', 'sync'
        yield (*nova, 'cell_v2', 'map_cell0', '--database_connection',
               f'mysql+pymysql://openstack:{password}@localhost/nova_cell0'
               f'?unix_socket={layout.mysql_socket}&charset=utf8')
        yield *nova, 'db', 'sync'
        if marks.get(layout, 'database-nova') is None:
            yield *nova, 'cell_v2', 'create_cell', '--name', 'cell1'


def synchronize(layout: plan.Layout, name: str, log: pathlib.Path) -> bool:
    """Bring a service's databases to the schema of the installed version.

    MariaDB does not roll back changes of a schema: what an interrupted first
    run left is dropped.
    """
    mark = f'database-{name}'
    wanted = marks.get(layout, 'venv') or ''
    have = marks.get(layout, mark)
    if have == wanted:
        return False
    if have is None:
        execute(layout, ''.join(
            f'DROP DATABASE IF EXISTS {database};'
            f'CREATE DATABASE {database} CHARACTER SET utf8;'
            for database in SCHEMAS[name]))
    for words in _commands(layout, name):
        command.run(words, log=log)
    marks.put(layout, mark, wanted)
    return True
