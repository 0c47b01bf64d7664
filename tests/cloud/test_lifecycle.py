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

"""What else a user may do to a server that is there."""

from openstack import exceptions
from openstack import utils

from nova_container.runtime import engine
from tests import archives
from tests.cloud import base
from tests.cloud import test_snapshot
from tests.functional import base as functional

# Says when it starts and when it is asked to tell what it does.
_TALKS = ('/bin/sh -c "trap \'echo asked\' QUIT; echo started; '
          'while :; do sleep 0.2; done"')

# Keeps the password where a test finds it.
_CHPASSWD = ('#!/bin/sh\nIFS=: read -r user password\n'
             '[ "$user" = root ] || { echo "no user $user" >&2; exit 1; }\n'
             'printf %s "$password" >/srv/password\n')


def _image(*entries, **config):
    return base.busybox_archive(archives.tar(
        archives.directory('usr'), archives.directory('usr/sbin'), *entries),
        config={'Cmd': ['/bin/sleep', '1000000'], **config})


class LifecycleTestCase(base.CloudTestCase):

    def inside(self, server, script: str) -> str:
        """What a shell script says in a server, as its operator sees it."""
        host = self.admin.compute.get_server(server).hypervisor_hostname
        return base.inside(host, server.id, script)

    def act(self, server, action: str, wanted: str):
        getattr(self.user.compute, f'{action}_server')(server)
        self.assertEqual(wanted, self.settled(server))

    def addresses(self, server):
        return self.user.compute.get_server(server).addresses


class LifecycleTest(LifecycleTestCase):

    def test_suspend_and_resume(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:command': _TALKS}))
        self.inside(server, 'echo 1 >/dev/shm/in-memory')
        self.act(server, 'suspend', 'SUSPENDED')
        host = self.admin.compute.get_server(server).hypervisor_hostname
        base.restart(f'nova-compute@{host}')
        self.assertEqual('SUSPENDED', self.settled(server))
        self.act(server, 'resume', 'ACTIVE')
        self.assertEqual('1', self.inside(server, 'cat /dev/shm/in-memory'))
        self.assertEqual(1, self.console(server).count('started'))
        # As after a restart of the host, which has lost its memory.
        self.act(server, 'suspend', 'SUSPENDED')
        base.visit(host)
        engine.halt(server.id)
        self.act(server, 'resume', 'ACTIVE')
        for _ in utils.iterate_timeout(60, 'not started anew', wait=0.3):
            if self.console(server).count('started') > 1:
                break
        self.assertEqual(2, self.console(server).count('started'))

    def test_rescue_and_unrescue(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:command': '/bin/sh -c "cat /etc/app.conf; sleep 9999"',
            'container:stop_signal': 'SIGKILL'}))
        addresses = self.addresses(server)
        self.inside(server, 'echo broken >/etc/app.conf')
        image = self.upload(_image(Cmd=[
            '/bin/sh', '-c', 'echo rescue; cat /rescue/etc/app.conf; '
            'echo mended >/rescue/etc/app.conf; ping -c1 -w9 10.0.0.1; '
            'sleep 9999']))
        self.user.compute.rescue_server(server, image_ref=image)
        self.assertEqual('RESCUE', self.settled(server))
        self.await_console(server, '1 packets received')
        self.assertIn('rescue\nbroken', self.console(server).replace(
            '\r', ''))
        host = self.admin.compute.get_server(server).hypervisor_hostname
        base.restart(f'nova-compute@{host}')
        self.assertEqual('RESCUE', self.settled(server))
        self.act(server, 'unrescue', 'ACTIVE')
        self.await_console(server, 'mended')
        self.assertEqual(addresses, self.addresses(server))
        # Its own image, which is a shell on the console.
        self.user.compute.rescue_server(server)
        self.assertEqual('RESCUE', self.settled(server))
        self.assertIn('/bin/sh', self.inside(server, 'cat /proc/1/cmdline'))
        self.assertEqual('mended', self.inside(
            server, 'cat /rescue/etc/app.conf'))

    def test_rescue_with_what_is_no_image_of_ours(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:stop_signal': 'SIGKILL'}))
        image = self.upload(b'#!/bin/sh\n' * 100)
        self.user.compute.rescue_server(server, image_ref=image)
        self.assertEqual('ERROR', self.settled(server))
        self.assertIn('not', self.user.compute.get_server(
            server).fault['message'])
        self.user.compute.reboot_server(server, 'HARD')
        self.assertEqual('ACTIVE', self.settled(server))

    def test_rebuild(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:command': '/bin/sh -c "ls /srv; echo up; sleep 9999"',
            'container:stop_signal': 'SIGKILL'}))
        addresses = self.addresses(server)
        self.inside(server, 'echo gone >/srv/mine')
        image = self.upload(_image(
            archives.entry('srv/from-the-new-image', b'1')))
        self.user.compute.rebuild_server(server, image=image)
        self.assertEqual('ACTIVE', self.settled(server))
        self.await_console(server, 'up')
        self.assertEqual('from-the-new-image',
                         self.inside(server, 'ls /srv'))
        self.assertEqual(addresses, self.addresses(server))
        self.assertEqual(image, self.user.compute.get_server(
            server).image['id'])

    def test_password_and_crash_dump(self):
        image = self.upload(_image(archives.entry(
            'usr/sbin/chpasswd', _CHPASSWD.encode(), mode=0o755)))
        server = self.active(self.boot(image, metadata={
            'container:command': _TALKS}))
        for password in ('simple', '$(reboot) `id` "; \' \\ & :é'):
            self.user.compute.change_server_password(server, password)
            self.assertEqual('ACTIVE', self.settled(server))
            self.assertEqual(password, self.inside(
                server, 'cat /srv/password'))
        self.await_console(server, 'started')
        self.user.compute.trigger_server_crash_dump(server)
        self.await_console(server, 'asked')
        with self.assertRaises(exceptions.HttpException):
            self.user.compute.change_server_password(server, 'two\nlines')

    def test_password_without_chpasswd(self):
        server = self.active(self.boot(self.upload(base.busybox_archive(
            archives.tar(archives.entry('bin/.wh.chpasswd', b''))))))
        with self.assertRaises(exceptions.ConflictException):
            self.user.compute.change_server_password(server, 'secret')

    def test_lock(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:stop_signal': 'SIGKILL'}))
        self.user.compute.lock_server(server)
        with self.assertRaises(exceptions.ConflictException):
            self.user.compute.stop_server(server)
        self.user.compute.unlock_server(server)
        self.act(server, 'stop', 'SHUTOFF')

    def shelved(self, server) -> list[str]:
        """Images that a server has been shelved to."""
        return [image.id for image in self.user.image.images()
                if image.name == f'{server.name}-shelved']

    def test_shelve_and_unshelve(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:stop_signal': 'SIGKILL'}))
        addresses = self.addresses(server)
        self.inside(server, 'echo kept >/srv/kept; rm /etc/group')
        host = self.admin.compute.get_server(server).hypervisor_hostname
        layers = set(test_snapshot.layer_images(self.user))
        self.act(server, 'shelve', 'SHELVED_OFFLOADED')
        self.addCleanup(lambda: [
            self.user.image.delete_image(image)
            for image in set(test_snapshot.layer_images(self.user)) - layers])
        # No host has anything of it.
        self.assertEqual(self.before, base.host_state())
        other = next((node['name'] for node in base.cloud()['nodes']
                      if node['name'] != host), host)
        self.admin.compute.unshelve_server(server, host=other)
        self.assertEqual('ACTIVE', self.settled(server))
        self.assertEqual(other, self.admin.compute.get_server(
            server).hypervisor_hostname)
        self.assertEqual('kept', self.inside(
            server, 'cat /srv/kept; ls /etc | grep -w group; true'))
        self.assertEqual(addresses, self.addresses(server))
        # Nova has removed the image that it was shelved to.
        self.assertEqual([], self.shelved(server))

    def test_image_and_what_is_written_fill_the_disk_each(self):
        layers = functional.busybox_layer(), archives.tar(
            archives.entry('filler', bytes(700 << 20)))
        archive = archives.OciArchive()
        image = self.upload(archive.save(archive.image(
            *layers, compression='gzip', raw_config=archives.config(
                layers, config={'Cmd': ['/bin/sleep', '1000000']}))))
        server = self.active(self.boot(image, metadata={
            'container:stop_signal': 'SIGKILL'}))
        before = set(test_snapshot.layer_images(self.user))
        self.addCleanup(lambda: [
            self.user.image.delete_image(image)
            for image in set(test_snapshot.layer_images(self.user)) - before])
        write = 'dd if=/dev/zero of=/srv/{} bs=1M count={} 2>&1'
        self.inside(server, write.format('first', 600))
        self.act(server, 'shelve', 'SHELVED_OFFLOADED')
        self.act(server, 'unshelve', 'ACTIVE')
        self.assertEqual('629145600', self.inside(
            server, 'stat -c %s /srv/first'))
        # No host would take that back.
        self.inside(server, write.format('second', 900))
        self.user.compute.shelve_server(server)
        self.assertNotIn('SHELVED', self.settled(server))
        self.assertEqual([], self.shelved(server))
        self.user.compute.reboot_server(server, 'HARD')
        self.assertEqual('ACTIVE', self.settled(server))
        self.assertEqual('943718400', self.inside(
            server, 'stat -c %s /srv/second'))


class SoftDeleteTest(LifecycleTestCase):
    """In a cloud that keeps deleted servers for some time."""

    def setUp(self):
        super().setUp()
        config = base.nova_config()
        before = config.read_text()
        self.addCleanup(base.restart, 'nova-api')
        self.addCleanup(config.write_text, before)
        config.write_text(before.replace(
            '[DEFAULT]\n', '[DEFAULT]\nreclaim_instance_interval = 3600\n'))
        base.restart('nova-api')

    def test_delete_and_restore(self):
        server = self.active(self.boot(self.busybox(), metadata={
            'container:stop_signal': 'SIGKILL'}))
        addresses = self.addresses(server)
        self.inside(server, 'echo kept >/srv/kept')
        self.user.compute.delete_server(server)
        self.status(server, 'SOFT_DELETED')
        self.user.compute.restore_server(server)
        self.status(server, 'ACTIVE')
        self.assertEqual('kept', self.inside(server, 'cat /srv/kept'))
        self.assertEqual(addresses, self.addresses(server))
        self.user.compute.delete_server(server)
        self.status(server, 'SOFT_DELETED')
        self.user.compute.delete_server(server, force=True)
        self.user.compute.wait_for_delete(server, interval=0.5)
