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

"""A test against the cloud that ``tools/cloud up`` started, as a user."""

import contextlib
import datetime
import functools
import io
import json
import os
import pathlib
import signal
import subprocess
import threading
import unittest
import uuid

import fixtures
import openstack
from openstack import resource
from openstack import utils
from oslo_config import cfg
import psutil

from nova_container import conf
from nova_container.privileged import context
from nova_container.runtime import engine
from nova_container.spec import command
from tests import archives
from tests.functional import base as functional

_CLOUD = pathlib.Path(__file__).resolve().parents[2] / 'tools' / 'cloud'
_RUN = pathlib.Path('/run/nova-container-cloud')
_TIMEOUT = 180

CONF = cfg.CONF


@functools.cache
def cloud() -> dict:
    """What ``tools/cloud status --format json`` says."""
    done = subprocess.run([_CLOUD, 'status', '--format', 'json'], text=True,
                          capture_output=True)
    if not done.stdout:
        raise AssertionError(f'the cloud does not answer: {done.stderr}; '
                             'run tools/cloud up first')
    return json.loads(done.stdout)


@functools.cache
def connect(user: str) -> openstack.connection.Connection:
    """openstacksdk's connection of ``admin`` or ``demo``."""
    return connect_to(user, user)


def connect_to(project: str,
               user: str = 'demo') -> openstack.connection.Connection:
    """openstacksdk's connection of a user in a project."""
    auth = {**cloud()['auth'][user], 'project_name': project}
    region = auth.pop('region_name')
    return openstack.connect(auth=auth, region_name=region,
                             load_yaml_config=False, load_envvars=False,
                             compute_api_version='2.93')


def openstack_process(*words: str, **settings: str) -> subprocess.Popen[str]:
    """The OpenStack client, started as the demo user does.

    :param settings: for its environment, as OS_PROJECT_NAME
    """
    auth = {f'OS_{name.upper()}': value
            for name, value in cloud()['auth']['demo'].items()}
    return subprocess.Popen(
        [f'{cloud()["venv"]}/bin/openstack', *words], text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={
            **os.environ, 'OS_CLIENT_CONFIG_FILE': '/dev/null', **auth,
            **settings})


def openstack_command(*words: str,
                      **settings: str) -> subprocess.CompletedProcess[str]:
    """The same, run to its end."""
    with openstack_process(*words, **settings) as process:
        try:
            out, error = process.communicate(timeout=300)
        finally:
            process.kill()
    return subprocess.CompletedProcess(words, process.returncode, out, error)


def service_pid(name: str) -> int:
    """Process id of a service of the cloud now, by its supervisor."""
    cloud.cache_clear()
    return next(row['pid'] for row in cloud()['services']
                if row['name'] == name)


def await_new_pid(name: str, old: int) -> None:
    """Wait until the supervisor has started a service anew and it is up.

    For nova-compute: until it has reported for work since. Nova gives up a
    build that it finds on its way when it starts.
    """
    for _ in utils.iterate_timeout(_TIMEOUT, f'{name} does not come back',
                                   wait=0.5):
        pid = service_pid(name)
        if pid is not None and pid != old and cloud()['ok']:
            break
    binary, _, host = name.partition('@')
    if binary != 'nova-compute':
        return
    began = psutil.Process(pid).create_time()
    for _ in utils.iterate_timeout(_TIMEOUT, f'{name} does not report',
                                   wait=0.5):
        (service,) = connect('admin').compute.services(binary=binary,
                                                       host=host)
        reported = datetime.datetime.fromisoformat(service.updated_at)
        if reported.replace(tzinfo=datetime.UTC).timestamp() > began + 1:
            return


def kill_group(pid: int) -> None:
    """Kill a service with its workers."""
    for process in [*psutil.Process(pid).children(recursive=True),
                    psutil.Process(pid)]:
        process.kill()


def kill_computes(moment: float, nodes=None) -> None:
    """Kill nova-compute and wait until it is back.

    :param moment: seconds from now
    :param nodes: where; everywhere if it is not said
    """
    pids = {name: service_pid(name) for name in (
        f'nova-compute@{node["name"]}' for node in nodes or cloud()['nodes'])}
    timers = [threading.Timer(moment, os.kill, (pid, signal.SIGKILL))
              for pid in pids.values()]
    for timer in timers:
        timer.start()
    for timer in timers:
        timer.join()
    for name, pid in pids.items():
        await_new_pid(name, pid)


def visit(name: str) -> None:
    """From now on, this process works on the containers of a node, as root.
    """
    node = next(node for node in cloud()['nodes'] if node['name'] == name)
    conf.register_opts(CONF)
    context.set_client_mode(False)
    CONF([], project='nova', default_config_files=[node['config']],
         default_config_dirs=[])


def inside(host: str, container_id: str, script: str) -> str:
    """What a shell script says in a container of a node."""
    visit(host)
    done = engine.execute(
        container_id, command.Command(('/bin/sh', '-c', script)))
    if done.exit_code != 0:
        raise AssertionError(f'{script}: {done}')
    return done.stdout.decode().strip('\n')


def privileged_helpers(node: dict) -> list[psutil.Process]:
    """The driver's own helpers of a node's compute service."""
    found = []
    for process in psutil.process_iter(['cmdline']):
        words = process.info['cmdline'] or ()
        if (node['config'] in words
                and 'nova_container.privileged.context' in words):
            found.append(process)
    return found


def transfers() -> list[str]:
    """What is left in Glance of servers that moved; no user sees it."""
    return [image.name for image in connect('admin').image.images(
        is_hidden=True, visibility='all')
        if (image.name or '').startswith('nova-container-transfer-')]


def spooled() -> list[str]:
    """Archives on their way into a node."""
    return [path for node in cloud()['nodes']
            for path in _entries(f'{node["state_path"]}/spool')]


def nova_config() -> pathlib.Path:
    """Settings of Nova's controller."""
    return (pathlib.Path(cloud()['nodes'][0]['config']).parents[1]
            / 'nova' / 'nova.conf')


def nova_manage(*words: str) -> subprocess.CompletedProcess[str]:
    """What an administrator of Nova runs."""
    return subprocess.run(
        [f'{cloud()["venv"]}/bin/nova-manage', '--config-file',
         nova_config(), *words], capture_output=True, text=True)


def restart(name: str) -> None:
    """Restart a service through ``tools/cloud`` and wait until it is up."""
    subprocess.run([_CLOUD, 'restart', name], check=True, timeout=_TIMEOUT,
                   capture_output=True)


def host_state() -> dict[str, list[str]]:
    """What containers leave on the nodes, by kind; empty when there is none.
    """
    found: dict[str, list[str]] = {}

    def add(kind: str, items) -> None:
        found.setdefault(kind, []).extend(sorted(items))

    for node in cloud()['nodes']:
        for name in ('containers', 'parked', 'ids', 'trash', 'layers/tmp',
                     'spool', 'connections'):
            add(name, _entries(f'{node["state_path"]}/{name}'))
        for name in ('c', 'oci', 'exits'):
            add(f'run/{name}', _entries(f'{node["run_path"]}/{name}'))
        add('volumes', (name for name in _entries(
            f'{node["run_path"]}/volumes') if name.endswith('.json')))
        add('shares', (line for line in _run('cat', '/proc/self/mounts')
                       if f' {node["state_path"]}/mnt/' in line))
        for hierarchy in _entries('/sys/fs/cgroup'):
            path = f'/sys/fs/cgroup/{hierarchy}/{node["cgroup_parent"]}'
            add('cgroups', (entry for entry in _entries(path)
                            if os.path.isdir(f'{path}/{entry}')
                            and entry != 'monitors'))
        metadata = _metadata_ports(node) | _metadata_links(node)
        add('ports', (port for port in _run(
            'ovs-vsctl', f'--db={node["ovsdb"]}', 'list-ports', 'br-int')
            if port.startswith('tap') and port not in metadata))
        add('links', {name for name in _links(node)
                      if name.startswith('tap')} - metadata)
        add('mounts', (line for line in _run(
            'nsenter', f'--mount={node["run_path"]}/ns/mnt', 'cat',
            '/proc/self/mounts') if 'overlay' in line
            and node['run_path'] in line))
        for pid in filter(str.isdigit, os.listdir('/proc')):
            with contextlib.suppress(OSError):
                words = pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()
                if words.startswith(b'conmon') or b'/conmon\0' in words[:64]:
                    if node['run_path'].encode() + b'/' in words:
                        add('monitors', [words.decode()])
    add('loop devices', _loop_files())
    for devices, names in (('/dev/rbd', 'rbd'), ('/dev/mapper', 'crypt')):
        add('mapped', _stand_ins(devices, _RUN / names))
    return {kind: items for kind, items in found.items() if items}


def _stand_ins(devices: str, records: pathlib.Path) -> list[str]:
    """Devices of the cloud's stand-ins; other clouds have theirs there, too.
    """
    return [str(path) for path in pathlib.Path(devices).rglob('*')
            if path.is_symlink()
            and (records / path.relative_to(devices)).exists()]


def _loop_files() -> list[str]:
    """Files of the cloud on loop devices; others may have the same names."""
    found = []
    for line in _run('losetup', '--list', '--noheadings', '--raw', '--output',
                     'BACK-INO,BACK-FILE'):
        number, _, path = line.partition(' ')
        with contextlib.suppress(OSError):
            if (path.startswith((cloud()['dir'], f'{_RUN}/'))
                    and os.stat(path).st_ino == int(number)):
                found.append(path)
    return found


def _metadata_ports(node: dict) -> set[str]:
    """Ports of the metadata agent: they stay as long as their network.

    os-vif and Nova mark an instance's port with its MAC address.
    """
    rows = json.loads('\n'.join(_run(
        'ovs-vsctl', f'--db={node["ovsdb"]}', '--format=json',
        '--columns=name,external_ids', 'list', 'Interface')))['data']
    return {name for name, (_, ids) in rows
            if name.startswith('tap') and 'attached-mac' not in dict(ids)}


def _metadata_links(node: dict) -> set[str]:
    """Outer ends of the links to networks' metadata namespaces.

    The agent takes the port away first, the namespace last.
    """
    return {f'tap{name.removeprefix("ovnmeta-")[:10]}0' for name in _run(
        'nsenter', f'--mount={node["mntns"]}', 'ls', '/run/netns')
        if name.startswith('ovnmeta-')}


def _links(node: dict) -> set[str]:
    return {link['ifname'] for link in json.loads(''.join(_run(
        'nsenter', f'--net={node["netns"]}', 'ip', '-j', 'link')))}


def _entries(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def _run(*command: str) -> list[str]:
    return subprocess.run(command, check=True, text=True,
                          capture_output=True).stdout.splitlines()


class CloudTestCase(unittest.TestCase):
    """Servers of one test, and nothing of them on any node afterwards."""

    # Seconds after which a test is given up.
    timeout = int(os.environ.get('OS_TEST_TIMEOUT', 1200))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.user = connect('demo')
        cls.admin = connect('admin')
        cls.network = cls.user.network.find_network('private',
                                                    ignore_missing=False)

    def setUp(self):
        super().setUp()
        self.enterContext(fixtures.Timeout(self.timeout, gentle=True))
        self.before = host_state()
        self.addCleanup(lambda: self.assertEqual(
            self.before, host_state(), 'left on the nodes'))

    @classmethod
    def new_project(cls):
        """An empty project in which the demo user is a member."""
        identity = cls.admin.identity
        project = identity.create_project(
            name=f'test-{uuid.uuid4().hex[:8]}', domain_id='default')
        cls.addClassCleanup(identity.delete_project, project)
        identity.assign_project_role_to_user(
            project, identity.find_user('demo'), identity.find_role('member'))
        return project

    @classmethod
    def upload(cls, archive: bytes, **fields) -> str:
        """An image of the demo user's; its id."""
        fields = {'container_format': 'docker', 'disk_format': 'raw',
                  'properties': {'img_hv_type': 'docker'}, **fields}
        image = cls.user.image.create_image(
            name=f'test-{uuid.uuid4().hex[:8]}', data=io.BytesIO(archive),
            allow_duplicates=True, **fields)
        cls.addClassCleanup(cls.user.image.delete_image, image)
        return image.id

    @classmethod
    @functools.cache
    def busybox(cls) -> str:
        """A busybox that sleeps."""
        return cls.upload(busybox_archive())

    def boot(self, image: str | None, flavor: str = 'c1.tiny',
             name: str = 'test', networks=None, **fields):
        """A server, asked for; removed after the test.

        :param image: None for one that boots from a volume
        """
        if image is not None:
            fields['image_id'] = image
        server = self.user.compute.create_server(
            name=name,
            flavor_id=self.user.compute.find_flavor(
                flavor, ignore_missing=False).id,
            networks=networks or [{'uuid': self.network.id}], **fields)
        self.addCleanup(self.delete, server)
        return server

    def active(self, server):
        """The server, once it is ACTIVE."""
        return self.user.compute.wait_for_server(
            server, wait=_TIMEOUT, interval=0.5)

    def status(self, server, wanted: str):
        """The server, once it has the status."""
        return resource.wait_for_status(
            self.user.compute, server, wanted, [], interval=0.5,
            wait=_TIMEOUT)

    def fault(self, server) -> str:
        """The message of a server that could not be built."""
        failed = resource.wait_for_status(
            self.user.compute, server, 'ERROR', ['ACTIVE'], interval=0.5,
            wait=_TIMEOUT)
        # The conductor writes the state first.
        for _ in utils.iterate_timeout(_TIMEOUT, 'no fault', wait=0.2):
            fault = self.user.compute.get_server(failed).fault
            if fault is not None:
                return fault['message']

    def settled(self, server) -> str:
        """The status that a server has once no task is under way."""
        for _ in utils.iterate_timeout(
                _TIMEOUT, 'the server is still at work', wait=0.5):
            found = self.user.compute.get_server(server)
            if found.status != 'BUILD' and found.task_state is None:
                return found.status

    def execute(self, server, *command: str, check: bool = True):
        """A command in a server's container; what the process became.

        Through the operator's command on the node: Nova has none.
        """
        host = self.admin.compute.get_server(server.id).compute_host
        (node,) = (node for node in cloud()['nodes'] if node['name'] == host)
        return subprocess.run(
            [f'{cloud()["venv"]}/bin/nova-container', 'exec',
             '--config-file', node['config'], server.id, *command],
            check=check, text=True, capture_output=True, timeout=_TIMEOUT)

    def delete(self, server) -> None:
        """Remove a server and wait until Nova has done so."""
        self.user.compute.delete_server(server, ignore_missing=True)
        self.user.compute.wait_for_delete(server, interval=0.5,
                                          wait=_TIMEOUT)

    def console(self, server) -> str:
        """What ``nova console-log`` shows."""
        return self.user.compute.get_server_console_output(server)['output']

    def await_console(self, server, text: str) -> None:
        """Wait for a text in the console log."""
        for _ in utils.iterate_timeout(
                _TIMEOUT, f'{text!r} is not in the console log', wait=0.3):
            if text in self.console(server):
                return

    def floating_ip(self, server) -> str:
        """A new floating IP on the server's first port."""
        public = self.user.network.find_network('public')
        port = next(self.user.network.ports(device_id=server.id))
        address = self.user.network.create_ip(
            floating_network_id=public.id, port_id=port.id)
        self.addCleanup(self.user.network.delete_ip, address)
        return address.floating_ip_address


def curl(address: str, retry: int = 60) -> str:
    """What a web server says; curl itself waits for it to answer."""
    host = f'[{address}]' if ':' in address else address
    return subprocess.run(
        ['curl', '--silent', '--show-error', '--fail', '--noproxy', '*',
         '--connect-timeout', '2', '--max-time', '10',
         '--retry', str(retry), '--retry-all-errors', '--retry-delay', '1',
         '--retry-max-time', str(retry), f'http://{host}/'],
        check=True, text=True, capture_output=True).stdout


def busybox_archive(*extra: bytes, **fields) -> bytes:
    """A docker archive of busybox, and layers over it."""
    layers = (functional.busybox_layer(), *extra)
    fields.setdefault('config', {'Cmd': ['/bin/sleep', '1000000']})
    return archives.docker_archive(
        *layers, raw_config=archives.config(layers, **fields))
