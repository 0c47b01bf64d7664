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

"""Bringing the cloud up: the steps and what each of them needs."""

import collections.abc as cabc
import functools
import pathlib
import shutil
import sys
import typing as ty

from onenode import block_storage
from onenode import ceph
from onenode import command
from onenode import compute_user
from onenode import configuration
from onenode import credentials
from onenode import database
from onenode import host
from onenode import marks
from onenode import network
from onenode import node as compute_node
from onenode import ovn
from onenode import packages
from onenode import passwords
from onenode import plan
from onenode import progress
from onenode import rest
from onenode import sdk
from onenode import services
from onenode import status
from onenode import supervisor
from onenode import venv

TOOLS = plan.REPOSITORY / 'tools'
DEMO_SERVER = 'hello'

# What the README asks for is more: images and volumes come on top.
_DISK = 4 << 30

Action = cabc.Callable[[], ty.Optional[bool]]


class Up:
    """One run of ``tools/cloud up``."""

    def __init__(self, cloud: plan.Plan, report: progress.Reporter) -> None:
        self.cloud = cloud
        self.layout = cloud.layout
        self.report = report
        self.services = services.of(cloud)
        self.supervisor = supervisor.Client(cloud.layout)
        self.address = ''

    def log(self, step: str) -> pathlib.Path:
        return self.layout.log_of(step.replace(' ', '-').lower())

    def run(self) -> bool:
        """Carry out all steps; whether the cloud is up."""
        for directory in (self.layout.log, self.layout.done,
                          self.layout.cache / 'tmp', self.layout.data / 'lock',
                          self.layout.data / 'nova',
                          self.layout.data / 'neutron'):
            directory.mkdir(parents=True, exist_ok=True)
        passwords.load(self.layout)
        return progress.carry_out(list(self.steps()), self.report)

    def steps(self) -> cabc.Iterator[progress.Step]:
        layout, gateway = self.layout, self.cloud.nodes[0]

        def step(name: str, action: cabc.Callable[..., ty.Optional[bool]],
                 *needs: str, args: tuple[ty.Any, ...] = (layout,),
                 logged: bool = True) -> progress.Step:
            more = (self.log(name),) if logged else ()
            return progress.Step(
                name, functools.partial(action, *args, *more), needs)

        yield step('compilers', packages.install, args=(packages.BUILD,))
        yield step('packages', packages.install, 'compilers',
                   args=(packages.SERVICES,))
        yield step('noVNC', packages.unpack_novnc, 'packages')
        yield step('virtualenv', venv.create, 'compilers')
        yield step('driver', self.install_driver, 'virtualenv', args=())
        yield step('compute user', compute_user.create)
        yield step('sudo rights', compute_user.allow_rootwrap, 'packages',
                   'compute user', 'configuration', args=(self.cloud,))
        yield step('configuration', configuration.write_all, 'packages',
                   'compute user', args=(self.cloud,), logged=False)
        yield step('key repositories', self.create_keys, args=(),
                   logged=False)
        yield step('management network', network.create_bridge, 'packages',
                   args=())
        yield step('database files', database.prepare, 'packages')
        yield step('rabbitmq files', self.prepare_rabbitmq, 'packages',
                   args=(), logged=False)
        yield step('OVN files', ovn.prepare, 'packages')
        for node in self.cloud.nodes:
            before = ('packages', 'compute user', 'management network')
            if not node.is_gateway:
                before += (f'{gateway.name} namespace',)
            yield step(f'{node.name} namespace', self.create_node, *before,
                       args=(node,))
            yield step(f'{node.name} OVS settings',
                       compute_node.configure_ovs, f'ovsdb@{node.name}',
                       args=(node,))
            yield step(f'{node.name} bridges', compute_node.create_bridges,
                       f'vswitchd@{node.name}',
                       *(f'{peer.name} namespace'
                         for peer in self.cloud.nodes),
                       args=(node, self.cloud.nodes))
            yield step(f'{node.name} bandwidth',
                       compute_node.report_bandwidth,
                       f'ovn-controller@{node.name}',
                       f'nova-compute@{node.name}', 'neutron-api',
                       args=(node,))
        yield step('supervisor', self.launch_supervisor, 'virtualenv',
                   'configuration', 'driver', args=())
        yield step('database account', database.create_account, 'mariadb',
                   logged=False)
        for name in database.SCHEMAS:
            if not {'cinder': self.cloud.volumes,
                    'barbican': self.cloud.key_manager}.get(name, True):
                continue
            yield progress.Step(
                f'database {name}',
                functools.partial(database.synchronize, layout, name,
                                  self.log(f'database {name}')),
                ('database account', 'configuration', 'virtualenv'))
        yield step('keystone bootstrap', self.bootstrap_keystone,
                   'database keystone', 'key repositories', args=())
        yield step('identity', self.create_identity, 'keystone', args=())
        yield step('horizon files', self.prepare_horizon, 'configuration',
                   'virtualenv', 'driver', args=())
        for service in self.services:
            yield progress.Step(
                service.name, functools.partial(self.start, service),
                ('supervisor', *service.needs))
        if self.cloud.volumes:
            yield from self.volume_steps(step)
        computes = tuple(f'nova-compute@{node.name}'
                         for node in self.cloud.nodes)
        for name, path in (('nova-api', '/v2.1/os-services'),
                           # Not empty: Neutron makes a default group.
                           ('neutron-api', '/v2.0/security-groups')):
            yield step(f'{name} policies', self.make_first_request, name,
                       'identity', args=(name, path), logged=False)
        yield step('networks and flavors', self.create_resources,
                   'nova-api policies', 'neutron-api policies', args=())
        yield step('demo image', self.build_image, 'packages', args=())
        yield step('hello', self.boot_hello, 'networks and flavors',
                   'demo image', 'glance', 'nova-scheduler', 'nova-metadata',
                   'neutron-ovn-maintenance-worker', *computes, *(
                       f'neutron-ovn-metadata-agent@{node.name}'
                       for node in self.cloud.nodes), args=())
        yield step('answers', self.wait_for_answer, 'hello', args=(),
                   logged=False)
        yield step('all services up', self.wait_for_services,
                   'networks and flavors', 'heat-engine', *computes,
                   *(('volume types', 'cinder-volume', 'cinder-scheduler')
                     if self.cloud.volumes else ()), args=(), logged=False)

    def volume_steps(self, step: cabc.Callable[..., progress.Step]
                     ) -> cabc.Iterator[progress.Step]:
        # One after the other: both bring apt's lists up to date.
        yield step('volume packages', packages.install, 'noVNC',
                   args=(packages.VOLUMES,))
        yield step('Ceph modules', block_storage.link_modules,
                   'volume packages', 'virtualenv')
        yield step('volume files', block_storage.prepare, 'volume packages',
                   'Ceph modules', 'configuration', logged=False)
        yield step('stand-ins', block_storage.write_stand_ins, logged=False)
        yield step('ceph files', ceph.prepare, 'volume packages',
                   'configuration')
        yield step('ceph OSD files', ceph.create_osd, 'ceph-mon')
        yield step('ceph pool', ceph.create_pool, 'ceph-osd', 'ceph-mgr')
        yield step('volume types', self.create_volume_types, 'identity',
                   'cinder-api', args=())

    def create_volume_types(self, log: pathlib.Path) -> bool:
        mark = 'volume-types'
        if marks.get(self.layout, mark) is not None:
            return False
        self._api('volume_types',
                  {'admin': credentials.sdk(self.layout, 'admin')}, log)
        marks.put(self.layout, mark)
        return True

    def install_driver(self, log: pathlib.Path) -> bool:
        if self.cloud.driver == 'fake':
            return False
        return venv.install_driver(self.layout, log)

    def create_keys(self) -> bool:
        for name in ('fernet-keys', 'credential-keys'):
            passwords.create_key_repository(
                self.layout.etc / 'keystone' / name)
        return False

    def prepare_rabbitmq(self) -> bool:
        """Begin with an empty broker: queues do not outlive the services."""
        if self.supervisor.is_running():
            return False
        data = self.layout.data / 'rabbitmq'
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        cookie = data / '.erlang.cookie'
        cookie.touch(0o600)
        cookie.write_text(passwords.load(self.layout)['erlang'])
        cookie.chmod(0o400)
        for path in (data, cookie):
            shutil.chown(path, 'rabbitmq', 'rabbitmq')
        return True

    def create_node(self, node: plan.Node, log: pathlib.Path) -> bool:
        if not compute_node.exists(node) and self.supervisor.is_running():
            # They live in a namespace that has lost its name.
            self.supervisor.stop([
                p['name'] for p in self.supervisor.programs()
                if p['name'].endswith(f'@{node.name}')])
        return compute_node.create(node, self.cloud.nodes[0], log)

    def launch_supervisor(self, log: pathlib.Path) -> bool:
        self.layout.work.mkdir(parents=True, exist_ok=True)
        self.layout.tmp.mkdir(exist_ok=True)
        self.layout.tmp.chmod(0o1777)
        supervisor.configure(self.layout, self.services)
        return supervisor.launch(self.layout, self.supervisor, log)

    def start(self, service: services.Service) -> bool:
        started = self.supervisor.start(service.name)
        self.supervisor.wait_started(service)
        return started

    def bootstrap_keystone(self, log: pathlib.Path) -> bool:
        mark = 'keystone-bootstrap'
        if marks.get(self.layout, mark) is not None:
            return False
        url = configuration.url('keystone', '/v3/')
        env = command.environment(
            OS_BOOTSTRAP_PASSWORD=passwords.load(self.layout)['admin'])
        command.run(
            [self.layout.bin / 'keystone-manage', '--config-file',
             self.layout.etc / 'keystone/keystone.conf', 'bootstrap',
             '--bootstrap-region-id', plan.REGION,
             *(word for interface in ('admin', 'internal', 'public')
               for word in (f'--bootstrap-{interface}-url', url))],
            log=log, env=env)
        marks.put(self.layout, mark)
        return True

    def _api(self, module: str, wanted: dict[str, ty.Any],
             log: pathlib.Path) -> dict[str, ty.Any]:
        """Run a module of ``onenode.api`` in the virtualenv."""
        return sdk.call(self.layout, module, wanted, log)

    def create_identity(self, log: pathlib.Path) -> bool:
        mark = 'identity'
        endpoints = services.endpoints(self.cloud)
        kinds = ' '.join(endpoints)
        if marks.get(self.layout, mark) == kinds:
            return False
        self._api('identity', {
            'cloud': credentials.sdk(self.layout, 'admin'),
            'passwords': passwords.load(self.layout),
            'endpoints': endpoints, 'region': plan.REGION}, log)
        marks.put(self.layout, mark, kinds)
        return True

    def prepare_horizon(self, log: pathlib.Path) -> bool:
        """Collect and compress the dashboard's static files."""
        mark = 'horizon'
        settings = self.layout.etc / 'horizon/local_settings.py'
        wanted = (marks.get(self.layout, 'venv') or '') + marks.fingerprint(
            settings, plan.REPOSITORY / 'nova_container_dashboard')
        if marks.get(self.layout, mark) == wanted:
            return False
        marks.drop(self.layout, mark)
        package, = self.layout.venv.glob(
            'lib/python3*/site-packages/openstack_dashboard')
        links = {package / 'local/local_settings.py': settings}
        for plugin in ('heat_dashboard', 'nova_container_dashboard'):
            files = package.parent / plugin
            for kind in ('enabled', 'local_settings.d'):
                links |= {package / 'local' / kind / file.name: file
                          for file in (files / kind).glob('_[0-9]*.py')}
            links |= {package / file.relative_to(files): file
                      for file in (files / 'conf').rglob('*.yaml')}
        for link, target in links.items():
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        shutil.rmtree(self.layout.data / 'horizon', ignore_errors=True)
        (self.layout.data / 'horizon').mkdir()
        env = command.environment(
            DJANGO_SETTINGS_MODULE='openstack_dashboard.settings')
        python = self.layout.bin / 'python'
        for words in (('collectstatic', '--noinput'),
                      ('compress', '--force')):
            command.run([python, '-m', 'django', *words], log=log, env=env)
        marks.put(self.layout, mark, wanted)
        return True

    def make_first_request(self, service: str, path: str) -> bool:
        """Have a service load its policies.

        Nova and Neutron load them in the first request that asks for them,
        and refuse whatever another thread handles meanwhile. Neutron asks for
        each item of a list, so an empty list loads nothing.
        """
        rest.Session(self.layout).get(service, path)
        return False

    def create_resources(self, log: pathlib.Path) -> bool:
        mark = 'resources'
        wanted = {
            'admin': credentials.sdk(self.layout, 'admin'),
            'floating': {'network': plan.FLOATING_NETWORK,
                         'gateway': plan.FLOATING_GATEWAY,
                         'first': '172.24.4.10', 'last': '172.24.4.250'}}
        if marks.get(self.layout, mark) is not None:
            return False
        self._api('resources', wanted, log)
        marks.put(self.layout, mark)
        return True

    @property
    def _image(self) -> pathlib.Path:
        name = 'tiny.raw' if self.cloud.driver == 'fake' else 'nginx.tar'
        return self.layout.cache / name

    def build_image(self, log: pathlib.Path) -> bool:
        path = self._image
        if path.exists():
            return False
        new = path.with_name(f'new-{path.name}')
        if self.cloud.driver == 'fake':
            new.write_bytes(bytes(1024 * 1024))
        else:
            command.run([TOOLS / 'demo-image', 'nginx', new], log=log)
        new.rename(path)
        return True

    def boot_hello(self, log: pathlib.Path) -> bool:
        image: dict[str, ty.Any] = {
            'name': self._image.stem, 'path': str(self._image),
            'container_format': 'docker',
            'properties': {'img_hv_type': 'docker'}}
        if self.cloud.driver == 'fake':
            image.update(container_format='bare', properties={})
        wanted = {
            'admin': credentials.sdk(self.layout, 'admin'),
            'demo': credentials.sdk(self.layout, 'demo'), 'image': image,
            'server': DEMO_SERVER, 'flavor': 'c1.small'}
        try:
            answer = self._api('server', wanted, log)
        except plan.Failure as failure:
            raise plan.Failure(
                f'{failure}\nSee also: tools/cloud logs nova-compute@node1',
                log)
        self.address = answer['address']
        return answer['created']

    def wait_for_answer(self) -> bool:
        if self.cloud.driver == 'fake':
            return False
        url = f'http://{self.address}/'
        command.wait_for(functools.partial(rest.answers, url),
                         f'{url} does not answer', 60,
                         self.layout.log_of('nova-compute@node1'))
        return True

    def wait_for_services(self) -> bool:
        missing: list[str] = []

        def all_up() -> bool:
            missing[:] = status.missing(
                self.cloud, status.api_report(self.cloud))
            return not missing
        if all_up():
            return False
        try:
            command.wait_for(all_up, 'services are not up', 90)
        except plan.Failure as failure:
            raise plan.Failure(f'{failure}: {", ".join(missing)}')
        return True


def check(cloud: plan.Plan) -> None:
    """Check what no step can mend.

    :raises Failure: it tells what is in the way.
    """
    if (cloud.driver == 'container'
            and not (plan.REPOSITORY / 'nova_container/driver.py').exists()):
        raise plan.Failure('this clone has no driver: try --driver fake')
    if sys.version_info < (3, 11):
        raise plan.Failure('OpenStack 2026.2 needs Python 3.11 or later, and '
                           f'{sys.executable} is {sys.version.split()[0]}: '
                           'use Debian 12 or Ubuntu 24.04, or later ones')
    if cloud.driver == 'container' and (lacks := host.obstacle()):
        raise plan.Failure(f'this machine cannot run containers: it {lacks}')
    free = shutil.disk_usage(_existing(cloud.layout.root)).free
    if not cloud.layout.venv.exists() and free < _DISK:
        raise plan.Failure(
            f'{free >> 20} MiB are free for {cloud.layout.root}, and '
            f'{_DISK >> 20} are needed: make room, or choose another --dir')


def _existing(path: pathlib.Path) -> pathlib.Path:
    """The path or the nearest directory above it that is there."""
    return path if path.exists() else _existing(path.parent)
