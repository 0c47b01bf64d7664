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

"""What the cloud consists of, as values: places, addresses, nodes.

Nothing here acts on the machine.
"""

import dataclasses
import pathlib
import typing as ty

DEFAULT_ROOT = pathlib.Path('/opt/nova-container-cloud')
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CONSTRAINTS = pathlib.Path(__file__).parent / 'constraints-2026.2.txt'
LOCK = pathlib.Path('/run/lock/nova-container-cloud.lock')

MANAGEMENT_NETWORK = '172.31.1.0/24'
MANAGEMENT = '172.31.1.1'
UNDERLAY_NETWORK = '172.31.0.0/24'
FLOATING_NETWORK = '172.24.4.0/24'
FLOATING_GATEWAY = '172.24.4.1'
LOOPBACK = '127.0.0.1'

BRIDGE = 'nc-mgmt'
PUBLIC_VETH = 'nc-public'

# Of a node's tunnels, each way, in kilobits per second.
BANDWIDTH = 1_000_000

REGION = 'RegionOne'
COMPUTE_USER = 'nova'
MAX_NODES = 8

# Ids given to the containers of one node: slots of 65536 ids each.
ID_RANGE_START = 1_000_000
ID_RANGE_SLOTS = 4096

DRIVERS = {
    'container': 'nova_container.ContainerDriver',
    'fake': 'fake.FakeDriverWithoutFakeNodes',
}

PORTS = {
    'keystone': 5000,
    'heat-api': 8004,
    'barbican': 9311,
    'cinder-api': 8776,
    'horizon': 8080,
    'nova-api': 8774,
    'nova-metadata': 8775,
    'nova-novncproxy': 6080,
    'nova-serialproxy': 6083,
    'placement': 8778,
    'glance': 9292,
    'neutron-api': 9696,
    # Not the usual ones, where the packages' own services would listen.
    'memcached': 21211,
    'rabbitmq': 25682,
    'rabbitmq-distribution': 25683,
    'epmd': 24369,
    'ceph-mon': 26789,
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where things are on this machine."""

    root: pathlib.Path
    etc: pathlib.Path = pathlib.Path('/etc/nova-container-cloud')
    run: pathlib.Path = pathlib.Path('/run/nova-container-cloud')

    @property
    def venv(self) -> pathlib.Path:
        return self.root / 'venv'

    @property
    def bin(self) -> pathlib.Path:
        return self.venv / 'bin'

    @property
    def data(self) -> pathlib.Path:
        return self.root / 'data'

    @property
    def log(self) -> pathlib.Path:
        return self.root / 'log'

    @property
    def cache(self) -> pathlib.Path:
        return self.root / 'cache'

    @property
    def done(self) -> pathlib.Path:
        """Directory of the marks of finished steps."""
        return self.data / 'done'

    @property
    def work(self) -> pathlib.Path:
        """Working directory of the services, and of nothing else."""
        return self.run / 'work'

    @property
    def tmp(self) -> pathlib.Path:
        """Temporary files of the services that are on no node."""
        return self.run / 'tmp'

    @property
    def novnc(self) -> pathlib.Path:
        """What a web browser shows graphical consoles with."""
        return self.cache / 'novnc'

    @property
    def stand_ins(self) -> pathlib.Path:
        """Programs that come before the system's (see ``block_storage``)."""
        return self.root / 'stand-ins'

    @property
    def clouds_yaml(self) -> pathlib.Path:
        return self.root / 'clouds.yaml'

    @property
    def supervisor_socket(self) -> pathlib.Path:
        return self.run / 'supervisor.sock'

    @property
    def supervisor_config(self) -> pathlib.Path:
        return self.etc / 'supervisord.conf'

    @property
    def mysql_socket(self) -> pathlib.Path:
        return self.run / 'mysqld' / 'mysqld.sock'

    @property
    def northbound(self) -> pathlib.Path:
        return self.run / 'ovn' / 'ovnnb_db.sock'

    @property
    def southbound(self) -> pathlib.Path:
        return self.run / 'ovn' / 'ovnsb_db.sock'

    def log_of(self, service: str) -> pathlib.Path:
        return self.log / f'{service}.log'


@dataclasses.dataclass(frozen=True)
class Node:
    """A compute node: a network namespace with its own OVS."""

    index: int
    layout: Layout

    @property
    def name(self) -> str:
        return f'node{self.index}'

    @property
    def netns(self) -> pathlib.Path:
        return pathlib.Path('/run/netns') / self.name

    @property
    def mntns(self) -> pathlib.Path:
        """Mount namespace of the metadata agent (see ``node.create``)."""
        return self.layout.run / 'mntns' / self.name

    @property
    def run(self) -> pathlib.Path:
        return self.layout.run / self.name

    @property
    def data(self) -> pathlib.Path:
        return self.layout.data / self.name

    @property
    def ovsdb(self) -> pathlib.Path:
        return self.run / 'db.sock'

    @property
    def management(self) -> str:
        return f'172.31.1.{10 + self.index}'

    @property
    def underlay(self) -> str:
        return f'172.31.0.{self.index}'

    @property
    def is_gateway(self) -> bool:
        return self.index == 1

    @property
    def veth(self) -> str:
        """Host end of the management link."""
        return f'nc-{self.name}'

    @property
    def etc(self) -> pathlib.Path:
        return self.layout.etc / self.name

    @property
    def config(self) -> pathlib.Path:
        return self.etc / 'nova-cpu.conf'

    @property
    def metadata_config(self) -> pathlib.Path:
        return self.etc / 'metadata_agent.ini'

    @property
    def nova_state(self) -> pathlib.Path:
        return self.data / 'nova'

    @property
    def state_path(self) -> pathlib.Path:
        return self.data / 'container'

    @property
    def run_path(self) -> pathlib.Path:
        return pathlib.Path(f'/run/nova-container-{self.name}')

    @property
    def cgroup_parent(self) -> str:
        return f'nova-container-{self.name}'

    @property
    def id_range_start(self) -> int:
        return ID_RANGE_START + (self.index - 1) * ID_RANGE_SLOTS * 65536

    def enter(self) -> tuple[str, ...]:
        """Command prefix to run in this node's network namespace.

        ``ip netns exec`` would remount /sys and hide the control groups.
        """
        return ('nsenter', f'--net={self.netns}', '--')


@dataclasses.dataclass(frozen=True)
class Plan:
    """One cloud, as it is to be.

    :ivar volumes: it has block storage: Cinder, on Ceph and on NFS.
    :ivar key_manager: it has one: Barbican.
    """

    layout: Layout
    nodes: tuple[Node, ...]
    driver: str
    volumes: bool = False
    key_manager: bool = False

    @classmethod
    def of(cls, root: pathlib.Path, nodes: int, driver: str,
           volumes: bool = False, key_manager: bool = False) -> 'Plan':
        if not 1 <= nodes <= MAX_NODES:
            raise ValueError(f'{nodes} nodes: between 1 and {MAX_NODES} work')
        layout = Layout(root)
        return cls(layout=layout, driver=driver, volumes=volumes,
                   key_manager=key_manager,
                   nodes=tuple(Node(index, layout)
                               for index in range(1, nodes + 1)))


class Failure(Exception):
    """What went wrong, in words for the user, and the log that tells more."""

    def __init__(self, message: str,
                 log: ty.Optional[pathlib.Path] = None) -> None:
        super().__init__(message)
        self.log = log
