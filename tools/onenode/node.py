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

"""A compute node: its namespaces, links and Open vSwitch."""

import os
import pathlib
import shutil

from onenode import command
from onenode import compute_user
from onenode import marks
from onenode import plan

UNDERLAY_MTU = 1600
_COMPLETE = 'complete'
_GATEWAY = 'enable-chassis-as-gw'
_MADE_MOUNT = 'made-netns-mount'


def _mounts() -> list[str]:
    text = pathlib.Path('/proc/self/mountinfo').read_text()
    return [line.split()[4] for line in text.splitlines()]


def _mounted(path: pathlib.Path) -> bool:
    """Whether something is mounted exactly there."""
    return str(path) in _mounts()


def exists(node: plan.Node) -> bool:
    return _mounted(node.netns)


def _create_namespaces(node: plan.Node, log: pathlib.Path) -> None:
    if not _mounted(node.netns.parent):
        # ip-netns(8) mounts this directory on itself the first time.
        (node.layout.run / _MADE_MOUNT).touch()
    command.run(['ip', 'netns', 'add', node.name], log=log)
    # A container's frames must not meet the node's own stack, only OVS.
    command.run([*node.enter(), 'sysctl', '--quiet', '--write',
                 'net.ipv4.ip_forward=0',
                 'net.ipv6.conf.default.disable_ipv6=1'], log=log)
    # The metadata agent names its namespaces after networks. Nodes have the
    # same networks, so each agent needs a /run/netns of its own.
    pins = node.mntns.parent
    pins.mkdir(exist_ok=True)
    if not _mounted(pins):
        command.run(['mount', '--bind', pins, pins], log=log)
        command.run(['mount', '--make-private', pins], log=log)
    node.mntns.touch()
    command.run(['unshare', f'--mount={node.mntns}', '--propagation',
                 'private', 'mount', '-t', 'tmpfs', '-o', 'mode=0755',
                 'netns', '/run/netns'], log=log)


def _create_links(node: plan.Node, gateway: plan.Node,
                  log: pathlib.Path) -> None:
    inside = ['address add 127.0.0.1/8 dev lo', 'link set lo up',
              f'address add {node.management}/24 dev mgmt',
              'link set mgmt up']
    host = [f'link add {node.veth} type veth peer name mgmt '
            f'netns {node.name}',
            f'link set {node.veth} master {plan.BRIDGE} up']
    if node.is_gateway:
        host += [f'link add {plan.PUBLIC_VETH} type veth peer name public '
                 f'netns {node.name}',
                 f'address add {plan.FLOATING_GATEWAY}/24 '
                 f'dev {plan.PUBLIC_VETH}',
                 f'link set {plan.PUBLIC_VETH} up']
        inside.append('link set public arp off up')
    else:
        host.append(
            f'link add {node.name} netns {gateway.name} mtu {UNDERLAY_MTU} '
            f'type veth peer name uplink mtu {UNDERLAY_MTU} '
            f'netns {node.name}')
        inside.append('link set uplink arp off up')
    command.run(['ip', '-batch', '-'], stdin='\n'.join(host) + '\n', log=log)
    command.run([*node.enter(), 'ip', '-batch', '-'],
                stdin='\n'.join(inside) + '\n', log=log)
    if node.is_gateway:
        # OVS's userspace datapath does not fill in offloaded checksums.
        command.run(['ethtool', '--offload', plan.PUBLIC_VETH, 'tx', 'off'],
                    log=log)
    else:
        command.run([*gateway.enter(), 'ip', 'link', 'set', node.name,
                     'arp', 'off', 'up'], log=log)


def create(node: plan.Node, gateway: plan.Node, log: pathlib.Path) -> bool:
    """Create the node's namespaces, links and directories.

    A half-made node is removed first. False if the node was complete.
    """
    if exists(node) and (node.run / _COMPLETE).exists():
        return False
    remove(node, gateway)
    node.run.mkdir(parents=True)
    (node.data / 'neutron').mkdir(parents=True, exist_ok=True)
    compute_user.own(node.nova_state, 0o750)
    _create_namespaces(node, log)
    _create_links(node, gateway, log)
    command.run(['ovsdb-tool', 'create', node.run / 'conf.db',
                 '/usr/share/openvswitch/vswitch.ovsschema'], log=log)
    marks.write(node.run / _COMPLETE, '')
    return True


def _vsctl(node: plan.Node, *words: str) -> tuple[str, ...]:
    return ('ovs-vsctl', f'--db=unix:{node.ovsdb}', '--timeout=30', *words)


def configure_ovs(node: plan.Node, log: pathlib.Path) -> bool:
    """Tell OVS and OVN who this node is; False if they know."""
    settings = {
        'system-id': node.name,
        # Must be nova's [DEFAULT] host, or ports do not bind.
        'hostname': node.name,
        'ovn-remote': f'unix:{node.layout.southbound}',
        'ovn-encap-type': 'geneve',
        'ovn-encap-ip': node.underlay,
        'ovn-bridge-datapath-type': 'netdev',
    }
    if node.is_gateway:
        settings['ovn-cms-options'] = _GATEWAY
        settings['ovn-bridge-mappings'] = 'physnet1:br-ex'
    if (node.run / 'ovs-settings').exists():
        return False
    command.run(_vsctl(node, '--no-wait', 'init'), log=log)
    command.run(_vsctl(node, '--no-wait', 'set', 'Open_vSwitch', '.',
                       *(f'external_ids:{name}={value}'
                         for name, value in settings.items())), log=log)
    marks.write(node.run / 'ovs-settings', '')
    return True


def report_bandwidth(node: plan.Node, log: pathlib.Path) -> bool:
    """Have Neutron tell placement what ports on this node can be promised.

    Neutron does so when it hears of it, which is of no use before nova-compute
    has made the node's own resource provider.
    """
    if (node.run / 'bandwidth').exists():
        return False
    options = [f'resource_provider_bandwidths=rp_tunnelled:{plan.BANDWIDTH}:'
               f'{plan.BANDWIDTH}',
               f'resource_provider_hypervisors=rp_tunnelled:{node.name}']
    if node.is_gateway:
        options.insert(0, _GATEWAY)
    command.run(_vsctl(node, '--no-wait', 'set', 'Open_vSwitch', '.',
                       'external_ids:ovn-cms-options='
                       f'"{",".join(options)}"'), log=log)
    marks.write(node.run / 'bandwidth', '')
    return True


def create_bridges(node: plan.Node, peers: tuple[plan.Node, ...],
                   log: pathlib.Path) -> bool:
    """Create br-int, br-phys with the geneve endpoint, and br-ex."""
    ports = ([peer.name for peer in peers if peer is not node]
             if node.is_gateway else ['uplink'])
    mark = node.run / 'bridges'
    if mark.exists() and mark.read_text() == ' '.join(ports):
        return False
    words = ['--may-exist', 'add-br', 'br-int', '--', 'set', 'bridge',
             'br-int', 'datapath_type=netdev', 'fail-mode=secure', '--',
             '--may-exist', 'add-br', 'br-phys', '--', 'set', 'bridge',
             'br-phys', 'datapath_type=netdev']
    for port in ports:
        words += ['--', '--may-exist', 'add-port', 'br-phys', port]
    if node.is_gateway:
        words += ['--', '--may-exist', 'add-br', 'br-ex', '--', 'set',
                  'bridge', 'br-ex', 'datapath_type=netdev', '--',
                  '--may-exist', 'add-port', 'br-ex', 'public']
    command.run(_vsctl(node, *words), log=log)
    # The userspace datapath needs its tunnel endpoint on an internal port.
    script = (f'address replace {node.underlay}/24 dev br-phys\n'
              f'link set br-phys up mtu {UNDERLAY_MTU}\n')
    command.run([*node.enter(), 'ip', '-batch', '-'], stdin=script, log=log)
    command.run([*node.enter(), 'ethtool', '--offload', 'br-phys', 'tx',
                 'off'], log=log)
    marks.write(mark, ' '.join(ports))
    return True


def remove(node: plan.Node, gateway: plan.Node) -> None:
    """Remove the node's namespaces, links and mounts, however far it got."""
    if not node.is_gateway and exists(gateway):
        peer = (*gateway.enter(), 'ip', 'link', 'delete', node.name)
        if command.succeeds((*peer[:-2], 'show', node.name)):
            command.output(peer)
    for veth in (node.veth, plan.PUBLIC_VETH if node.is_gateway else None):
        if veth and os.path.exists(f'/sys/class/net/{veth}'):
            command.output(['ip', 'link', 'delete', veth])
    for path in (node.mntns, node.netns):
        unmount_below(path)
        path.unlink(missing_ok=True)
    for directory in (node.run_path, node.state_path):
        unmount_below(directory)
    for path in (node.run, node.run_path):
        shutil.rmtree(path, ignore_errors=True)


def remove_shared_mount(layout: plan.Layout) -> None:
    """Undo what the first ``ip netns add`` did, if it was ours."""
    directory = pathlib.Path('/run/netns')
    if ((layout.run / _MADE_MOUNT).exists() and _mounted(directory)
            and not any(directory.iterdir())):
        command.output(['umount', directory])
        directory.rmdir()


def unmount_below(directory: pathlib.Path) -> None:
    """Unmount whatever is mounted at or below a directory."""
    for mount in reversed(_mounts()):
        if pathlib.Path(mount).is_relative_to(directory):
            command.output(['umount', '--lazy', mount])
