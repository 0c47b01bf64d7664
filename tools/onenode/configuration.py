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

"""The configuration files: templates/ filled in."""

import pathlib

from onenode import block_storage
from onenode import compute_user
from onenode import marks
from onenode import passwords
from onenode import plan
from onenode import template
from onenode import venv


def url(service: str, path: str = '') -> str:
    return f'http://{plan.MANAGEMENT}:{plan.PORTS[service]}{path}'


def _values(cloud: plan.Plan) -> dict[str, object]:
    layout = cloud.layout
    secret = passwords.load(layout)
    return {
        'barbican_kek': passwords.fernet_key(secret['barbican']),
        'barbican_url': url('barbican'),
        'auth_url': url('keystone', '/v3'),
        'compute_driver': plan.DRIVERS[cloud.driver],
        'compute_user': plan.COMPUTE_USER,
        'build_attempts': len(cloud.nodes),
        'cryptsetup': (layout.stand_ins / 'cryptsetup' if cloud.volumes
                       else 'cryptsetup'),
        'data': layout.data,
        'database': f'mysql+pymysql://openstack:{secret["database"]}'
                    '@localhost',
        'database_socket': f'unix_socket={layout.mysql_socket}&charset=utf8',
        'etc': layout.etc,
        'glance_url': url('glance'),
        'heat_plugins': venv.packages(layout) / 'heat_plugin/plugins',
        'keystone_url': url('keystone'),
        'management': plan.MANAGEMENT,
        'memcached': f'{plan.LOOPBACK}:{plan.PORTS["memcached"]}',
        'novncproxy_port': plan.PORTS['nova-novncproxy'],
        'northbound': layout.northbound,
        'rabbitmq_port': plan.PORTS['rabbitmq'],
        'rabbitmq_distribution_port': plan.PORTS['rabbitmq-distribution'],
        'region': plan.REGION,
        'serialproxy_port': plan.PORTS['nova-serialproxy'],
        'southbound': layout.southbound,
        'transport_url': f'rabbit://openstack:{secret["rabbitmq"]}'
                         f'@{plan.MANAGEMENT}:{plan.PORTS["rabbitmq"]}/',
        'stand_ins': f'{layout.stand_ins}:' if cloud.volumes else '',
        'venv': layout.venv,
        **{f'password_{name}': value for name, value in secret.items()},
    }


def _node_values(node: plan.Node) -> dict[str, object]:
    return {
        'node': node.name,
        'node_address': node.management,
        'node_data': node.data,
        'nova_state': node.nova_state,
        'state_path': node.state_path,
        'run_path': node.run_path,
        'cgroup_parent': node.cgroup_parent,
        'id_range_start': node.id_range_start,
        'id_range_count': plan.ID_RANGE_SLOTS,
        'ovsdb': node.ovsdb,
        'metadata_config': node.metadata_config,
        # nova-compute, as an ordinary user, may not reach memcached's data.
        'memcached': '',
    }


def write_all(cloud: plan.Plan) -> bool:
    """Write every configuration file; False if all are as they should be."""
    layout = cloud.layout
    values = _values(cloud)
    etc = layout.etc
    changed = False

    def put(path: pathlib.Path, name: str, service: str = '',
            mode: int = 0o600, group: int = 0, **more: object) -> None:
        nonlocal changed
        text = template.render(name, {**values, **more, 'service': service})
        changed |= marks.write(path, text, mode, group)

    etc.mkdir(mode=0o755, exist_ok=True)
    put(etc / 'keystone/keystone.conf', 'keystone.conf')
    put(etc / 'glance/glance-api.conf', 'glance-api.conf', 'glance')
    put(etc / 'placement/placement.conf', 'placement.conf', 'placement')
    put(etc / 'nova/nova.conf', 'nova.conf', 'nova')
    put(etc / 'nova/policy.yaml', 'nova-policy.yaml')
    put(etc / 'neutron/neutron.conf', 'neutron.conf', 'neutron')
    put(etc / 'neutron/ml2_conf.ini', 'ml2_conf.ini')
    put(etc / 'heat/heat.conf', 'heat.conf', 'heat')
    put(etc / 'horizon/local_settings.py', 'local_settings.py')
    put(etc / 'uwsgi.ini', 'uwsgi.ini', mode=0o644)
    put(etc / 'rootwrap.conf', 'rootwrap.conf', mode=0o644)
    put(etc / 'rootwrap.d/compute.filters', 'compute.filters', mode=0o644)
    rabbitmq = compute_user.group_of('rabbitmq')
    put(etc / 'rabbitmq/rabbitmq.conf', 'rabbitmq.conf',
        mode=0o640, group=rabbitmq)
    put(etc / 'rabbitmq/rabbitmq-env.conf', 'rabbitmq-env.conf', mode=0o644)
    put(etc / 'rabbitmq/enabled_plugins', 'enabled_plugins', mode=0o644)
    if cloud.volumes:
        storage = block_storage.values(layout)
        put(etc / 'ceph/ceph.conf', 'ceph.conf', mode=0o644, **storage)
        put(etc / 'cinder/cinder.conf', 'cinder.conf', 'cinder', **storage)
        put(etc / 'cinder/rootwrap.conf', 'cinder-rootwrap.conf', mode=0o644,
            **storage)
        put(etc / 'cinder/nfs_shares', 'nfs_shares', **storage)
    if cloud.key_manager:
        put(etc / 'barbican/barbican.conf', 'barbican.conf', 'barbican')
    nova = compute_user.group_of(plan.COMPUTE_USER)
    for node in cloud.nodes:
        mine = _node_values(node)
        put(node.config, 'nova-cpu.conf', 'nova', mode=0o640, group=nova,
            **mine)
        put(node.metadata_config, 'metadata_agent.ini', **mine)
    put(layout.clouds_yaml, 'clouds.yaml')
    return changed
