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

"""``openstack container`` as a user calls it."""

import hashlib
import json
import os
import pathlib
import subprocess
import tarfile
import tempfile
import uuid

from tests import archives
from tests.cloud import base
from tests.functional import base as functional


def _blobs(path: pathlib.Path) -> dict[str, str]:
    """Names and real digests of the blobs in an OCI archive."""
    with tarfile.open(path) as archive:
        return {member.name.rpartition('/')[2]: hashlib.sha256(
            archive.extractfile(member).read()).hexdigest()
            for member in archive
            if member.isfile() and member.name.startswith('blobs/')}


class ImageCommandTest(base.CloudTestCase):

    def setUp(self):
        super().setUp()
        self.work = pathlib.Path(self.enterContext(
            tempfile.TemporaryDirectory()))

    def openstack(self, *words: str, ok: bool = True) -> str:
        """What ``openstack container`` writes, or complains of."""
        auth = base.cloud()['auth']['demo']
        program = pathlib.Path(base.cloud()['venv'], 'bin/openstack')
        done = subprocess.run(
            [program, 'container', *words], text=True,
            capture_output=True, stdin=subprocess.DEVNULL, timeout=300,
            env={**os.environ, 'OS_CLIENT_CONFIG_FILE': '/dev/null', **{
                f'OS_{name.upper()}': value for name, value in auth.items()}})
        self.assertEqual(ok, done.returncode == 0, done.stderr)
        return done.stdout if ok else done.stderr

    def push(self, archive: bytes, kind: str) -> dict:
        """Push an archive; what the command says of it."""
        path = self.work / 'image.tar'
        path.write_bytes(archive)
        made = json.loads(self.openstack(
            'image', 'push', f'{kind}:{path}', f'test-{uuid.uuid4().hex[:8]}',
            '-f', 'json'))
        self.addCleanup(
            self.openstack, 'image', 'delete', made['id'], '--yes')
        return made

    def test_only_new_layers_travel_and_all_come_back(self):
        lower = functional.busybox_layer()
        upper = archives.files({'said': os.urandom(100000)})
        fields = {'config': {'Cmd': [
            '/bin/sh', '-c', 'ls -l /said; rm /said; mkdir /srv/new; echo '
            '> /srv/new/x; echo done; exec sleep 1000000']}}
        first, second = (
            archives.OciArchive() for _ in range(2))
        base_image = self.push(first.save(first.image(
            lower, compression='zstd')), 'oci-archive')
        self.assertEqual(1, base_image['uploaded_layers'])

        whole = second.save(second.image(
            lower, upper, compression='zstd',
            raw_config=archives.config((lower, upper), **fields)))
        made = self.push(whole, 'oci-archive')
        new = len(archives.compress(upper, 'zstd'))
        self.assertEqual((2, 1, new), (
            made['layers'], made['uploaded_layers'], made['uploaded_bytes']))
        shown = json.loads(self.openstack(
            'image', 'show', made['id'], '-f', 'json'))
        self.assertEqual([1, 0], [row['shared_with']
                                  for row in shown['layers']])

        target = self.work / 'back.tar'
        self.openstack('image', 'pull', made['id'], f'oci-archive:{target}')
        back = _blobs(target)
        self.assertEqual(list(back), list(back.values()))
        for layer in (lower, upper):
            self.assertIn(archives.digest(
                archives.compress(layer, 'zstd'))[7:], back)

        server = self.boot(made['id'])
        self.active(server)
        self.await_console(server, '100000')
        self.await_console(server, 'done')
        images = self.images()
        self.assertEqual(
            [['D', '/said'], ['C', '/srv'], ['A', '/srv/new'],
             ['A', '/srv/new/x']],
            [list(row.values()) for row in json.loads(
                self.openstack('diff', server.id, '-f', 'json'))])
        self.assertEqual(images, self.images())

    def images(self) -> set[str]:
        """All images of the project, by id."""
        return {image.id for hidden in (True, False)
                for image in self.user.image.images(os_hidden=hidden)}

    def test_docker_archive_twice(self):
        archive = base.busybox_archive()
        first, second = (self.push(archive, 'docker-archive')
                         for _ in range(2))
        self.assertEqual((1, 0), (first['uploaded_layers'],
                                  second['uploaded_layers']))

    def test_mistakes(self):
        self.assertIn('unknown transport', self.openstack(
            'image', 'push', 'nothing:x', 'y', ok=False))
        self.assertIn("named 'nobody'", self.openstack(
            'image', 'show', 'nobody', ok=False))
        self.assertIn("named 'nobody'", self.openstack(
            'diff', 'nobody', ok=False))
