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

"""Keystone's contents: projects, users, roles, the service catalogue.

Reads a JSON object from stdin: cloud (keyword arguments of
``openstack.connect``), passwords, endpoints, region.
"""

import json
import sys
import typing as ty

import openstack


def main(wanted: dict[str, ty.Any]) -> None:
    passwords = wanted['passwords']
    keystone = openstack.connect(**wanted['cloud']).identity
    default = keystone.find_domain('Default')
    projects = {project.name: project for project in keystone.projects()}
    for name in ('service', 'demo'):
        if name not in projects:
            projects[name] = keystone.create_project(
                name=name, domain_id=default.id)
    roles = {role.name: role for role in keystone.roles()}
    for name in ('heat_stack_owner', 'heat_stack_user'):
        if name not in roles:
            roles[name] = keystone.create_role(name=name)
    users = {user.name: user for user in keystone.users()}

    def user(name: str, password: str, domain: ty.Any) -> ty.Any:
        return users.get(name) or keystone.create_user(
            name=name, password=password, domain_id=domain.id)

    for name in ('glance', 'placement', 'nova', 'neutron', 'heat',
                 'cinder', 'barbican'):
        account = user(name, passwords['service'], default)
        for role in ('admin', 'service'):
            keystone.assign_project_role_to_user(
                projects['service'], account, roles[role])
    demo = user('demo', passwords['demo'], default)
    for role in ('member', 'heat_stack_owner'):
        keystone.assign_project_role_to_user(
            projects['demo'], demo, roles[role])
    for role in ('admin', 'heat_stack_owner'):
        for project in ('admin', 'demo'):
            keystone.assign_project_role_to_user(
                projects[project], users['admin'], roles[role])
    heat = (keystone.find_domain('heat')
            or keystone.create_domain(name='heat'))
    heat_admin = user('heat_domain_admin', passwords['service'], heat)
    keystone.assign_domain_role_to_user(heat, heat_admin, roles['admin'])

    services = {service.name: service for service in keystone.services()}
    endpoints = {(endpoint.service_id, endpoint.interface)
                 for endpoint in keystone.endpoints()}
    for kind, entry in wanted['endpoints'].items():
        service = services.get(entry['name']) or keystone.create_service(
            type=kind, name=entry['name'])
        for interface in ('public', 'internal', 'admin'):
            if (service.id, interface) not in endpoints:
                keystone.create_endpoint(
                    service_id=service.id, interface=interface,
                    url=entry['url'], region_id=wanted['region'])


if __name__ == '__main__':
    main(json.load(sys.stdin))
