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

"""Network interfaces of containers: veth pairs.

The host's end is made in the network namespace of the service and handed to
the virtual switch by the caller; the container's end is born inside the
container's namespace, and nothing on the host ever bears its name.
"""

import array
import contextlib
import errno
import fcntl
import os
import socket
import struct
import typing

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from nova_container import exception
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.privileged import namespace
from nova_container.privileged import process
from nova_container.privileged import traffic
from nova_container.spec import codec
from nova_container.spec import network

# Set on the host's end: only a device that bears it is ever removed.
_ALIAS = 'nova-container '

_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM = 0x17

# rtnetlink(7): an IPv6 address that can be used at once.
_IFA_F_NODAD = 0x02

# Neutron alone gives addresses; what a router advertises is not for us.
_SYSCTL = (('net/ipv6/conf/{name}/accept_ra', '0'),
           ('net/ipv6/conf/{name}/accept_dad', '0'),
           # A kernel started with ipv6.disable_ipv6=1 says 1.
           ('net/ipv6/conf/{name}/disable_ipv6', '0'))


@context.entrypoint
def plug(container_id: str, interface: dict[str, typing.Any]) -> None:
    """Make and configure one interface of a created or running container.

    Does nothing but set its bandwidth when the container has it already.

    :param interface: an encoded NetworkInterface
    :raises NetworkFailed: the kernel refused, or the container just ended
    """
    wish = codec.decode(network.NetworkInterface, interface)
    limits = container.limits(container_id)
    with _network_namespace(container_id) as netns:
        try:
            pair = _pair(container_id, wish.host_device)
            if pair is None or not namespace.with_network(
                    netns, _is_there, *pair):
                pair = _add_pair(container_id, wish, netns)
                namespace.with_network(netns, _configure, wish)
            outside, inside = pair
            if limits.network_in:
                traffic.shape(outside, limits.network_in)
            if limits.network_out:
                namespace.with_network(netns, traffic.shape, inside,
                                       limits.network_out)
        except NetlinkError as e:
            _remove(wish.host_device)
            raise exception.NetworkFailed(
                f'container {container_id}: interface {wish.name} '
                f'({wish.host_device}): {e}')


@contextlib.contextmanager
def _network_namespace(container_id: str) -> typing.Iterator[int]:
    """Descriptor of the network namespace of a container."""
    init = container.require_process(container_id)
    try:
        netns = os.open(f'{process.directory(init.pid)}/ns/net',
                        os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise exception.NetworkFailed(
            f'container {container_id} ended while its network was set up')
    try:
        # The id may have been reused between the check and the open.
        container.require_process(container_id)
        yield netns
    finally:
        os.close(netns)


@context.entrypoint
def shape(container_id: str) -> None:
    """Give every interface of a running container the bandwidth that its spec
    has now.

    :raises NetworkFailed: the kernel refused, or the container just ended
    """
    limits = container.limits(container_id)
    with _network_namespace(container_id) as netns:
        try:
            for outside, inside in _pairs(container_id):
                traffic.shape(outside, limits.network_in)
                namespace.with_network(netns, traffic.shape, inside,
                                       limits.network_out)
        except NetlinkError as e:
            raise exception.NetworkFailed(
                f'container {container_id}: limiting its bandwidth failed: '
                f'{e}')


def _pairs(container_id: str) -> list[tuple[int, int]]:
    """Numbers of the host's ends and of the container's ends."""
    with IPRoute() as route:
        return [(found['index'], found.get('link'))
                for found in route.get_links()
                if found.get('ifalias') == _ALIAS + container_id]


def _index(route: IPRoute, name: str) -> int | None:
    found = route.link_lookup(ifname=name)
    return found[0] if found else None


def _at(route: IPRoute, index: int | None) -> typing.Any:
    """The interface of that number; to read them all takes the longer the
    more a container has made itself.
    """
    if index is None:
        return None
    try:
        return route.link('get', index=index)[0]
    except NetlinkError as e:
        if e.code != errno.ENODEV:
            raise
        return None


def _pair(container_id: str, host_device: str) -> tuple[int, int] | None:
    """Numbers of the host's end and of the container's end."""
    with IPRoute() as route:
        found = _at(route, _index(route, host_device))
    if found is None or found.get('ifalias') != _ALIAS + container_id:
        return None
    return found['index'], found.get('link')


def inside(host_device: str) -> int | None:
    """Number of the container's end, by the host's; takes no privilege."""
    with IPRoute() as route:
        found = _at(route, _index(route, host_device))
    if found is None or not (found.get('ifalias') or '').startswith(_ALIAS):
        return None
    return found.get('link')


def _is_there(outside: int, inside: int) -> bool:
    """In the container's network namespace: whether it has the other end,
    whatever its name is now.
    """
    with IPRoute() as route:
        found = _at(route, inside)
    return found is not None and found.get('link') == outside


def _add_pair(container_id: str, wish: network.NetworkInterface,
              netns: int) -> tuple[int, int]:
    # A leftover of a container that ended; its peer is gone or going.
    _remove(wish.host_device)
    with IPRoute() as route:
        route.link('add', ifname=wish.host_device, kind='veth', mtu=wish.mtu,
                   peer={'ifname': wish.name, 'address': wish.mac,
                         'mtu': wish.mtu, 'net_ns_fd': netns})
        index = _index(route, wish.host_device)
        route.link('set', index=index, state='up',
                   ifalias=_ALIAS + container_id)
    # The host neither speaks nor listens on its end.
    _write_sysctl(f'net/ipv6/conf/{wish.host_device}/disable_ipv6', '1')
    if not wish.checksum_offload:
        _disable_checksum_offload(wish.host_device)
    pair = _pair(container_id, wish.host_device)
    if pair is None:
        raise exception.NetworkFailed(
            f'container {container_id}: {wish.host_device} has gone while it '
            'was set up')
    return pair


def _configure(wish: network.NetworkInterface) -> None:
    """Inside the container's network namespace."""
    for path, value in _SYSCTL:
        _write_sysctl(path.format(name=wish.name), value)
    if not wish.checksum_offload:
        _disable_checksum_offload(wish.name)
    with IPRoute() as route:
        index = _index(route, wish.name)
        for address in wish.addresses:
            ip, _, prefix = address.partition('/')
            route.addr('add', index=index, address=ip, prefixlen=int(prefix),
                       flags=_IFA_F_NODAD)
        route.link('set', index=index, state='up')
        for item in wish.routes:
            if item.gateway is None:
                route.route('replace', dst=item.destination, oif=index,
                            scope='link', priority=item.metric)
                continue
            # A gateway outside every prefix of ours is still on this link.
            route.route('replace', dst=item.destination,
                        gateway=item.gateway, oif=index, flags='onlink',
                        priority=item.metric)


def _write_sysctl(path: str, value: str) -> None:
    """A missing one belongs to a protocol the kernel does not have."""
    full = os.path.join('/proc/sys', path)
    if os.path.exists(full):
        with open(full, 'w') as file:
            file.write(value)


def _disable_checksum_offload(device: str) -> None:
    """ioctl SIOCETHTOOL, ETHTOOL_STXCSUM 0 (linux/ethtool.h)."""
    value = array.array('B', struct.pack('II', _ETHTOOL_STXCSUM, 0))
    request = struct.pack('16sP16x', device.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


def _remove(host_device: str) -> None:
    with IPRoute() as route:
        index = _index(route, host_device)
        if index is None:
            return
        try:
            alias = route.link('get', index=index)[0].get('ifalias') or ''
            if not alias.startswith(_ALIAS):
                raise exception.NetworkFailed(
                    f'{host_device} exists and is not an interface of a '
                    'container; it is left alone')
            route.link('del', index=index)
        except NetlinkError as e:
            # The container's end of it went first, with its namespace.
            if e.code != errno.ENODEV:
                raise exception.NetworkFailed(
                    f'deleting {host_device} failed: {e}')


@context.entrypoint
def unplug(host_device: str) -> None:
    """Delete the veth pair of a container by the host's end, if there.

    :raises NetworkFailed: the device is not one of ours
    """
    _remove(host_device)
