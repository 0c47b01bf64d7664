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

import types
import unittest

from nova_container.compute import flavor
from nova_container import exception
from nova_container.spec import disk
from nova_container.spec import limits


def make(**extra_specs) -> types.SimpleNamespace:
    specs = {key.replace('__', ':'): value
             for key, value in extra_specs.items()}
    return types.SimpleNamespace(vcpus=2, memory_mb=512, swap=128, root_gb=3,
                                 ephemeral_gb=0, extra_specs=specs)


class ResourcesTest(unittest.TestCase):

    def resources(self, **extra_specs) -> limits.Limits:
        return flavor.resources(make(**extra_specs), 100)

    def test_from_the_flavor_alone(self):
        self.assertEqual(
            limits.Limits(cpu_quota=200000, cpu_shares=2048,
                          memory=512 << 20, swap=128 << 20, pids=100),
            self.resources())

    def test_processor(self):
        found = self.resources(quota__cpu_quota='50000',
                               quota__cpu_period='20000',
                               quota__cpu_shares='10')
        # Of each of two vCPUs, as Nova has it.
        self.assertEqual((100000, 20000, 10), (
            found.cpu_quota, found.cpu_period, found.cpu_shares))
        self.assertIsNone(self.resources(quota__cpu_quota='-1').cpu_quota)
        self.assertEqual(200000,
                         self.resources(quota__cpu_quota='0').cpu_quota)

    def test_period_alone_keeps_the_share_of_processors(self):
        found = self.resources(quota__cpu_period='10000')
        self.assertEqual((20000, 10000), (found.cpu_quota, found.cpu_period))

    def test_disk_rates(self):
        found = self.resources(quota__disk_read_bytes_sec='1000',
                               quota__disk_read_iops_sec='20',
                               quota__disk_write_bytes_sec='0',
                               quota__disk_write_iops_sec='40')
        self.assertEqual((1000, 20, None, 40), (
            found.disk_read_bytes, found.disk_read_operations,
            found.disk_write_bytes, found.disk_write_operations))

    def test_sum_of_reads_and_writes_is_refused(self):
        with self.assertRaisesRegex(exception.InvalidSpec,
                                    'disk_read_iops_sec'):
            self.resources(quota__disk_total_iops_sec='20')

    def test_bandwidth_is_in_kilobytes(self):
        found = self.resources(quota__vif_inbound_average='1000',
                               quota__vif_outbound_average='10',
                               quota__vif_outbound_peak='20',
                               quota__vif_outbound_burst='30')
        self.assertEqual(limits.Bandwidth(1000000), found.network_in)
        self.assertEqual(limits.Bandwidth(10000, 20000, 30 * 1024),
                         found.network_out)

    def test_peak_needs_an_average(self):
        with self.assertRaisesRegex(exception.InvalidSpec, 'average'):
            self.resources(quota__vif_inbound_peak='20')

    def test_words_of_ours(self):
        found = self.resources(container__pids_limit='7',
                               container__open_files='99')
        self.assertEqual((7, 99), (found.pids, found.open_files))

    def test_no_number(self):
        with self.assertRaisesRegex(exception.InvalidSpec, 'pids_limit'):
            self.resources(container__pids_limit='many')


class DisksTest(unittest.TestCase):

    def test_disks(self):
        small = make()
        self.assertEqual(disk.Disk(root=3 << 30), flavor.disks(small))
        small.root_gb, small.ephemeral_gb = 0, 2
        self.assertEqual(disk.Disk(ephemeral=2 << 30), flavor.disks(small))
