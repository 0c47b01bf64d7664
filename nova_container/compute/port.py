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

"""Neutron ports as interfaces of a container.

Order for each port: the veth pair is made, os-vif gives its end on the host to
the virtual switch, Neutron (or, where the port was up before, the local
switch) says that it is wired. Only then does the caller let the process go.
"""

import contextlib
import ipaddress
import itertools

from nova import exception as nova_exception
from nova.network import model
from nova.network import os_vif_util
import os_vif
from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log

from nova_container import exception
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.runtime import stats
from nova_container.spec import network

CONF = cfg.CONF
LOG = log.getLogger(__name__)

_DEFAULT_MTU = 1500
_METADATA = '169.254.169.254/32'
# The kernel's own metric of a route.
_METRICS = {'0.0.0.0/0': 0, '::/0': 1024}


def _check(vif) -> None:
    if vif['type'] != model.VIF_TYPE_OVS or vif.is_hybrid_plug_enabled():
        raise exception.NetworkFailed(
            f'port {vif["id"]}: VIF type {vif["type"]!r}'
            f'{" with hybrid plugging" * vif.is_hybrid_plug_enabled()} is not '
            'supported; use Open vSwitch with OVN or the openvswitch '
            'firewall driver')


def interface(vif, index: int) -> network.NetworkInterface:
    """The interface of a port.

    :param vif: nova.network.model.VIF
    :param index: its place among the instance's ports; the name is ethN
    :raises NetworkFailed: a VIF type we do not know
    """
    _check(vif)
    addresses, routes = [], []
    default: dict[int, network.Route] = {}
    versions = set()
    for subnet in vif['network']['subnets']:
        versions.add(subnet['version'])
        prefix = ipaddress.ip_network(subnet['cidr']).prefixlen
        addresses += [f'{ip["address"]}/{prefix}' for ip in subnet['ips']]
        routes += [_route(route['cidr'], route['gateway']['address'], index)
                   for route in subnet['routes']]
        gateway = (subnet['gateway'] or {}).get('address')
        if gateway:
            version = ipaddress.ip_address(gateway).version
            default.setdefault(version, _route(
                '0.0.0.0/0' if version == 4 else '::/0', gateway, index))
    given = {route.destination for route in routes}
    if 4 in versions and _METADATA not in given:
        # Neutron would say so by DHCP: its metadata proxy answers on the
        # network itself.
        routes.append(network.Route(_METADATA, metric=index))
    return network.NetworkInterface(
        name=f'eth{index}',
        host_device=vif['devname'],
        mac=vif['address'].lower(),
        mtu=vif['network'].get_meta('mtu') or _DEFAULT_MTU,
        addresses=tuple(addresses),
        routes=(*routes, *default.values()),
        # OVS in user space sends a checksum left to hardware as it is.
        checksum_offload=vif['details'].get(
            model.VIF_DETAILS_OVS_DATAPATH_TYPE) != 'netdev')


def _route(destination: str, gateway: str, index: int) -> network.Route:
    address = ipaddress.ip_address(gateway)
    # A default route holds where the ports before have none.
    last = index and destination in _METRICS
    return network.Route(
        destination,
        # As DHCP says that it is on the link (RFC 3442).
        None if address.is_unspecified else gateway,
        metric=_METRICS[destination] + index if last else 0)


def name_servers(network_info) -> network.Dns:
    """The DNS servers of all subnets, each once, in Neutron's order.

    Where no subnet has one, what answers is what a machine would hear of by
    DHCP: the DHCP agent, or OVN, which looks for names of the network in any
    query it carries, whoever it is for. The metadata proxy's address is one
    that is always there, with or without a router, and it refuses the rest at
    once.
    """
    subnets = [(vif, subnet) for vif in network_info
               for subnet in vif['network']['subnets']]
    servers = [dns['address'] for _, subnet in subnets
               for dns in subnet['dns']]
    servers = servers or [
        server for _, subnet in subnets
        if (server := subnet.get_meta('dhcp_server'))]
    if not servers and any(subnet['version'] == 4 and _by_ovn(vif)
                           for vif, subnet in subnets):
        servers = [_METADATA.partition('/')[0]]
    return network.Dns(servers=tuple(
        server for server in dict.fromkeys(servers)
        # A subnet that is to have none says so with the unspecified address.
        if not ipaddress.ip_address(server).is_unspecified))


def _by_ovn(vif) -> bool:
    return 'ovn' in (vif['details'].get('bound_drivers') or {}).values()


def plug(instance, network_info, first: int = 0) -> None:
    """Wire every port of a created or running container; idempotent.

    :param first: the first port's place among the instance's
    :raises NetworkFailed: the kernel or the virtual switch refused
    """
    info = os_vif_util.nova_to_osvif_instance(instance)
    for index, vif in enumerate(network_info, first):
        engine.plug(instance.uuid, interface(vif, index))
        try:
            os_vif.plug(os_vif_util.nova_to_osvif_vif(vif), info)
        except Exception as e:
            # os-vif lets its own and the OVSDB client's errors through.
            raise exception.NetworkFailed(
                f'port {vif["id"]}: os-vif could not plug it: {e}; see that '
                f'ovsdb-server answers at {_ovsdb()}')


def unplug(instance, network_info) -> None:
    """Remove every port's device and take it away from the virtual switch.

    Each port is tried; the first error is raised at the end.
    """
    info = os_vif_util.nova_to_osvif_instance(instance)
    with contextlib.ExitStack() as stack:
        for vif in network_info:
            if vif['type'] != model.VIF_TYPE_OVS:
                # Never plugged: unbound, or its binding failed.
                continue
            stack.callback(os_vif.unplug,
                           os_vif_util.nova_to_osvif_vif(vif), info)
            # First: os-vif fails when the device goes between its look and
            # its deletion, as one does whose network namespace just ended.
            stack.callback(engine.unplug, vif['devname'])


def _ovsdb() -> str:
    return CONF.os_vif_ovs.ovsdb_connection


def _await_local(vif) -> None:
    """Wait for ovn-controller to have the port's flows in place.

    A port that was up when it was plugged again may cause no event of
    Neutron's; ovn-controller marks the interface itself (ovn-controller(8),
    ``ovn-installed``).
    """
    if not _by_ovn(vif):
        return
    try:
        processutils.execute(
            'ovs-vsctl', f'--db={_ovsdb()}',
            f'--timeout={CONF.vif_plugging_timeout}', 'wait-until',
            'Interface', vif['devname'], 'external_ids:ovn-installed=true')
    except processutils.ProcessExecutionError as e:
        raise exception.NetworkFailed(
            f'port {vif["id"]} was not wired within '
            f'{CONF.vif_plugging_timeout} s: {str(e.stderr).strip()}; see '
            'ovn-controller\'s log on this host')


def _refused(event_name: str, instance) -> bool:
    if CONF.vif_plugging_is_fatal:
        raise exception.NetworkFailed(
            f'Neutron reports {event_name} as failed')
    LOG.error('Neutron reports %s as failed', event_name, instance=instance)
    return True


def plug_and_wait(virtapi, instance, network_info, first: int = 0,
                  events: bool = True) -> None:
    """Wire every port and return once traffic can pass.

    :param virtapi: nova.virt.virtapi.VirtAPI
    :param events: whether Neutron's reach this service; otherwise what the
        host itself says is waited for
    :param first: the first port's place among the instance's
    :raises NetworkFailed: a port could not be wired in time, and
        vif_plugging_is_fatal is on
    """
    timeout = CONF.vif_plugging_timeout
    down = [vif for vif in network_info
            if events and vif.get('active') is False]
    expected = [('network-vif-plugged', vif['id'])
                for vif in down] if timeout else []
    try:
        with virtapi.wait_for_instance_event(
                instance, expected, timeout=timeout, error_callback=_refused):
            plug(instance, network_info, first)
        for vif in network_info:
            if timeout and vif not in down:
                _await_local(vif)
    except nova_exception.InstanceEventTimeout:
        ports = ', '.join(vif['id'] for vif in down)
        message = (f'Neutron did not confirm port {ports} within {timeout} s; '
                   'see the log of the network agent (ovn-controller) on this '
                   'host')
        if CONF.vif_plugging_is_fatal:
            raise exception.NetworkFailed(message)
        LOG.warning(message, instance=instance)


def attach(virtapi, instance, vif) -> None:
    """Give a container one more port; one that does not run gets it later.

    :param virtapi: nova.virt.virtapi.VirtAPI
    :param vif: nova.network.model.VIF
    :raises NetworkFailed: as for ``plug_and_wait``; nothing is left of it
    """
    _check(vif)
    if state.read(instance.uuid).process is None:
        return
    try:
        taken = {nic.name for nic in stats.read(instance.uuid).network}
        index = next(number for number in itertools.count()
                     if f'eth{number}' not in taken)
        with contextlib.ExitStack() as undo:
            undo.callback(unplug, instance, [vif])
            plug_and_wait(virtapi, instance, [vif], index)
            undo.pop_all()
    except (exception.StateConflict, exception.NetworkFailed):
        # It may have ended meanwhile.
        if state.read(instance.uuid).process is not None:
            raise
