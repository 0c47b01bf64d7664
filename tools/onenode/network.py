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

"""The links between this machine and its nodes.

The machine's own links, addresses and routes are left alone: everything here
is a bridge or veth of ours, and far ends are created inside their namespace.
"""

import ipaddress
import json
import pathlib
import socket
import typing as ty

from onenode import command
from onenode import plan

_OURS = (plan.PUBLIC_VETH, plan.BRIDGE, *(
    f'nc-node{index}' for index in range(1, plan.MAX_NODES + 1)))


def links() -> dict[str, dict[str, ty.Any]]:
    """The links of this namespace with their addresses, by name."""
    found = json.loads(command.output(['ip', '-json', 'address', 'show']))
    return {link['ifname']: link for link in found if 'ifname' in link}


def check_free() -> None:
    """Check that no one else uses our networks.

    :raises Failure: another link has an address in one of them.
    """
    ours = [ipaddress.ip_network(text) for text in (
        plan.MANAGEMENT_NETWORK, plan.UNDERLAY_NETWORK,
        plan.FLOATING_NETWORK)]
    for name, link in links().items():
        if name in _OURS:
            continue
        for info in link['addr_info']:
            if info['family'] != 'inet':
                continue
            theirs = ipaddress.ip_interface(
                f'{info["local"]}/{info["prefixlen"]}').network
            for network in ours:
                if theirs.overlaps(network):
                    raise plan.Failure(
                        f'{network} is needed by the cloud, but {name} has '
                        f'{info["local"]}/{info["prefixlen"]}')


def create_bridge(log: pathlib.Path) -> bool:
    """Create the management bridge, where the API services listen."""
    if plan.BRIDGE in links():
        return False
    if not pathlib.Path('/dev/net/tun').exists():
        raise plan.Failure('/dev/net/tun is missing: Open vSwitch cannot '
                           'work; try: modprobe tun')
    check_free()
    script = (f'link add {plan.BRIDGE} type bridge forward_delay 0\n'
              f'address add {plan.MANAGEMENT}/24 dev {plan.BRIDGE}\n'
              f'link set {plan.BRIDGE} up\n')
    command.run(['ip', '-batch', '-'], stdin=script, log=log)
    return True


def check_ports() -> None:
    """Check that no one else listens on our ports.

    :raises Failure: a port is taken.
    """
    for service, port in plan.PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((plan.LOOPBACK, port))
            except OSError as error:
                raise plan.Failure(
                    f'port {port}, needed for {service}: {error.strerror}; '
                    f'see: ss -ltnp sport = :{port}')


def remove_links() -> bool:
    """Remove every link that a run of this tool created here."""
    left = [name for name in links() if name in _OURS]
    for name in left:
        command.output(['ip', 'link', 'delete', name])
    return bool(left)
