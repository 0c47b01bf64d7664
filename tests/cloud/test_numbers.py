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

import pathlib

from openstack import utils

from tests.cloud import base
from tests.cloud import terminal

_WAIT = 60


class PinningTest(base.CloudTestCase):
    """A host with processors for servers of their own."""

    def setUp(self):
        super().setUp()
        node, *others = base.cloud()['nodes']
        self.host = node['name']
        for other in others:
            (service,) = self.admin.compute.services(
                binary='nova-compute', host=other['name'])
            self.admin.compute.disable_service(service)
            self.addCleanup(self.admin.compute.enable_service, service)
        config = pathlib.Path(node['config'])
        before = config.read_text()
        self.addCleanup(base.restart, f'nova-compute@{self.host}')
        self.addCleanup(config.write_text, before)
        config.write_text(before.replace(
            '[compute]\n', '[compute]\ncpu_shared_set = 0\n'
            'cpu_dedicated_set = 1\n'))
        base.restart(f'nova-compute@{self.host}')

    def flavor(self, **specs):
        found = self.admin.compute.create_flavor(
            name=f'test-{self.id()[-30:]}', ram=64, vcpus=1, disk=1)
        self.addCleanup(self.admin.compute.delete_flavor, found)
        self.admin.compute.create_flavor_extra_specs(found, specs)
        return found.name

    def inventory(self):
        provider = next(self.admin.placement.resource_providers(
            name=self.host))
        return self.admin.placement.get(
            f'/resource_providers/{provider.id}/inventories'
        ).json()['inventories']

    def allowed(self, server) -> str:
        with terminal.of(self.user, server) as shell:
            return shell.run('grep _allowed_list /proc/self/status')

    def test_dedicated_processors(self):
        for _ in utils.iterate_timeout(_WAIT, 'no PCPU', wait=0.5):
            found = self.inventory()
            if 'PCPU' in found:
                break
        self.assertEqual((1, 1), (found['PCPU']['total'],
                                  found['VCPU']['total']))
        pinned = self.flavor(**{'hw:cpu_policy': 'dedicated'})
        own = self.active(self.boot(self.busybox(), pinned))
        other = self.active(self.boot(self.busybox()))
        self.assertIn('Cpus_allowed_list:\t1\n', self.allowed(own))
        self.assertIn('Mems_allowed_list:\t0\n', self.allowed(own))
        self.assertIn('Cpus_allowed_list:\t0\n', self.allowed(other))
        self.assertRegex(self.fault(self.boot(self.busybox(), pinned)),
                         'No valid host|cannot fit|Exhausted all hosts')
