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

import os
import types

from nova import exception as nova_exception
from nova import objects
from nova.virt import hardware
from oslo_config import fixture as config
import testtools

from nova_container.compute import flavor
from nova_container.compute import inventory
from nova_container.compute import numa


objects.register_all()


def instance(*cells):
    return types.SimpleNamespace(
        numa_topology=objects.InstanceNUMATopology(cells=list(cells))
        if cells else None)


class NumaTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.config = self.useFixture(config.Config(inventory.CONF))

    def sets(self, **options):
        for name, value in options.items():
            self.config.config(group='compute', **{f'cpu_{name}_set': value})

    def test_the_host_as_nova_takes_it(self):
        found = objects.NUMATopology.obj_from_db_obj(
            numa.topology()._to_json())
        self.assertEqual(numa.online(), set().union(
            *(cell.cpuset for cell in found.cells)))
        self.assertEqual({0}, {len(cell.pcpuset) for cell in found.cells})
        memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 20
        self.assertLess(abs(memory - sum(c.memory for c in found.cells)),
                        memory // 10)

    def test_shared_and_dedicated(self):
        self.sets(dedicated='0')
        self.assertEqual((set(), {0}), (numa.shared(), numa.dedicated()))
        self.sets(dedicated=None, shared='0')
        self.assertEqual(({0}, set()), (numa.shared(), numa.dedicated()))

    def test_options_that_make_no_sense(self):
        self.sets(dedicated='0', shared='0')
        self.assertRaises(nova_exception.Invalid, numa.shared)
        self.sets(dedicated='100000', shared=None)
        self.assertRaises(nova_exception.Invalid, numa.dedicated)

    def test_a_server_without_wishes(self):
        self.assertEqual(numa.Place(), numa.place(instance()))
        self.sets(shared='0')
        self.assertEqual(numa.Place('0'), numa.place(instance()))

    def test_processors_of_its_own(self):
        where = numa.place(instance(objects.InstanceNUMACell(
            id=0, cpuset=set(), pcpuset={0, 1}, memory=64,
            cpu_pinning={0: 3, 1: 5})))
        self.assertEqual(numa.Place('3,5', '0', dedicated=True), where)
        limit = flavor.resources(
            objects.Flavor(vcpus=2, memory_mb=64, swap=0, extra_specs={}), 10,
            where)
        self.assertEqual(('3,5', '0', None), (
            limit.cpuset, limit.memory_nodes, limit.cpu_quota))

    def test_a_node_and_its_shared_processors(self):
        cell = numa.topology().cells[0]
        where = numa.place(instance(objects.InstanceNUMACell(
            id=cell.id, cpuset={0}, pcpuset=set(), memory=64)))
        self.assertEqual(
            numa.Place(hardware.format_cpu_spec(cell.cpuset), str(cell.id)),
            where)
