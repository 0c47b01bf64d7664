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

"""What a user needs to boot a server: networks, flavors, quota.

Reads a JSON object from stdin: admin and demo (keyword arguments of
``openstack.connect``), floating (network, gateway, first and last address).
"""

import concurrent.futures
import json
import sys
import typing as ty

import openstack

FLAVORS = {
    'c1.tiny': (1, 256, 1),
    'c1.small': (1, 512, 2),
    'c1.medium': (2, 1024, 5),
}
_INGRESS = (
    ('IPv4', 'tcp', 22), ('IPv4', 'tcp', 80), ('IPv4', 'icmp', None),
    ('IPv6', 'tcp', 22), ('IPv6', 'tcp', 80), ('IPv6', 'ipv6-icmp', None),
)


def networks(admin: openstack.connection.Connection, demo_id: str,
             floating: dict[str, str]) -> None:
    """Create the public and the private network and the router."""
    neutron = admin.network
    public = neutron.find_network('public') or neutron.create_network(
        name='public', is_router_external=True,
        provider_network_type='flat', provider_physical_network='physnet1')
    if not public.subnet_ids:
        neutron.create_subnet(
            name='public', network_id=public.id, ip_version=4,
            cidr=floating['network'], gateway_ip=floating['gateway'],
            is_dhcp_enabled=False,
            allocation_pools=[{'start': floating['first'],
                               'end': floating['last']}])
    private = neutron.find_network('private') or neutron.create_network(
        name='private', project_id=demo_id, is_shared=True)
    subnets = {subnet.name: subnet
               for subnet in neutron.subnets(network_id=private.id)}
    for name, settings in {
            'private': {'ip_version': 4, 'cidr': '10.0.0.0/24'},
            'private-v6': {'ip_version': 6, 'cidr': 'fd00:10::/64',
                           'ipv6_address_mode': 'slaac',
                           'ipv6_ra_mode': 'slaac'}}.items():
        if name not in subnets:
            subnets[name] = neutron.create_subnet(
                name=name, network_id=private.id, project_id=demo_id,
                **settings)
    router = neutron.find_router('router') or neutron.create_router(
        name='router', project_id=demo_id,
        external_gateway_info={'network_id': public.id})
    attached = {address['subnet_id']
                for port in neutron.ports(device_id=router.id)
                for address in port.fixed_ips}
    for subnet in subnets.values():
        if subnet.id not in attached:
            neutron.add_interface_to_router(router, subnet_id=subnet.id)


def security_groups(admin: openstack.connection.Connection,
                    projects: list[str]) -> None:
    """Let ssh, http and ping in by every project's default group."""
    neutron = admin.network
    for project in projects:
        group = next(neutron.security_groups(
            name='default', project_id=project))
        have = {(rule.ether_type, rule.protocol, rule.port_range_min)
                for rule in neutron.security_group_rules(
                    security_group_id=group.id, direction='ingress')}
        for rule in _INGRESS:
            if rule not in have:
                family, protocol, port = rule
                neutron.create_security_group_rule(
                    security_group_id=group.id, project_id=project,
                    direction='ingress', ether_type=family,
                    protocol=protocol, port_range_min=port,
                    port_range_max=port)


def quotas(admin: openstack.connection.Connection,
           projects: list[str]) -> None:
    """Lift the limits that tests run into."""
    for project in projects:
        admin.set_compute_quotas(project, instances=500, cores=1000,
                                 ram=1024 * 1024)
        admin.network.update_quota(
            project, port=1000, floatingip=200, security_group=200,
            security_group_rule=1000, network=200, subnet=200, router=50)


def flavors(admin: openstack.connection.Connection) -> None:
    have = {flavor.name for flavor in admin.compute.flavors()}
    for name, (vcpus, ram, disk) in FLAVORS.items():
        if name not in have:
            admin.compute.create_flavor(name=name, vcpus=vcpus, ram=ram,
                                        disk=disk)


def main(wanted: dict[str, ty.Any]) -> None:
    admin = openstack.connect(**wanted['admin'])
    projects = {project.name: project.id
                for project in admin.identity.projects()}
    mine = [projects['demo'], projects['admin']]
    tasks = (
        (networks, admin, projects['demo'], wanted['floating']),
        (security_groups, admin, mine),
        (quotas, admin, mine),
        (flavors, admin),
    )
    with concurrent.futures.ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(*task) for task in tasks]:
            future.result()


if __name__ == '__main__':
    main(json.load(sys.stdin))
