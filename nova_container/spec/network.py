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

"""One network interface of a container, as Neutron decided it."""

import dataclasses
import ipaddress
import re

from nova_container import exception

_MAC = re.compile(r'^[0-9a-f]{2}(:[0-9a-f]{2}){5}$')
_DEVICE = re.compile(r'^[A-Za-z0-9_.-]{1,15}$')


@dataclasses.dataclass(frozen=True)
class Route:
    """``destination`` (CIDR) through ``gateway``; None: it is on the link.

    :param metric: of several to one destination the lowest is taken; 0 is the
        kernel's own
    """

    destination: str
    gateway: str | None = None
    metric: int = 0

    def __post_init__(self) -> None:
        try:
            network = ipaddress.ip_network(self.destination)
            gateway = (network.network_address if self.gateway is None
                       else ipaddress.ip_address(self.gateway))
        except ValueError as e:
            raise exception.InvalidSpec(f'route: {e}')
        if not 0 <= self.metric < 1 << 31:
            raise exception.InvalidSpec(
                f'route {self.destination}: metric {self.metric} is not in '
                '0..2147483647')
        if network.version != gateway.version:
            raise exception.InvalidSpec(
                f'route {self.destination} via {self.gateway}: '
                'address families differ')


@dataclasses.dataclass(frozen=True)
class NetworkInterface:
    """A veth pair: ``name`` in the container, ``host_device`` on the host.

    :param name: the container's name for it: eth0, eth1, ...
    :param host_device: the host's end, which the virtual switch gets
    :param mac: address, six lower-case hexadecimal pairs
    :param mtu: bytes
    :param addresses: each with its prefix length, ``10.0.0.5/24``
    :param routes: in the order they are to be added
    :param checksum_offload: off where the switch is OVS in user space, which
        does not complete checksums that the sender left to hardware
    """

    name: str
    host_device: str
    mac: str
    mtu: int
    addresses: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    checksum_offload: bool = True

    def __post_init__(self) -> None:
        for device in (self.name, self.host_device):
            if not _DEVICE.match(device) or device in ('.', '..', 'lo'):
                raise exception.InvalidSpec(
                    f'network interface name {device!r} is not valid')
        if not _MAC.match(self.mac):
            raise exception.InvalidSpec(
                f'{self.name}: MAC address {self.mac!r} is not valid')
        if not 68 <= self.mtu <= 65535:
            raise exception.InvalidSpec(
                f'{self.name}: MTU {self.mtu} is not in 68..65535')
        for address in self.addresses:
            try:
                ipaddress.ip_interface(address)
            except ValueError as e:
                raise exception.InvalidSpec(f'{self.name}: {e}')


@dataclasses.dataclass(frozen=True)
class Dns:
    """Content of /etc/resolv.conf; see resolv.conf(5)."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for server in self.servers:
            try:
                ipaddress.ip_address(server)
            except ValueError as e:
                raise exception.InvalidSpec(f'DNS server: {e}')
        for domain in self.search:
            if not re.match(r'^[A-Za-z0-9._-]{1,253}$', domain):
                raise exception.InvalidSpec(
                    f'DNS search domain {domain!r} is not valid')
