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
from unittest import mock

from nova.network import model
from nova import objects

from nova_container.compute import diagnostics
from nova_container.privileged import link
from nova_container.runtime import stats

FOUND = stats.Stats(
    cpu=5 * 10 ** 9, cpu_throttled=7, uptime=12.5,
    memory=stats.Memory(used=64 << 20, cache=1 << 20, swap=0,
                        limit=256 << 20),
    block_io=stats.BlockIO(1, 2, 3, 4),
    network=(stats.Interface('eth0', 10, 1, 2, 3, 20, 4, 5, 6, 12),),
    pids=3, pids_limit=100, oom_kills=1, disk_used=9000)


class StandardTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        objects.register_all()

    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.object(
            link, 'inside', {'tap1': 12, 'tap2': 13}.get))

    def standard(self, *ports):
        return diagnostics.standard(types.SimpleNamespace(
            config_drive='', flavor=types.SimpleNamespace(memory_mb=256),
            get_network_info=lambda: model.NetworkInfo(
                [model.VIF(address=address, devname=device)
                 for address, device in ports])), 'running', FOUND)

    def test_ports_that_came_and_went(self):
        """eth0 is that of the port that was attached last."""
        found = self.standard(('fa:16:3e:00:00:02', 'tap2'),
                              ('fa:16:3e:00:00:03', 'tap3'),
                              ('fa:16:3e:00:00:01', 'tap1'))
        self.assertEqual(['fa:16:3e:00:00:01'],
                         [nic.mac_address for nic in found.nic_details])

    def test_units_and_names(self):
        found = self.standard(('fa:16:3e:00:00:01', 'tap1'))
        self.assertEqual(('running', 12, False),
                         (found.state, found.uptime, found.config_drive))
        self.assertEqual((256, 64), (found.memory_details.maximum,
                                     found.memory_details.used))
        self.assertEqual(5 * 10 ** 9, found.cpu_details[0].time)
        [nic] = found.nic_details
        self.assertEqual(('fa:16:3e:00:00:01', 10, 20, 6),
                         (nic.mac_address, nic.rx_octets, nic.tx_octets,
                          nic.tx_drop))
        [disk] = found.disk_details
        self.assertEqual((1, 2, 3, 4), (
            disk.read_bytes, disk.read_requests, disk.write_bytes,
            disk.write_requests))


class PlainTest(unittest.TestCase):

    def test_numbers(self):
        found = diagnostics.plain(FOUND)
        self.assertEqual(64 << 10, found['memory-actual'])
        self.assertEqual((10, 6), (found['eth0_rx'], found['eth0_tx_drop']))
        self.assertTrue(all(isinstance(value, int)
                            for value in found.values()))
