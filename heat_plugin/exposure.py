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

"""What of a container can be reached: its security group and floating IP."""

import collections.abc
import dataclasses
import re
import typing as ty

from heat_plugin import words

PATTERN = r'[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?'

_FAMILIES = ('IPv4', 'IPv6')


@dataclasses.dataclass(frozen=True, order=True)
class Ports:
    """A range of ports that anyone may connect to."""

    protocol: str
    first: int
    last: int

    @classmethod
    def parse(cls, value: str) -> 'Ports':
        """From ``80``, ``53/udp`` or ``8000-8010/tcp``, as in Docker's EXPOSE.

        :raises InvalidProperty: it is of no such form
        """
        if not re.fullmatch(PATTERN, value):
            raise words.InvalidProperty(
                'expose', f'{value!r} is not of the form 80, 80/tcp or '
                '8000-8010/udp')
        ports, _, protocol = value.partition('/')
        first, _, last = ports.partition('-')
        found = cls(protocol or 'tcp', int(first), int(last or first))
        if not 1 <= found.first <= found.last <= 65535:
            raise words.InvalidProperty(
                'expose', f'{value!r} is no range of ports')
        return found

    @classmethod
    def of(cls, values: collections.abc.Iterable[ty.Any] | None
           ) -> frozenset['Ports']:
        """All ports of the property ``expose``.

        :raises InvalidProperty: one is wrong
        """
        return frozenset(cls.parse(words.text(value))
                         for value in values or () if value is not None)

    def rules(self, group_id: str
              ) -> collections.abc.Iterator[dict[str, ty.Any]]:
        """Neutron's rules for them, for both families of addresses."""
        for family in _FAMILIES:
            yield {'security_group_id': group_id, 'direction': 'ingress',
                   'ethertype': family, 'protocol': self.protocol,
                   'port_range_min': self.first, 'port_range_max': self.last}


class SecurityGroup:
    """A container's own security group in Neutron.

    :param neutron: neutronclient's client
    """

    def __init__(self, neutron: ty.Any, group_id: str) -> None:
        self._neutron = neutron
        self.id = group_id

    @classmethod
    def create(cls, neutron: ty.Any, name: str) -> 'SecurityGroup':
        """A new group that lets nothing in, and everything out."""
        group = neutron.create_security_group({'security_group': {
            'name': name, 'description': 'What the container exposes'}})
        return cls(neutron, group['security_group']['id'])

    def open(self, wanted: frozenset[Ports]) -> None:
        """Let these ports in, and no others."""
        found = self._neutron.list_security_group_rules(
            security_group_id=self.id, direction='ingress')
        present = {(rule['ethertype'], rule['protocol'],
                    rule['port_range_min'], rule['port_range_max']): rule
                   for rule in found['security_group_rules']}
        for ports in sorted(wanted):
            for rule in ports.rules(self.id):
                key = (rule['ethertype'], rule['protocol'],
                       rule['port_range_min'], rule['port_range_max'])
                if present.pop(key, None) is None:
                    self._neutron.create_security_group_rule(
                        {'security_group_rule': rule})
        for rule in present.values():
            self._neutron.delete_security_group_rule(rule['id'])

    def delete(self) -> None:
        """Remove it; no port may use it any more."""
        self._neutron.delete_security_group(self.id)


def set_groups(neutron: ty.Any, server_id: str, groups: list[str],
               others: collections.abc.Collection[str] = ()) -> None:
    """Give all ports of a server these security groups, and no others.

    :param neutron: neutronclient's client
    :param groups: ids
    :param others: ports whose groups are someone else's matter
    """
    for port in neutron.list_ports(device_id=server_id)['ports']:
        if (port['id'] not in others
                and port.get('port_security_enabled', True)
                and set(port['security_groups']) != set(groups)):
            neutron.update_port(port['id'],
                                {'port': {'security_groups': groups}})


_Networks = collections.abc.Sequence[collections.abc.Mapping[str, ty.Any]]


def _addresses(interface: ty.Any) -> set[str]:
    return {fixed['ip_address'] for fixed in interface.fixed_ips}


def given(networks: _Networks, interfaces: collections.abc.Iterable[ty.Any],
          own: collections.abc.Collection[str]) -> list[str]:
    """Ports that no other server can be given as long as this one has them.

    :param networks: the property
    :param own: ports that Heat has made for this server
    """
    named = {network.get(key) for network in networks
             for key in ('port', 'fixed_ip')} - {None}
    return [interface.port_id for interface in interfaces
            if interface.port_id not in own
            and named & {interface.port_id, *_addresses(interface)}]


def missing(networks: _Networks,
            interfaces: collections.abc.Iterable[ty.Any]
            ) -> list[collections.abc.Mapping[str, ty.Any]]:
    """Those that name a port or an address that no interface has.

    :param networks: the property
    """
    present: set[str] = set()
    for interface in interfaces:
        present |= {interface.port_id, *_addresses(interface)}
    return [network for network in networks
            if (network.get('port') or network.get('fixed_ip')
                ) not in {None, *present}]


_Addresses = collections.abc.Mapping[str, list[dict[str, ty.Any]]]


def _first(addresses: _Addresses, kind: str) -> dict[str, ty.Any] | None:
    """The first that Nova lists, IPv4 before IPv6."""
    found = [entry for entries in addresses.values() for entry in entries
             if entry.get('OS-EXT-IPS:type') == kind]
    found.sort(key=lambda entry: entry['version'])
    return found[0] if found else None


def first_address(addresses: _Addresses, kind: str = 'fixed') -> str | None:
    """The first address that Nova lists, IPv4 before IPv6."""
    found = _first(addresses, kind)
    return None if found is None else found['addr']


def first_port(addresses: _Addresses,
               interfaces: collections.abc.Iterable[ty.Any]) -> str | None:
    """The port of the first fixed address; None while it is not known.

    :param interfaces: in any order, as Nova lists them; Neutron knows of them
        before the addresses do
    """
    first = _first(addresses, 'fixed')
    return None if first is None else next(
        (interface.port_id for interface in interfaces
         if interface.mac_addr == first['OS-EXT-IPS-MAC:mac_addr']), None)
