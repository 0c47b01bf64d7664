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

"""A new version takes over the containers of the one before.

The one before is that of the revision in the environment variable
UPGRADE_FROM; without it, the last release that this clone has as a tag; else
the files as they are, under a lower version number. With the last, the test
tells what an upgrade does to containers, but nothing of what was written
otherwise before; for that there is ``tests/unit/spec/test_upgrade.py``.
"""

import os
import pathlib
import subprocess
import tempfile
import threading

from openstack import utils

from tests.cloud import base
from tests.cloud import test_snapshot
from tests.cloud import test_volumes
from tests import wheels

_TIMEOUT = 180
_OLD = '0.0.9'
_UNTIL_TOLD = '/bin/sh -c "mkfifo /end; echo begins; read word < /end"'


class Visitor(threading.Thread):
    """Asks a web server again and again, and keeps what went wrong."""

    def __init__(self, address: str):
        super().__init__()
        self.address = address
        self.failures: list[str] = []
        self.answers = 0
        self._leave = threading.Event()

    def run(self) -> None:
        while not self._leave.wait(0.2):
            try:
                base.curl(self.address, retry=0)
                self.answers += 1
            except subprocess.CalledProcessError as error:
                self.failures.append(error.stderr)

    def __enter__(self) -> 'Visitor':
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self.join()


class UpgradeTest(test_volumes.VolumeTestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.python = f'{base.cloud()["venv"]}/bin/python'
        cls.version = cls.installed()
        world = pathlib.Path(cls.enterClassContext(
            tempfile.TemporaryDirectory()))
        wheels.copy(world / 'new')
        cls.new = wheels.build(world / 'new', world, cls.version)
        revision = os.environ.get('UPGRADE_FROM') or wheels.last_release()
        if revision is None:
            wheels.copy(world / 'old')
        else:
            wheels.export(revision, world / 'old')
        cls.old = wheels.build(world / 'old', world, _OLD)
        # Without it tools/cloud does not take what is installed for its own.
        mark = pathlib.Path(base.cloud()['dir'], 'data/done/driver')
        content = mark.read_text()
        mark.unlink()
        cls.addClassCleanup(mark.write_text, content)

    @classmethod
    def installed(cls) -> str:
        return wheels.run(
            cls.python, '-c', 'import importlib.metadata as packages; '
            'print(packages.version("nova-container"))').strip()

    def install(self, wheel: pathlib.Path) -> None:
        """As an operator does, who then restarts the service."""
        names = [f'nova-compute@{node["name"]}'
                 for node in base.cloud()['nodes']]
        before = {name: base.service_pid(name) for name in names}
        wheels.pip(self.python, 'install', '--no-deps', '--no-index', wheel)
        for name in names:
            base.restart(name)
        for name in names:
            base.await_new_pid(name, before[name])

    def began(self, server) -> str:
        """When its first process began, in ticks since the host's start."""
        return self.execute(server, 'cat', '/proc/1/stat').stdout.split()[21]

    def does(self, operation: str, server, status: str, **how) -> None:
        """An operation of openstacksdk's, to its end."""
        getattr(self.admin.compute, operation)(server, **how)
        self.status(server, status)
        self.assertEqual(status, self.settled(server), operation)

    def test_containers_run_on(self):
        # Runs after the servers are gone, however the test ends.
        self.addCleanup(lambda: self.installed() == self.version
                        or self.install(self.new))
        self.install(self.old)
        self.assertEqual(_OLD, self.installed())
        web, restarted, paused, stopped = self.servers()
        running = [web, restarted]
        before = [self.began(server) for server in running]
        address = self.floating_ip(web)
        base.curl(address)

        with Visitor(address) as visitor:
            self.install(self.new)
        self.assertEqual(self.version, self.installed())
        self.assertEqual([], visitor.failures)
        self.assertGreater(visitor.answers, 5)
        self.assertEqual(before, [self.began(server) for server in running])
        self.assertEqual(
            ['ACTIVE', 'ACTIVE', 'PAUSED', 'SHUTOFF'],
            [self.settled(server)
             for server in (web, restarted, paused, stopped)])

        # What happens to a container is noticed, as before.
        self.execute(restarted, 'sh', '-c', 'echo > /end')
        for _ in utils.iterate_timeout(
                _TIMEOUT, 'the container is not started again', wait=0.5):
            done = self.execute(restarted, 'cat', '/proc/1/stat',
                                check=False)
            if (done.returncode == 0
                    and done.stdout.split()[21] != before[1]):
                break
        self.assertEqual(2, self.console(restarted).count('begins'))

        self.does('reboot_server', web, 'ACTIVE', reboot_type='SOFT')
        self.assertIn('Hello', base.curl(address))
        self.does('unpause_server', paused, 'ACTIVE')
        self.does('start_server', stopped, 'ACTIVE')
        self.assert_kept(stopped)
        self.all_operations(stopped)

    def servers(self):
        """Servers in several states, one with a word in a file."""
        image = self.busybox()
        nginx = self.user.image.find_image('nginx', ignore_missing=False).id
        web = self.boot(nginx, 'c1.small', name='web')
        others = [
            self.boot(image, name=name, metadata=metadata)
            for name, metadata in (
                ('restarted', {'container:restart': 'always',
                               'container:command': _UNTIL_TOLD}),
                ('paused', {}),
                ('stopped', {'container:mount:vdb': '/srv/volume'}))]
        servers = [self.active(server) for server in (web, *others)]
        _, restarted, paused, stopped = servers
        self.await_console(restarted, 'begins')
        self.attach(stopped, self.volume('nfs'))
        self.shell(stopped, 'echo kept | tee /srv/word >/srv/volume/word')
        self.does('pause_server', paused, 'PAUSED')
        self.does('stop_server', stopped, 'SHUTOFF')
        return servers

    def all_operations(self, server) -> None:
        """On a container that the older version has made."""
        self.does('suspend_server', server, 'SUSPENDED')
        self.does('resume_server', server, 'ACTIVE')
        self.does('rescue_server', server, 'RESCUE')
        self.does('unrescue_server', server, 'ACTIVE')

        layers = set(test_snapshot.layer_images(self.user))
        self.addCleanup(lambda: [
            self.user.image.delete_image(image) for image in set(
                test_snapshot.layer_images(self.user)) - layers])
        image = self.user.compute.create_server_image(
            server, 'test-upgrade', wait=True, timeout=_TIMEOUT)
        self.addCleanup(self.user.image.delete_image, image)
        self.migrate(server)
        self.confirm(server)
        self.assert_kept(server)
        self.assertEqual([], base.transfers())
        self.does('rebuild_server', server, 'ACTIVE', image=image.id)
        self.assert_kept(server)
        (volume,) = self.volumes
        self.detach(server, volume)

    def assert_kept(self, server) -> None:
        self.assertEqual('kept\nkept', self.shell(
            server, 'cat /srv/word /srv/volume/word'))
