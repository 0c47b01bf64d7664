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

"""Security groups and the floating IP of a container."""

import typing as ty

from heat.common import exception
from heat.common.i18n import _

from heat_plugin.container import nova
from heat_plugin import exposure

# Sections of the resource's data.
_GROUP = 'security_group_id'
_FLOATING_IP = 'floating_ip_id'


class Networked(nova.NovaServer):
    """A container with its security groups, open ports and floating IP."""

    def _groups(self, props) -> list[str]:
        """The security groups, with that of the property expose."""
        own = self.data().get(_GROUP)
        return [*(props[self.SECURITY_GROUPS] or ['default']),
                *([own] if own else [])]

    def _open_ports(self, props) -> None:
        """Have a security group for what is to be exposed."""
        ports = exposure.Ports.of(props[self.EXPOSE])
        neutron, own = self.client('neutron'), self.data().get(_GROUP)
        if own:
            exposure.SecurityGroup(neutron, own).open(ports)
        elif ports:
            group = exposure.SecurityGroup.create(
                neutron, self.physical_resource_name())
            self.data_set(_GROUP, group.id)
            group.open(ports)

    def _set_groups(self, props) -> bool:
        groups = self.client_plugin('neutron').get_secgroup_uuids(
            self._groups(props))
        networks = props[self.NETWORKS] or []
        others = {network[self.NETWORK_PORT] for network in networks}
        if any((network[self.NETWORK_PORT_EXTRA] or {}).get(
                self.SECURITY_GROUPS) for network in networks):
            others |= {port['id'] for port in self._data_get_ports()}
        exposure.set_groups(self.client('neutron'), self.resource_id,
                            list(dict.fromkeys(groups)), others)
        return True

    def _direct_floating_ip(self, props) -> bool:
        """Have the floating IP lead to the first interface; False: not yet.

        It stays the same as long as it is to be of the same network.
        """
        neutron = self.client('neutron')
        network = props[self.FLOATING_NETWORK] and self.client_plugin(
            'neutron').find_resourceid_by_name_or_id(
                'network', props[self.FLOATING_NETWORK])
        floating = self._show_floating_ip()
        if floating is None or floating['floating_network_id'] != network:
            self._release_floating_ip()
            floating = None
        if not network:
            return True
        port = self._first_port()
        if port is None:
            return False
        if floating is None:
            made = neutron.create_floatingip({'floatingip': {
                'floating_network_id': network, 'port_id': port}})
            self.data_set(_FLOATING_IP, made['floatingip']['id'])
        elif floating['port_id'] != port:
            neutron.update_floatingip(
                floating['id'], {'floatingip': {'port_id': port}})
        return True

    def _first_port(self) -> str | None:
        """The port of the first interface; None while it is not known.

        :raises Error: there is no interface
        """
        server = self._fetch()
        if server is None or server.status == 'BUILD':
            return None
        interfaces = server.interface_list()
        if not interfaces:
            raise exception.Error(_(
                'A floating IP cannot be given to the server %s, which has '
                'no interface: give it networks or no floating_network')
                % self.resource_id)
        return exposure.first_port(server.addresses, interfaces)

    def _has_floating_ip(self) -> bool:
        return bool(self.data().get(_FLOATING_IP))

    def _show_floating_ip(self) -> dict[str, ty.Any] | None:
        floating = self.data().get(_FLOATING_IP)
        if floating:
            with self.client_plugin('neutron').ignore_not_found:
                return self.client('neutron').show_floatingip(floating)[
                    'floatingip']
        return None

    def _own_floating_ip(self) -> str | None:
        """By Neutron: Nova learns of it later, and Heat asks only once."""
        floating = self._show_floating_ip()
        return None if floating is None else floating['floating_ip_address']

    def _release_floating_ip(self) -> None:
        floating = self.data().get(_FLOATING_IP)
        if floating:
            with self.client_plugin('neutron').ignore_not_found:
                self.client('neutron').delete_floatingip(floating)
            self.data_delete(_FLOATING_IP)

    def _delete_group(self) -> None:
        group = self.data().get(_GROUP)
        if group:
            with self.client_plugin('neutron').ignore_not_found:
                exposure.SecurityGroup(self.client('neutron'),
                                       group).delete()
            self.data_delete(_GROUP)
