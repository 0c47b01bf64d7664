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

"""A Heat template for what a Compose file asks for."""

import collections.abc
import dataclasses
import hashlib
import math
import typing as ty

from heat_plugin.compose import model

VERSION = 'wallaby'


@dataclasses.dataclass(frozen=True, order=True)
class Flavor:
    """A flavor; the smallest first.

    :param ram: MiB
    """

    ram: int
    vcpus: int
    disk: int
    name: str


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the application is to be.

    :param flavor: of services without limits
    :param flavors: to choose from for those that have some
    :param network: the default network; None to create one
    :param floating_network: for the ports that are published; None for none
    :param router: that connects the networks that are created; None to create
        one where there are to be floating IPs
    :param images: names in Glance, by those in the file
    :param volume_size: GiB of a volume that says nothing of it
    """

    flavor: str
    flavors: tuple[Flavor, ...]
    network: str | None = None
    floating_network: str | None = None
    router: str | None = None
    images: collections.abc.Mapping[str, str] = dataclasses.field(
        default_factory=dict)
    volume_size: int = 1

    def image(self, service: model.Service) -> str:
        """Name or id of a service's image in Glance."""
        name = service.properties['image']
        return self.images.get(name, name.removesuffix(':latest'))


def container_names(service: model.Service) -> list[str]:
    """Names of the resources, and of the hosts, of a service."""
    return [service.name if index == 1 else f'{service.name}-{index}'
            for index in range(1, service.replicas + 1)]


def _cidrs(network: str) -> tuple[str, str]:
    """Addresses of both families for a network of the file.

    From its name alone: Neutron cannot change those of a subnet, so other
    networks of the file must not count.
    """
    if network == model.DEFAULT_NETWORK:
        return '192.168.100.0/24', 'fd00:c0a8:100::/64'
    digest = hashlib.sha256(network.encode()).digest()
    return (f'172.{16 + digest[0] % 16}.{digest[1]}.0/24',
            f'fd00:c0a8:{digest[:2].hex()}:{digest[2:4].hex()}::/64')


def write(application: model.Application, place: Place) -> dict[str, ty.Any]:
    """The template.

    :raises Refused: no flavor is large enough, or names exclude each other
    """
    return _Writer(application, place).write()


class _Writer:

    def __init__(self, application: model.Application, place: Place) -> None:
        self._application = application
        self._place = place
        self._resources: dict[str, ty.Any] = {}
        self._networks_by_cidr: dict[str, str] = {}

    def write(self) -> dict[str, ty.Any]:
        services = self._application.services.values()
        used = {attachment.network for service in services
                for attachment in service.networks}
        self._write_router(used)
        for name in sorted(used):
            if self._external(name) is None:
                self._write_network(name)
        for name, volume in self._application.volumes.items():
            if not volume.external:
                self._resources[f'volume_{name}'] = {
                    'type': 'OS::Cinder::Volume', 'properties': {
                        'size': volume.size or self._place.volume_size,
                        **({'volume_type': volume.type} if volume.type
                           else {})}}
        for service in services:
            for name in container_names(service):
                self._write_container(service, name)
        return {'heat_template_version': VERSION,
                'resources': self._resources, 'outputs': self._outputs()}

    # Networks

    def _external(self, name: str) -> str | None:
        """The network that is there already, if this is one."""
        network = self._application.networks.get(name)
        if network is None:
            return self._place.network
        return network.name if network.external else None

    def _write_router(self, networks: collections.abc.Iterable[str]) -> None:
        """A router of its own, where floating IPs need one."""
        place = self._place
        self._router: ty.Any = place.router
        if (place.router is None and place.floating_network is not None
                and any(map(self._is_routed, networks))):
            self._resources['gateway_router'] = {
                'type': 'OS::Neutron::Router', 'properties': {
                    'external_gateway_info': {
                        'network': place.floating_network}}}
            self._router = {'get_resource': 'gateway_router'}

    def _is_routed(self, name: str) -> bool:
        """Whether it is a network of ours that is to have a router."""
        network = self._application.networks.get(name, model.Network(name))
        return self._external(name) is None and not network.internal

    def _cidr(self, name: str) -> str:
        """Of IPv4, for a network without one in the file."""
        cidr, _ = _cidrs(name)
        other = self._networks_by_cidr.setdefault(cidr, name)
        if other != name:
            raise self._application.refused(
                f'it would have the addresses of network {other}: give the '
                'new one of them another name, or ipam.config.subnet',
                'networks', name)
        return cidr

    def _write_network(self, name: str) -> None:
        network = self._application.networks.get(name, model.Network(name))
        self._resources[f'network_{name}'] = {'type': 'OS::Neutron::Net'}
        there = {'network': {'get_resource': f'network_{name}'}}
        self._resources[f'subnet_{name}'] = {
            'type': 'OS::Neutron::Subnet', 'properties': {
                **there, 'cidr': network.cidr or self._cidr(name)}}
        # Without an address of each family a name would not resolve where
        # nobody but OVN answers: it is silent about the family it has not.
        self._resources[f'subnet6_{name}'] = {
            'type': 'OS::Neutron::Subnet', 'properties': {
                **there, 'ip_version': 6, 'ipv6_address_mode': 'slaac',
                'cidr': _cidrs(name)[1]}}
        if self._router is not None and self._is_routed(name):
            self._resources[f'router_{name}'] = {
                'type': 'OS::Neutron::RouterInterface', 'properties': {
                    'router': self._router,
                    'subnet': {'get_resource': f'subnet_{name}'}}}

    def _interface(self, attachment: model.Attachment) -> dict[str, ty.Any]:
        name = attachment.network
        there = self._external(name)
        found: dict[str, ty.Any] = (
            {'network': there if there is not None
             else {'get_resource': f'network_{name}'}})
        if attachment.fixed_ip is not None:
            found['fixed_ip'] = attachment.fixed_ip
        return found

    # Containers

    def _flavor(self, service: model.Service) -> str:
        limits = service.limits
        if not limits:
            return self._place.flavor
        cpus = math.ceil(limits.cpus or 0)
        memory = math.ceil((limits.memory or 0) / 2 ** 20)
        for flavor in sorted(self._place.flavors):
            if flavor.vcpus >= cpus and flavor.ram >= memory:
                return flavor.name
        raise self._application.refused(
            f'no flavor has {cpus} processors and {memory} MiB',
            'services', service.name, 'deploy', 'resources', 'limits')

    def _wait_for(self, service: model.Service) -> dict[str, str]:
        """What the others wait for; by default what Container does."""
        conditions = {other.depends_on.get(service.name)
                      for other in self._application.services.values()}
        if 'service_completed_successfully' in conditions:
            return {'wait_for': 'exited:0'}
        if 'service_healthy' in conditions:
            return {'wait_for': 'healthy'}
        return {}

    def _write_container(self, service: model.Service, name: str) -> None:
        place = self._place
        properties = {
            'hostname': name, **service.properties,
            'image': self._place.image(service),
            'flavor': self._flavor(service),
            'networks': [self._interface(a) for a in service.networks],
            **self._wait_for(service)}
        if service.published:
            properties['expose'] = list(service.published)
            if place.floating_network is not None:
                properties['floating_network'] = place.floating_network
        if service.mounts:
            properties['volumes'] = [
                {'volume': self._volume(mount.volume),
                 'mount_path': mount.path, 'read_only': mount.read_only}
                for mount in service.mounts]
        depends = [name for other in service.depends_on
                   for name in container_names(
                       self._application.services[other])]
        depends += [f'router_{attachment.network}'
                    for attachment in service.networks
                    if f'router_{attachment.network}' in self._resources]
        if name in self._resources:
            raise self._application.refused(
                'is also the name of a network, volume or router, or of '
                'another replica', 'services', name)
        self._resources[name] = {
            'type': 'NovaContainer::Container', 'properties': properties,
            **({'depends_on': depends} if depends else {})}

    def _volume(self, name: str) -> ty.Any:
        volume = self._application.volumes[name]
        return (volume.name if volume.external
                else {'get_resource': f'volume_{name}'})

    def _outputs(self) -> dict[str, ty.Any]:
        names = [name for service in self._application.services.values()
                 for name in container_names(service)]
        return {output: {'value': {
            name: {'get_attr': [name, attribute]} for name in names}}
            for output, attribute in (('addresses', 'first_address'),
                                      ('floating_ips', 'floating_ip'),
                                      ('states', 'state'))}
