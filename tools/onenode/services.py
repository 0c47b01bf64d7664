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

"""The services of the cloud: what runs, as whom, and when it is ready."""

import collections.abc as cabc
import dataclasses
import http.client
import pathlib
import socket
import typing as ty

from onenode import ceph
from onenode import configuration
from onenode import plan
from onenode import rest


@dataclasses.dataclass(frozen=True)
class Http:
    """Ready when it answers with anything but a server error."""

    port: int
    path: str = '/'

    def __call__(self) -> bool:
        connection = http.client.HTTPConnection(
            plan.LOOPBACK, self.port, timeout=10)
        try:
            connection.request('GET', self.path)
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclasses.dataclass(frozen=True)
class Listens:
    """Ready when it accepts connections."""

    address: ty.Union[tuple[str, int], str]

    def __call__(self) -> bool:
        family = (socket.AF_UNIX if isinstance(self.address, str)
                  else socket.AF_INET)
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            try:
                client.connect(self.address)
            except OSError:
                return False
            return True


@dataclasses.dataclass(frozen=True)
class IsHypervisor:
    """Ready when the scheduler can use the compute node."""

    node: plan.Node

    def __call__(self) -> bool:
        found = rest.Session(self.node.layout).get(
            'nova-api', '/v2.1/os-hypervisors/detail')
        return any(h['service']['host'] == self.node.name
                   and h['state'] == 'up' for h in found['hypervisors'])


@dataclasses.dataclass(frozen=True)
class Service:
    """One process for the supervisor.

    :ivar needs: steps and services that must be ready before it starts.
    :ivar ready: tells whether it serves; None: as soon as it runs.
    :ivar configs: files it reads at its start; a change restarts it.
    :ivar group_stop: end its whole process group, not only itself.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    ready: ty.Optional[cabc.Callable[[], bool]] = None
    configs: tuple[pathlib.Path, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    group_stop: bool = False
    node: ty.Optional[plan.Node] = None


_INFRASTRUCTURE = frozenset((
    'mariadb', 'memcached', 'epmd', 'rabbitmq', 'ovn-northbound',
    'ovn-southbound', 'ovn-northd', 'ovsdb', 'vswitchd', 'ovn-controller',
    'ceph-mon', 'ceph-mgr', 'ceph-osd'))


def is_infrastructure(name: str) -> bool:
    """Whether other services need this one until they have stopped."""
    return name.partition('@')[0] in _INFRASTRUCTURE


_TO_CONSOLE = ('-vconsole:info', '-vfile:off', '-vsyslog:off')


def _as_user(user: str, *command: str) -> tuple[str, ...]:
    return ('setpriv', f'--reuid={user}', f'--regid={user}', '--init-groups',
            *command)


def _ovsdb_server(database: pathlib.Path, socket_: pathlib.Path,
                  *more: str) -> tuple[str, ...]:
    return ('ovsdb-server', str(database), f'--remote=punix:{socket_}',
            f'--unixctl={socket_.with_suffix(".ctl")}', '--no-chdir',
            *more, *_TO_CONSOLE)


def _infrastructure(layout: plan.Layout) -> cabc.Iterator[Service]:
    data, run, etc = layout.data, layout.run, layout.etc
    yield Service(
        'mariadb',
        ('mariadbd', '--no-defaults', '--user=mysql',
         f'--datadir={data}/mysql', f'--socket={layout.mysql_socket}',
         f'--pid-file={run}/mysqld/mariadbd.pid', '--skip-networking',
         '--max-connections=1000', '--innodb-buffer-pool-size=256M',
         '--innodb-flush-log-at-trx-commit=0', '--skip-name-resolve',
         '--character-set-server=utf8'),
        needs=('database files',), ready=Listens(str(layout.mysql_socket)))
    yield Service(
        'memcached',
        ('memcached', '-u', 'nobody', '-l', plan.LOOPBACK, '-m', '64',
         '-p', str(plan.PORTS['memcached'])),
        ready=Listens((plan.LOOPBACK, plan.PORTS['memcached'])))
    epmd = ('ERL_EPMD_PORT', str(plan.PORTS['epmd']))
    yield Service(
        'epmd', _as_user('rabbitmq', 'epmd', '-address', plan.LOOPBACK,
                         '-port', str(plan.PORTS['epmd'])),
        ready=Listens((plan.LOOPBACK, plan.PORTS['epmd'])))
    yield Service(
        'rabbitmq',
        _as_user('rabbitmq', '/usr/lib/rabbitmq/bin/rabbitmq-server'),
        needs=('epmd', 'rabbitmq files', 'management network'),
        ready=Listens((plan.MANAGEMENT, plan.PORTS['rabbitmq'])),
        configs=(etc / 'rabbitmq/rabbitmq.conf',
                 etc / 'rabbitmq/rabbitmq-env.conf'),
        env=(('HOME', f'{data}/rabbitmq'), epmd,
             ('RABBITMQ_CONF_ENV_FILE', f'{etc}/rabbitmq/rabbitmq-env.conf')),
        group_stop=True)
    for name, database, socket_ in (
            ('ovn-northbound', 'nb.db', layout.northbound),
            ('ovn-southbound', 'sb.db', layout.southbound)):
        yield Service(name, _ovsdb_server(data / 'ovn' / database, socket_),
                      needs=('OVN files',), ready=Listens(str(socket_)))
    yield Service(
        'ovn-northd',
        ('ovn-northd', f'--ovnnb-db=unix:{layout.northbound}',
         f'--ovnsb-db=unix:{layout.southbound}',
         f'--unixctl={run}/ovn/ovn-northd.ctl', *_TO_CONSOLE),
        needs=('ovn-northbound', 'ovn-southbound'))


def _ceph(layout: plan.Layout) -> cabc.Iterator[Service]:
    configs = (ceph.config(layout),)
    yield Service(
        'ceph-mon', ceph.daemon(layout, 'mon', 'a'), configs=configs,
        needs=('ceph files', 'management network'),
        ready=Listens((plan.MANAGEMENT, plan.PORTS['ceph-mon'])))
    yield Service('ceph-mgr', ceph.daemon(layout, 'mgr', 'a'),
                  needs=('ceph-mon',), configs=configs)
    yield Service('ceph-osd', ceph.daemon(layout, 'osd', '0'),
                  needs=('ceph OSD files',), configs=configs)


def _on_node(node: plan.Node, cloud: plan.Plan) -> cabc.Iterator[Service]:
    driver = cloud.driver
    layout, at = node.layout, f'@{node.name}'
    venv, etc = layout.bin, layout.etc
    ovs = (('OVS_RUNDIR', str(node.run)), ('OVN_RUNDIR', str(node.run)))
    yield Service(
        f'ovsdb{at}',
        # os-vif talks to this port by default.
        node.enter() + _ovsdb_server(node.run / 'conf.db', node.ovsdb,
                                     '--remote=ptcp:6640:127.0.0.1'),
        needs=(f'{node.name} namespace',), ready=Listens(str(node.ovsdb)),
        env=ovs, node=node)
    yield Service(
        f'vswitchd{at}',
        node.enter() + ('ovs-vswitchd', f'unix:{node.ovsdb}',
                        f'--unixctl={node.run}/vswitchd.ctl', *_TO_CONSOLE),
        needs=(f'{node.name} OVS settings',),
        ready=Listens(f'{node.run}/vswitchd.ctl'), env=ovs, node=node)
    yield Service(
        f'ovn-controller{at}',
        node.enter() + ('ovn-controller', f'unix:{node.ovsdb}',
                        *_TO_CONSOLE),
        needs=(f'{node.name} bridges', 'ovn-southbound'), env=ovs, node=node)
    yield Service(
        f'neutron-ovn-metadata-agent{at}',
        ('nsenter', f'--net={node.netns}', f'--mount={node.mntns}', '--',
         f'{venv}/neutron-ovn-metadata-agent',
         '--config-file', str(node.metadata_config)),
        needs=(f'ovn-controller{at}', 'rabbitmq', 'neutron-api'),
        configs=(node.metadata_config,), env=ovs, node=node)
    compute = [node.config, etc / 'rootwrap.conf',
               etc / 'rootwrap.d/compute.filters']
    if driver == 'container':
        compute.append(layout.done / 'driver')
    env = [('HOME', str(node.nova_state))]
    if cloud.volumes:
        env.append(('PATH', f'{layout.stand_ins}:{venv}:/usr/sbin:/usr/bin:'
                    '/sbin:/bin'))
    yield Service(
        f'nova-compute{at}',
        node.enter() + _as_user(
            plan.COMPUTE_USER, f'{venv}/nova-compute',
            '--config-file', str(node.config)),
        needs=(f'ovn-controller{at}', 'nova-conductor', 'nova-scheduler',
               'nova-api policies', 'neutron-api policies', 'placement',
               'driver', 'sudo rights'),
        configs=tuple(compute), env=tuple(env),
        node=node, ready=IsHypervisor(node))


def _control_plane(cloud: plan.Plan) -> cabc.Iterator[Service]:
    layout, driver = cloud.layout, cloud.driver
    etc, venv = layout.etc, layout.bin

    def wsgi(name: str, module: str, needs: tuple[str, ...],
             configs: tuple[str | pathlib.Path, ...],
             env: tuple[tuple[str, str], ...] = (),
             arguments: tuple[str, ...] = (), path: str = '/') -> Service:
        port = plan.PORTS[name]
        return Service(
            name,
            (f'{venv}/uwsgi', '--ini', f'{etc}/uwsgi.ini',
             '--procname-prefix', f'{name} ',
             '--http-socket', f'{plan.LOOPBACK}:{port}',
             '--http-socket', f'{plan.MANAGEMENT}:{port}',
             *(('--module', f'{module}:application') if module else ()),
             *arguments),
            needs=('memcached', *needs), ready=Http(port, path),
            configs=(etc / 'uwsgi.ini', *(etc / c for c in configs)), env=env)

    def daemon(name: str, needs: tuple[str, ...],
               *configs: str, env: tuple[tuple[str, str], ...] = (),
               also: tuple[pathlib.Path, ...] = ()) -> Service:
        files = tuple(etc / c for c in configs)
        arguments = [word for file in files
                     for word in ('--config-file', str(file))]
        return Service(name, (f'{venv}/{name}', *arguments),
                       needs=needs, configs=(*files, *also), env=env)

    yield wsgi('keystone', 'keystone.wsgi.api',
               ('keystone bootstrap', 'management network'),
               ('keystone/keystone.conf',),
               (('OS_KEYSTONE_CONFIG_FILES',
                 f'{etc}/keystone/keystone.conf'),), path='/v3')
    yield wsgi('glance', 'glance.wsgi.api', ('database glance', 'keystone'),
               ('glance/glance-api.conf',),
               (('OS_GLANCE_CONFIG_DIR', f'{etc}/glance'),))
    yield wsgi('placement', 'placement.wsgi.api',
               ('database placement', 'keystone'),
               ('placement/placement.conf',),
               (('OS_PLACEMENT_CONFIG_DIR', f'{etc}/placement'),))
    nova = (('OS_NOVA_CONFIG_FILES', f'{layout.venv}/etc/nova/api-paste.ini;'
             f'{etc}/nova/nova.conf'),)
    # Nova's client of placement looks into the catalogue once.
    yield daemon('nova-conductor', ('database nova', 'rabbitmq', 'identity'),
                 'nova/nova.conf')
    yield daemon('nova-scheduler', ('database nova', 'rabbitmq', 'placement',
                                    'identity'), 'nova/nova.conf')
    # The API validates the driver's extra specs.
    installed = (layout.done / 'driver',) if driver == 'container' else ()
    yield wsgi('nova-api', 'nova.wsgi.osapi_compute',
               ('database nova', 'rabbitmq', 'identity'),
               ('nova/nova.conf', 'nova/policy.yaml', *installed), nova)
    yield wsgi('nova-metadata', 'nova.wsgi.metadata',
               ('database nova', 'rabbitmq', 'nova-api'),
               ('nova/nova.conf',), nova)
    yield Service(
        'nova-serialproxy',
        (f'{venv}/nova-serialproxy', '--config-file', f'{etc}/nova/nova.conf'),
        needs=('database nova', 'rabbitmq', 'management network'),
        ready=Listens((plan.MANAGEMENT, plan.PORTS['nova-serialproxy'])),
        configs=(etc / 'nova/nova.conf',),
        # The proxies alone would still use eventlet.
        env=(('OS_NOVA_DISABLE_EVENTLET_PATCHING', 'true'),))
    yield Service(
        'nova-novncproxy',
        (f'{venv}/nova-novncproxy', '--config-file', f'{etc}/nova/nova.conf',
         '--web', str(layout.novnc)),
        needs=('database nova', 'rabbitmq', 'management network', 'noVNC'),
        ready=Listens((plan.MANAGEMENT, plan.PORTS['nova-novncproxy'])),
        configs=(etc / 'nova/nova.conf',),
        env=(('OS_NOVA_DISABLE_EVENTLET_PATCHING', 'true'),))
    neutron = (('OS_NEUTRON_CONFIG_FILES',
                f'{etc}/neutron/neutron.conf;{etc}/neutron/ml2_conf.ini'),)
    ovn = ('database neutron', 'rabbitmq', 'ovn-northd', 'keystone')
    yield wsgi('neutron-api', 'neutron.wsgi.api', ovn,
               ('neutron/neutron.conf', 'neutron/ml2_conf.ini'), neutron)
    yield daemon('neutron-ovn-maintenance-worker', (*ovn, 'neutron-api'),
                 'neutron/neutron.conf', 'neutron/ml2_conf.ini')
    yield wsgi('heat-api', 'heat.wsgi.api',
               ('database heat', 'rabbitmq', 'keystone'), ('heat/heat.conf',),
               arguments=('--pyargv', f'--config-file {etc}/heat/heat.conf'))
    yield daemon('heat-engine', ('database heat', 'rabbitmq', 'identity'),
                 'heat/heat.conf', also=installed)
    yield wsgi('horizon', 'openstack_dashboard.wsgi',
               ('horizon files', 'keystone'),
               ('horizon/local_settings.py', layout.done / 'horizon'),
               path='/auth/login/',
               arguments=('--static-map',
                          f'/static={layout.data}/horizon/static'))
    if cloud.key_manager:
        # It looks for its configuration in its home directory.
        yield wsgi('barbican', '', ('database barbican', 'keystone'),
                   ('barbican/barbican.conf',),
                   (('HOME', f'{etc}/barbican'),),
                   arguments=('--paste', f'config:{layout.venv}/etc/barbican/'
                              'barbican-api-paste.ini'))
    if not cloud.volumes:
        return
    cinder = ('database cinder', 'rabbitmq', 'keystone')
    yield wsgi('cinder-api', 'cinder.wsgi.api', cinder,
               ('cinder/cinder.conf',),
               arguments=('--pyargv',
                          f'--config-file {etc}/cinder/cinder.conf'))
    yield daemon('cinder-scheduler', cinder, 'cinder/cinder.conf')
    yield daemon('cinder-volume', (*cinder, 'identity', 'ceph pool',
                                   'volume files'), 'cinder/cinder.conf',
                 env=(('PATH', f'{layout.stand_ins}:{venv}:/usr/sbin:'
                       '/usr/bin:/sbin:/bin'),))


def of(cloud: plan.Plan) -> tuple[Service, ...]:
    """Every service of the cloud."""
    services = [*_infrastructure(cloud.layout), *_control_plane(cloud)]
    if cloud.volumes:
        services += _ceph(cloud.layout)
    for node in cloud.nodes:
        services += _on_node(node, cloud)
    return tuple(services)


def endpoints(cloud: plan.Plan) -> dict[str, dict[str, str]]:
    """The service catalogue: service type to name and URL."""
    entries = [
        ('image', 'glance', 'glance', ''),
        ('placement', 'placement', 'placement', ''),
        ('compute', 'nova', 'nova-api', '/v2.1'),
        ('network', 'neutron', 'neutron-api', ''),
        ('orchestration', 'heat', 'heat-api', '/v1/%(tenant_id)s')]
    if cloud.key_manager:
        entries.append(('key-manager', 'barbican', 'barbican', ''))
    if cloud.volumes:
        # Heat looks for the older type.
        entries += [
            ('block-storage', 'cinder', 'cinder-api', '/v3/%(tenant_id)s'),
            ('volumev3', 'cinderv3', 'cinder-api', '/v3/%(tenant_id)s')]
    return {kind: {'name': name, 'url': configuration.url(service, path)}
            for kind, name, service, path in entries}
