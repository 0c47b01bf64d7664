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

import time
import uuid

from openstack import exceptions

from tests.cloud import base


class FlavorTest(base.CloudTestCase):
    """What a flavor says, as the container and the API have it."""

    def flavor(self, **extra_specs):
        flavor = self.admin.compute.create_flavor(
            name=f'test-{uuid.uuid4().hex[:8]}', vcpus=1, ram=128, disk=1)
        self.addCleanup(self.admin.compute.delete_flavor, flavor)
        if extra_specs:
            self.admin.compute.create_flavor_extra_specs(flavor, extra_specs)
        return flavor

    def test_root_disk_is_full_inside_and_nowhere_else(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:command':
                '/bin/sh -c "dd if=/dev/zero of=/srv/big bs=1M count=1200; '
                'rm /srv/big; echo small > /srv/small; cat /srv/small; '
                'sleep 1000"'}))
        self.await_console(server, 'small')
        self.assertIn('No space left on device', self.console(server))

    def test_disk_rates(self):
        rate = 2 << 20
        flavor = self.flavor(**{'quota:disk_read_bytes_sec': str(rate),
                                'quota:disk_write_bytes_sec': str(rate)})
        server = self.active(self.boot(self.busybox(), flavor.name))
        for way in ('if=/dev/zero of=/srv/x oflag=direct',
                    'if=/srv/x of=/dev/null iflag=direct'):
            began = time.monotonic()
            self.execute(server, 'dd', 'bs=1M', 'count=8', *way.split())
            took = time.monotonic() - began
            self.assertGreater(took, 2, way)
            self.assertLess(took, 30, way)

    def test_typo_in_an_extra_spec_is_refused_by_the_api(self):
        flavor = self.flavor(**{'container:pids_limit': '20'})
        for wrong in ({'container:pid_limit': '20'},
                      {'container:pids_limit': 'many'}):
            with self.assertRaises(exceptions.BadRequestException):
                self.admin.compute.create_flavor_extra_specs(flavor, wrong)

    def test_processes_are_limited(self):
        flavor = self.flavor(**{'container:pids_limit': '20'})
        server = self.boot(self.busybox(), flavor.name, metadata={
            'container:command':
                '/bin/sh -c "for i in $(seq 40); do sleep 1000 & done; '
                'sleep 1000"'})
        # The shell ends when it cannot fork.
        self.status(server, 'SHUTOFF')
        self.assertIn('fork', self.console(server))

    def test_memory_kill_makes_the_server_shutoff(self):
        server = self.boot(self.busybox(), self.flavor().name, metadata={
            'container:command':
                '/bin/sh -c "sleep 3; exec dd if=/dev/zero of=/dev/null '
                'bs=400M count=1"'})
        self.status(server, 'SHUTOFF')


class DiagnosticsTest(base.CloudTestCase):

    def test_numbers_of_a_running_server(self):
        server = self.active(self.boot(self.busybox()))
        found = self.admin.compute.get_server_diagnostics(server)
        flavor = self.user.compute.find_flavor('c1.tiny')
        self.assertEqual('running', found.state)
        self.assertEqual('docker', found.hypervisor)
        self.assertEqual(flavor.ram, found.memory_details['maximum'])
        (nic,) = found.nic_details
        port = next(self.user.network.ports(device_id=server.id))
        self.assertEqual(port.mac_address, nic['mac_address'])
