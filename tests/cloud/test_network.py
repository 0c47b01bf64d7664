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

import ipaddress
import json
import pathlib
import subprocess

from openstack import utils

from tests.cloud import base
from tests.cloud import terminal

_TIMEOUT = 60


class NetworkTestCase(base.CloudTestCase):

    def shell(self, server) -> terminal.Terminal:
        return self.enterContext(terminal.of(self.user, server))

    def private_network(self, name, cidr, **fields):
        """A network of the test's own and its subnet, on no router."""
        network = self.user.network.create_network(name=name, **fields)
        self.addCleanup(self.user.network.delete_network, network)
        subnet = self.user.network.create_subnet(
            network_id=network.id, ip_version=ipaddress.ip_network(
                cidr).version, cidr=cidr)
        return network, subnet

    def port(self, network, **fields):
        port = self.user.network.create_port(network_id=network.id, **fields)
        self.addCleanup(self.user.network.delete_port, port)
        return port

    def security_group(self, *rules):
        group = self.user.network.create_security_group(name='test')
        self.addCleanup(self.user.network.delete_security_group, group)
        for rule in rules:
            self.user.network.create_security_group_rule(
                security_group_id=group.id, direction='ingress', **rule)
        return group

    def in_network_of(self, server, *command):
        """What root in a container with CAP_NET_ADMIN could do."""
        for node in base.cloud()['nodes']:
            path = pathlib.Path(node['run_path'], 'c', server.id, 'run.json')
            if path.exists():
                pid = json.loads(path.read_text())['pid']
                subprocess.run(['nsenter', f'--net=/proc/{pid}/ns/net',
                                *command], check=True, capture_output=True)

    def await_success(self, shell, command):
        """Run a command until it succeeds: Neutron takes its time."""
        for _ in utils.iterate_timeout(_TIMEOUT, command, wait=0.5):
            try:
                return shell.run(command)
            except AssertionError:
                continue


class PortsTest(NetworkTestCase):

    def test_ports_of_a_server(self):
        """Two servers, and everything that Neutron can want of their ports.
        """
        other, subnet = self.private_network('test-other', '10.44.0.0/24')
        first = self.port(
            self.network, fixed_ips=[{'ip_address': '10.0.0.201'},
                                     {'ip_address': '10.0.0.202'}],
            allowed_address_pairs=[{'ip_address': '10.0.0.210'}])
        closed = self.security_group()
        second = self.port(other, security_group_ids=[closed.id])
        server = self.boot(
            self.busybox(), name='many', networks=[
                {'port': first.id, 'tag': 'front'}, {'port': second.id}],
            metadata={'container:stop_signal': 'KILL',
                      'container:command':
                          'sh -c "httpd -h /etc -p 80; httpd -h /etc -p 8000; '
                          'sleep 1000000"'})
        client = self.boot(self.busybox(), name='client', networks=[
            {'uuid': self.network.id}, {'uuid': other.id}],
            metadata={'container:stop_signal': 'KILL'})
        self.active(server)
        self.active(client)
        inside, outside = self.shell(server), self.shell(client)

        with self.subTest('both ports, all addresses, the MTU'):
            seen = inside.run('ip addr')
            for address in (*first.fixed_ips, *second.fixed_ips):
                self.assertIn(f' {address["ip_address"]}/', seen)
            self.assertIn(first.mac_address, seen)
            mtu = self.user.network.get_network(self.network.id).mtu
            self.assertIn(f' mtu {mtu} ', seen)
            for size in (mtu - 28, 2 * mtu):
                outside.run(f'ping -c1 -W5 -s {size} 10.0.0.201')

        with self.subTest('names of Neutron'):
            self.assertIn('10.0.0.201', outside.run('nslookup many'))
            outside.run('wget -q -O - http://many/hostname')
            inside.run('ping -c1 -W5 client.cloud.internal')

        with self.subTest('a second fixed address'):
            outside.run('ping -c1 -W5 10.0.0.202')

        with self.subTest('security groups let pass and hold back'):
            self.assertEqual('many\n', outside.run(
                'wget -q -O - http://10.0.0.201/hostname'))
            with self.assertRaises(AssertionError):
                outside.run('wget -q -T 2 -O - http://10.0.0.201:8000/')
            address = second.fixed_ips[0]['ip_address']
            with self.assertRaises(AssertionError):
                outside.run(f'ping -c1 -W2 {address}')
            self.user.network.create_security_group_rule(
                security_group_id=closed.id, direction='ingress',
                protocol='icmp')
            self.await_success(outside, f'ping -c1 -W2 {address}')

        with self.subTest('an address that is not its own, unless allowed'):
            for address in ('10.0.0.210', '10.0.0.211'):
                self.in_network_of(server, 'ip', 'addr', 'add',
                                   f'{address}/32', 'dev', 'eth0')
            outside.run('ping -c1 -W5 10.0.0.210')
            with self.assertRaises(AssertionError):
                outside.run('ping -c1 -W2 10.0.0.211')

        with self.subTest('IPv6'):
            v6 = next(ip['ip_address'] for ip in first.fixed_ips
                      if ':' in ip['ip_address'])
            outside.run(f'ping6 -c1 -W5 {v6}')

        with self.subTest('tags'):
            found = json.loads(inside.run(
                'wget -q -O - http://169.254.169.254/openstack/latest/'
                'meta_data.json'))
            self.assertEqual([(first.mac_address, ['front'])],
                             [(device['mac'], device['tags'])
                              for device in found['devices']])

        with self.subTest('an interface more'):
            self.attach_and_detach(
                server, inside, other, peer=self.user.compute.get_server(
                    client).addresses['test-other'][0]['addr'])

        with self.subTest('addresses stay over stop and start'):
            before = inside.run('ip -o addr show scope global').split()
            self.user.compute.stop_server(server)
            self.assertEqual('SHUTOFF', self.settled(server))
            self.user.compute.start_server(server)
            self.assertEqual('ACTIVE', self.settled(server))
            again = self.shell(server)
            after = again.run('ip -o addr show scope global').split()
            self.assertEqual(
                {word for word in before if '/' in word}
                - {'10.0.0.210/32', '10.0.0.211/32'},
                {word for word in after if '/' in word})
            outside.run('wget -q -O - http://10.0.0.201/hostname')

    def attach_and_detach(self, server, inside, network, peer):
        third = self.user.compute.create_server_interface(
            server, net_id=network.id, tag='late')
        address = third.fixed_ips[0]['ip_address']
        self.assertIn(f' {address}/24', inside.run('ip addr show eth2'))
        # The service keeps an answer for 15 s.
        for _ in utils.iterate_timeout(_TIMEOUT, 'no tag', wait=1):
            found = json.loads(inside.run(
                'wget -q -O - http://169.254.169.254/openstack/latest/'
                'meta_data.json'))
            if {'front', 'late'} == {
                    device['tags'][0] for device in found['devices']}:
                break
        inside.run(f'ping -c1 -W5 -I eth2 {peer}')
        self.user.compute.delete_server_interface(third.port_id, server)
        for _ in utils.iterate_timeout(_TIMEOUT, 'eth2 stays', wait=0.3):
            if 'eth2' not in inside.run('ip -o link'):
                break
        # Nova lets go of the port once the container has.
        for _ in utils.iterate_timeout(_TIMEOUT, 'the port stays', wait=0.3):
            if len(list(self.user.compute.server_interfaces(server))) == 2:
                break


class FloatingAddressTest(NetworkTestCase):

    def test_from_outside(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:command':
                'sh -c "cd /srv; echo reached > index.html; httpd -p 80; '
                'httpd -p 8000; sleep 1000000"'}))
        address = self.floating_ip(server)
        self.assertEqual('reached\n', base.curl(address))
        closed = subprocess.run(
            ['curl', '--noproxy', '*', '--connect-timeout', '2',
             f'http://{address}:8000/'], capture_output=True)
        self.assertEqual(28, closed.returncode, 'not held back')
        self.user.network.delete_ip(next(self.user.network.ips(
            floating_ip_address=address)))
        for _ in utils.iterate_timeout(_TIMEOUT, 'still reached', wait=0.2):
            try:
                base.curl(address, retry=0)
            except subprocess.CalledProcessError:
                break


class QosTest(NetworkTestCase):
    """Policies of Neutron's; an administrator makes them."""

    # Kilobits per second; what a download has, bytes.
    LIMIT = 20_000
    SIZE = 4 << 20

    def policy(self, kind: str, **fields) -> str:
        """A policy with one kind of rule for both directions; its id."""
        neutron = self.admin.network
        policy = neutron.create_qos_policy(name='test', is_shared=True)
        self.addCleanup(neutron.delete_qos_policy, policy)
        for direction in ('egress', 'ingress'):
            getattr(neutron, f'create_qos_{kind}_rule')(
                policy, direction=direction, **fields)
        return policy.id

    def rate(self, shell, address: str) -> float:
        """Of a download, kilobits per second."""
        began, ended = map(float, shell.run(
            'now() { cut -d" " -f1 /proc/uptime; }; now; '
            f'wget -q -O /dev/null http://{address}/zeros; now').split())
        return self.SIZE * 8 / 1000 / max(ended - began, 0.01)

    def test_bandwidth_limit(self):
        policy = self.policy('bandwidth_limit', max_kbps=self.LIMIT,
                             max_burst_kbps=self.LIMIT // 5)
        port = self.port(self.network)
        serve = (f'sh -c "head -c {self.SIZE} /dev/zero > /srv/zeros; '
                 'httpd -h /srv -p 80; sleep 1000000"')
        servers = [
            self.boot(self.busybox(), networks=[network], metadata={
                'container:stop_signal': 'KILL', 'container:command': serve})
            for network in ({'port': port.id}, {'uuid': self.network.id})]
        addresses = [next(
            address['addr'] for address in
            self.active(server).addresses[self.network.name]
            if address['version'] == 4) for server in servers]
        shells = [*map(self.shell, servers)]
        for shell, address in zip(reversed(shells), addresses):
            self.await_success(shell, f'wget -q -O /dev/null '
                                      f'http://{address}/zeros')

        def rates() -> list[float]:
            """From the server with the port, and to it."""
            return [self.rate(shell, address) for shell, address in
                    zip(reversed(shells), addresses)]

        def become(right) -> None:
            seen = []
            for _ in range(10):
                seen.append(rates())
                if all(map(right, seen[-1])):
                    return
            self.fail(f'rates: {seen}')

        become(lambda rate: rate > 4 * self.LIMIT)
        self.user.network.update_port(port, qos_policy_id=policy)
        become(lambda rate: self.LIMIT / 3 < rate < self.LIMIT * 1.3)
        self.user.network.update_port(port, qos_policy_id=None)
        become(lambda rate: rate > 4 * self.LIMIT)

    def test_minimum_bandwidth(self):
        """What is promised is placement's to count."""
        promised, too_much = (self.policy('minimum_bandwidth', min_kbps=kbps)
                              for kbps in (300_000, 2_000_000))
        server, other = (self.boot(
            self.busybox(), networks=[{'port': self.port(
                self.network, qos_policy_id=policy).id}],
            metadata={'container:stop_signal': 'KILL'})
            for policy in (promised, too_much))
        self.assertIn('No valid host', self.fault(other))
        self.active(server)
        placement = self.admin.placement
        found = {placement.get_resource_provider(provider).name:
                 each['resources'] for provider, each in placement.get(
                     f'/allocations/{server.id}').json()[
                         'allocations'].items()}
        host = self.admin.compute.get_server(server.id).hypervisor_hostname
        self.assertEqual(
            {'NET_BW_EGR_KILOBIT_PER_SEC': 300_000,
             'NET_BW_IGR_KILOBIT_PER_SEC': 300_000},
            found.pop(f'{host}:OVN Controller agent:rp_tunnelled'))
        self.assertEqual([host], [*found])
