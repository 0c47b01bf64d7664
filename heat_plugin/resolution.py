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

"""The names by which a server's ports are reached, in Neutron's DNS.

A name that two ports of a network have goes with the first of them, also from
the other: with the OVN driver a deleted port takes the record along, whomever
it points to. So a server gives its names up before another takes them.
"""

import typing as ty


def rename(neutron: ty.Any, server_id: str, name: str) -> None:
    """Give all ports of a server a name; none with ''.

    :param neutron: neutronclient's client
    """
    for port in neutron.list_ports(device_id=server_id)['ports']:
        # Without the DNS extension there is no such field.
        if port.get('dns_name', name) != name:
            neutron.update_port(port['id'], {'port': {'dns_name': name}})
