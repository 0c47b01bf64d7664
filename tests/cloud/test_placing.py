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

"""Which host a server gets, and whether it gets one."""

import configparser
import pathlib
import subprocess
import tempfile
import uuid

from openstack import exceptions

from tests.cloud import base


class PlacingTest(base.CloudTestCase):

    def host(self, server) -> str:
        return self.admin.compute.get_server(server.id).hypervisor_hostname

    def empty_host(self) -> str:
        """A host without servers: only such a one may join a zone."""
        for _ in base.utils.iterate_timeout(60, 'every host has servers',
                                            wait=0.5):
            taken = {server.hypervisor_hostname for server in
                     self.admin.compute.servers(all_projects=True)}
            for node in base.cloud()['nodes']:
                if node['name'] not in taken:
                    return node['name']

    def aggregate(self, host: str):
        """A host aggregate, and an availability zone of the same name."""
        name = f'test-{uuid.uuid4().hex[:8]}'
        found = self.admin.compute.create_aggregate(
            name=name, availability_zone=name)
        self.addCleanup(self.admin.compute.delete_aggregate, found)
        self.admin.compute.add_host_to_aggregate(found, host)
        self.addCleanup(self.admin.compute.remove_host_from_aggregate,
                        found, host)
        return found

    def test_zone_and_images_cached_in_it(self):
        host = self.empty_host()
        aggregate = self.aggregate(host)
        image = self.upload(base.busybox_archive(config={
            'Cmd': ['/bin/sleep', '1000000'],
            'Labels': {'test': uuid.uuid4().hex}}))
        self.assertNotIn(image, self.cached(host))
        self.admin.compute.aggregate_precache_images(aggregate, image)
        for _ in base.utils.iterate_timeout(60, 'not cached', wait=0.5):
            if image in self.cached(host):
                break
        server = self.boot(image, availability_zone=aggregate.name)
        with self.assertRaises(exceptions.BadRequestException):
            self.boot(image, availability_zone='nowhere')
        self.active(server)
        self.assertEqual(host, self.host(server))
        self.assertEqual(aggregate.name, self.user.compute.get_server(
            server).availability_zone)
        # Its last server gone, the host may leave the zone.
        self.delete(server)

    def cached(self, host: str) -> str:
        """What the operator's command on a host says of its images."""
        (node,) = (node for node in base.cloud()['nodes']
                   if node['name'] == host)
        return subprocess.run(
            [f'{base.cloud()["venv"]}/bin/nova-container', 'store', 'list',
             '--format', 'json', '--config-file', node['config']],
            check=True, text=True, capture_output=True).stdout

    def test_servers_apart_and_quota(self):
        group = self.user.compute.create_server_group(
            name='test-apart', policy='anti-affinity')
        self.addCleanup(self.user.compute.delete_server_group, group)
        apart = {'scheduler_hints': {'group': group.id}}
        first, second = [self.active(self.boot(self.busybox(), **apart))
                         for _ in range(2)]
        self.assertNotEqual(self.host(first), self.host(second))
        self.assertIn('No valid host', self.fault(
            self.boot(self.busybox(), **apart)))
        # What is there already is counted.
        project = self.user.current_project_id
        servers = len(list(self.user.compute.servers()))
        quota = self.admin.compute.get_quota_set(project)
        self.addCleanup(self.admin.compute.update_quota_set, project,
                        instances=quota.instances)
        self.admin.compute.update_quota_set(project, instances=servers)
        with self.assertRaisesRegex(exceptions.ForbiddenException,
                                    'Quota exceeded'):
            self.boot(self.busybox())
        self.user.compute.delete_server(first)
        self.user.compute.wait_for_delete(first, interval=0.5)
        self.active(self.boot(self.busybox()))


class MixedCloudTest(base.CloudTestCase):
    """Beside the hosts of containers one with another driver: Nova's fake."""

    HOST = 'test-other-driver'

    def setUp(self):
        super().setUp()
        node = base.cloud()['nodes'][0]
        directory = pathlib.Path(self.enterContext(
            tempfile.TemporaryDirectory()))
        own = configparser.RawConfigParser(strict=False)
        own.read(node['config'])
        own['DEFAULT'].update(host=self.HOST, state_path=str(directory),
                              compute_driver='fake.FakeDriver')
        own['oslo_concurrency']['lock_path'] = str(directory)
        with open(directory / 'nova.conf', 'w') as file:
            own.write(file)
        log = self.enterContext(open(directory / 'log', 'w'))
        process = subprocess.Popen(
            [f'{base.cloud()["venv"]}/bin/nova-compute', '--config-file',
             directory / 'nova.conf'], stdout=log, stderr=log)
        self.addCleanup(self.end, process)
        for _ in base.utils.iterate_timeout(120, 'it does not start', wait=1):
            self.assertIsNone(process.poll(),
                              (directory / 'log').read_text()[-2000:])
            services = list(self.admin.compute.services(
                binary='nova-compute', host=self.HOST))
            # The scheduler looks for new hosts by itself.
            if (services and services[0].state == 'up' and any(
                    hypervisor.name == self.HOST for hypervisor in
                    self.admin.compute.hypervisors())):
                break

    def end(self, process) -> None:
        process.terminate()
        process.wait(60)
        for service in self.admin.compute.services(host=self.HOST):
            self.admin.compute.delete_service(service)

    def test_images_go_where_they_belong(self):
        # It says that it has far more room than the others.
        other = self.upload(b'a disk', container_format='bare',
                            properties={'img_hv_type': 'fake'})
        servers = [self.boot(image, networks='none')
                   for image in (other, self.busybox())]
        hosts = [self.admin.compute.get_server(
            self.active(server).id).hypervisor_hostname for server in servers]
        self.assertEqual(self.HOST, hosts[0])
        self.assertIn(hosts[1], [node['name']
                                 for node in base.cloud()['nodes']])
