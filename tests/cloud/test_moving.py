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

"""Servers that move: to another flavor, to another host, and back."""

import contextlib

from openstack import exceptions

from nova_container.runtime import state
from tests import archives
from tests.cloud import base

_WRITES = ('/bin/sh -c "test -e /srv/mine || echo $RANDOM.$$ >/srv/mine; '
           'echo mine=$(cat /srv/mine) cpu=$(nproc); exec sleep 1000000"')

# When the first process began, in ticks since the host's start.
_BEGAN = 'cut -d" " -f22 /proc/1/stat'


class MovingTest(base.CloudTestCase):
    """One server through everything: each boot takes its time."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.large = cls.flavor(disk=2, ephemeral=1)
        cls.small = cls.flavor(disk=1, ephemeral=0)

    @classmethod
    def flavor(cls, disk, ephemeral):
        flavor = cls.admin.compute.create_flavor(
            name=f'test-{disk}-{ephemeral}', vcpus=1, ram=128, disk=disk,
            ephemeral=ephemeral)
        cls.addClassCleanup(cls.admin.compute.delete_flavor, flavor)
        return flavor.id

    def host(self, server) -> str:
        return self.admin.compute.get_server(server).hypervisor_hostname

    def inside(self, server, script: str) -> str:
        return base.inside(self.host(server), server.id, script)

    def check(self, server, status='ACTIVE'):
        """The server is as it was."""
        self.assertEqual(status, self.settled(server))
        self.assertEqual(self.addresses, self.user.compute.get_server(
            server).addresses)
        self.assertEqual(self.mine, self.inside(server, 'cat /srv/mine'))
        self.assertEqual('1 packets received', self.inside(
            server, 'ping -c1 -w20 10.0.0.1 | grep -o "1 packets received"'))
        self.assertEqual([], base.transfers())

    def allocated(self, server):
        """Names of the hosts whose resources a server has."""
        found = self.admin.placement.get(
            f'/allocations/{server.id}').json()['allocations']
        return {self.admin.placement.get_resource_provider(
            provider).name for provider in found}

    def begin(self, image=None, flavor=None):
        server = self.active(self.boot(image or self.busybox(), 'c1.tiny',
                                       metadata={
                                           'container:command': _WRITES,
                                           'container:stop_signal':
                                           'SIGKILL'}))
        self.addresses = self.user.compute.get_server(server).addresses
        self.await_console(server, 'mine=')
        self.mine = self.inside(server, 'cat /srv/mine')
        return server

    def test_resize_migrate_and_revert(self):
        server = self.begin()
        first = self.host(server)
        self.user.compute.resize_server(server, self.large)
        self.check(server, 'VERIFY_RESIZE')
        self.assertRegex(self.inside(server, 'df -h /mnt'), r' 9\d\d\.\dM ')
        self.confirm(server)
        self.check(server)
        self.inside(server, 'echo kept >/mnt/kept')
        second = self.host(server)

        # Does not fit: refused, and nothing has happened.
        self.inside(server, 'head -c 1100000000 /dev/zero >/srv/big')
        began = self.inside(server, _BEGAN)
        self.user.compute.resize_server(server, self.small)
        self.check(server)
        self.assertEqual(began, self.inside(server, _BEGAN))
        self.inside(server, 'rm /srv/big')

        # To another host, and back with what was there before.
        self.admin.compute.migrate_server(server, host=self.other(second))
        self.check(server, 'VERIFY_RESIZE')
        self.assertEqual(self.other(second), self.host(server))
        self.assertEqual('kept', self.inside(server, 'cat /mnt/kept'))
        self.inside(server, 'echo lost >/srv/lost')
        self.user.compute.revert_server_resize(server)
        self.check(server)
        self.assertEqual(second, self.host(server))
        self.assertEqual('', self.inside(server, 'ls /srv | grep lost; true'))

        # Stopped, it stays stopped.
        self.user.compute.stop_server(server)
        self.assertEqual('SHUTOFF', self.settled(server))
        self.admin.compute.migrate_server(server, host=self.other(second))
        self.assertEqual('VERIFY_RESIZE', self.settled(server))
        self.confirm(server, 'SHUTOFF')
        self.user.compute.start_server(server)
        self.check(server)
        self.assertEqual('kept', self.inside(server, 'cat /mnt/kept'))
        self.assertEqual({self.host(server)}, self.allocated(server))
        self.assertIn(first, (second, self.other(second)))

    def test_smaller_than_it_was_at_first(self):
        server = self.boot(self.busybox(), 'c1.small', metadata={
            'container:stop_signal': 'SIGKILL'})
        self.active(server)
        snapshot = self.user.compute.create_server_image(
            server, 'test', wait=True, timeout=base._TIMEOUT)
        self.addCleanup(self.user.image.delete_image, snapshot)
        # What has written little starts anywhere, and so does its snapshot.
        self.assertEqual(0, snapshot.min_disk)
        self.user.compute.rebuild_server(server, image=self.busybox())
        self.status(server, 'ACTIVE')
        self.user.compute.resize_server(server, self.user.compute.find_flavor(
            'c1.tiny').id)
        self.status(server, 'VERIFY_RESIZE')
        self.confirm(server)
        self.assertEqual('c1.tiny', self.user.compute.get_server(
            server).flavor.original_name)

    def confirm(self, server, status='ACTIVE'):
        """Nova names no task while it confirms."""
        self.user.compute.confirm_server_resize(server)
        self.status(server, status)

    def other(self, host: str) -> str:
        return next(node['name'] for node in base.cloud()['nodes']
                    if node['name'] != host)

    def test_image_is_gone(self):
        """What a server was made of moves with it."""
        image = self.user.image.get_image(self.upload(base.busybox_archive(
            archives.tar(archives.entry('srv/of-the-image', b'yes\n')))))
        server = self.begin(image.id)
        self.user.image.delete_image(image)
        host = self.other(self.host(server))
        self.admin.compute.migrate_server(server, host=host)
        self.check(server, 'VERIFY_RESIZE')
        self.confirm(server)
        self.user.compute.reboot_server(server, 'HARD')
        self.check(server)
        self.assertEqual('yes', self.inside(server, 'cat /srv/of-the-image'))

    def test_image_of_a_tenant_by_the_same_name(self):
        """It is neither taken for what was sent, nor in the way."""
        server = self.begin()
        # Takes a while to be sent.
        self.inside(server, 'head -c 400000000 /dev/urandom >/srv/big')
        host = self.other(self.host(server))
        self.admin.compute.migrate_server(server, host=host)
        for _ in base.utils.iterate_timeout(120, 'nothing is sent', wait=0.1):
            if base.transfers():
                break
        name = f'nova-container-transfer-{server.id}'
        self.forge(name)
        self.assertEqual([name] * 2, base.transfers(), 'it came too late')
        self.assertEqual('VERIFY_RESIZE', self.settled(server))
        self.assertEqual(host, self.host(server))
        self.assertEqual(self.mine, self.inside(server, 'cat /srv/mine'))
        self.confirm(server)
        self.assertEqual([name], base.transfers())

    def forge(self, name: str) -> None:
        """A tenant's image that cannot be deleted, hidden and newer."""
        glance = self.user.image
        made = glance.post('/images', json={
            'name': name, 'os_hidden': True, 'protected': True,
            'container_format': 'docker', 'disk_format': 'raw'})
        self.assertEqual(201, made.status_code, made.text)
        image = made.json()['id']
        self.addCleanup(glance.delete_image, image)
        self.addCleanup(glance.patch, f'/images/{image}', json=[
            {'op': 'replace', 'path': '/protected', 'value': False}],
            headers={'Content-Type':
                     'application/openstack-images-v2.1-json-patch'})
        sent = glance.put(
            f'/images/{image}/file', data=b'of a tenant',
            headers={'Content-Type': 'application/octet-stream'})
        self.assertEqual(204, sent.status_code, sent.text)


class EvacuateTest(base.CloudTestCase):

    def test_host_is_lost(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:stop_signal': 'SIGKILL'}))
        addresses = self.user.compute.get_server(server).addresses
        lost = self.admin.compute.get_server(server).hypervisor_hostname
        base.inside(lost, server.id, 'echo gone >/srv/mine')
        (service,) = self.admin.compute.services(binary='nova-compute',
                                                 host=lost)
        self.admin.compute.update_service_forced_down(service, forced=True)
        try:
            self.admin.compute.evacuate_server(server)
            self.status(server, 'REBUILD')
            self.status(server, 'ACTIVE')
            found = self.admin.compute.get_server(server).hypervisor_hostname
            self.assertNotEqual(lost, found)
            self.assertEqual(addresses, self.user.compute.get_server(
                server).addresses)
            self.assertEqual('', base.inside(found, server.id, 'ls /srv'))
            base.inside(found, server.id, 'ping -c1 -w20 10.0.0.1')
        finally:
            # Back again, the host drops what has been evacuated. Until Nova
            # is told, it stays down.
            pid = base.service_pid(f'nova-compute@{lost}')
            base.kill_group(pid)
            self.await_up(service)
            base.await_new_pid(f'nova-compute@{lost}', pid)
        for _ in base.utils.iterate_timeout(60, 'it is still there', wait=1):
            base.visit(lost)
            if server.id not in state.ids():
                break

    def await_up(self, service):
        """Nova refuses until the host has seen to its evacuated servers."""
        for _ in base.utils.iterate_timeout(120, 'it stays down', wait=1):
            with contextlib.suppress(exceptions.BadRequestException):
                self.admin.compute.update_service_forced_down(service,
                                                              forced=False)
                return


class HostTestCase(base.CloudTestCase):

    def switch(self, host, status, what='status'):
        """As "openstack host set" does."""
        answer = self.admin.compute.put(
            f'/os-hosts/{host}', json={what: status}, microversion='2.1')
        self.assertEqual(200, answer.status_code, answer.text)
        return answer.json()[what]


class HostTest(HostTestCase):

    def test_uptime_and_address(self):
        answer = self.admin.compute.get('/os-hypervisors/detail',
                                        microversion='2.88').json()
        for found in answer['hypervisors']:
            self.assertIn('load average', found['uptime'])
            self.assertRegex(found['host_ip'], r'^172\.31\.1\.')

    def test_disabled_host_gets_no_server(self):
        hosts = [node['name'] for node in base.cloud()['nodes']]
        for host in hosts:
            self.switch(host, 'disable')
        try:
            self.assertIn('No valid host', self.fault(self.boot(
                self.busybox())))
        finally:
            for host in hosts:
                self.switch(host, 'enable')
        self.active(self.boot(self.busybox()))


class MaintenanceTest(HostTestCase):
    """The host that has no server yet goes into maintenance."""

    def setUp(self):
        super().setUp()
        taken = {server.hypervisor_hostname for server in
                 self.admin.compute.servers(all_projects=True)}
        self.maintained, self.other = sorted(
            (node['name'] for node in base.cloud()['nodes']),
            key=lambda name: name in taken)
        self.assertNotIn(self.maintained, taken)

    def service(self):
        (found,) = self.admin.compute.services(binary='nova-compute',
                                               host=self.maintained)
        return found

    def maintain(self, status: str) -> str:
        return self.switch(self.maintained, status, 'maintenance_mode')

    def await_reason(self, reason: str) -> None:
        for _ in base.utils.iterate_timeout(120, reason, wait=0.5):
            found = self.service().disabled_reason
            if found == f'maintenance mode: {reason}':
                return

    def boot_there(self, count: int):
        self.switch(self.other, 'disable')
        try:
            return [self.active(server) for server in [
                self.boot(self.busybox(), metadata={
                    'container:stop_signal': 'SIGKILL'})
                for _ in range(count)]]
        finally:
            self.switch(self.other, 'enable')

    def host(self, server) -> str:
        return self.admin.compute.get_server(server).hypervisor_hostname

    def test_servers_move_away(self):
        """Who cannot move holds up nobody, and moves later, whatever becomes
        of the service meanwhile.
        """
        moves, stays = servers = self.boot_there(2)
        base.inside(self.maintained, moves.id, 'echo mine >/srv/mine')
        self.user.compute.pause_server(stays)
        self.status(stays, 'PAUSED')
        self.addCleanup(self.maintain, 'disable')
        self.assertEqual('on_maintenance', self.maintain('enable'))
        self.assertEqual('disabled', self.service().status)
        self.await_reason(f'servers that stay: 1: {stays.id} is paused')
        self.status(moves, 'ACTIVE')
        self.assertEqual('mine', base.inside(self.other, moves.id,
                                             'cat /srv/mine'))
        base.kill_computes(0, [node for node in base.cloud()['nodes']
                               if node['name'] == self.maintained])
        self.user.compute.unpause_server(stays)
        self.await_reason('no server is left')
        self.assertEqual([self.other] * 2, [*map(self.host, servers)])
        self.status(stays, 'ACTIVE')
        self.assertEqual([], base.transfers())
        self.assertEqual('off_maintenance', self.maintain('disable'))
        self.assertEqual(('enabled', None), (
            self.service().status, self.service().disabled_reason))

    def test_nowhere_to_go(self):
        """Whoever looks at the host is told, and it stays as it was."""
        (server,) = self.boot_there(1)
        self.switch(self.other, 'disable')
        self.addCleanup(self.switch, self.other, 'enable')
        self.admin.compute.disable_service(
            self.service(), self.maintained, 'nova-compute',
            disabled_reason='fan')
        self.addCleanup(self.admin.compute.enable_service, self.service(),
                        self.maintained, 'nova-compute')
        self.maintain('enable')
        self.await_reason(f'servers that stay: 1: {server.id} cannot move, '
                          'see its events [was disabled: fan]')
        self.assertEqual('ACTIVE', self.settled(server))
        self.assertIn('Error', [
            event['result'] for action in
            self.admin.compute.server_actions(server)
            if action.action == 'migrate' for event in
            self.admin.compute.get_server_action(action.request_id,
                                                 server).events])
        self.maintain('disable')
        self.assertEqual(('disabled', 'fan'), (
            self.service().status, self.service().disabled_reason))
