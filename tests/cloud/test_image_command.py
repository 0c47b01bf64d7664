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

import contextlib
import hashlib
import json
import os
import pathlib
import socket
import socketserver
import subprocess
import tarfile
import tempfile
import threading
import urllib.parse
import urllib.request
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


class _Forward(socketserver.BaseRequestHandler):
    """A connection that is passed on."""

    def handle(self):
        with socket.create_connection(self.server.target) as there:
            back = threading.Thread(target=self.copy,
                                    args=(there, self.request))
            back.start()
            self.copy(self.request, there, self.server.sending)
            with contextlib.suppress(OSError):
                there.shutdown(socket.SHUT_RDWR)
            back.join()

    @staticmethod
    def copy(source, target, sending=lambda size: None):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sending(len(data))
                target.sendall(data)


class Glance(socketserver.ThreadingTCPServer):
    """Glance at another port, where what is sent to it is counted.

    :param limit: bytes after which it takes no more
    :ivar sent: bytes so far
    :ivar full: set once the limit was reached
    """

    daemon_threads = True

    def __init__(self, limit: float = float('inf')):
        super().__init__(('127.0.0.1', 0), _Forward)
        glance = urllib.parse.urlsplit(
            base.connect('admin').image.get_endpoint())
        self.target = (glance.hostname, glance.port)
        self.limit, self.sent = limit, 0
        self.full, self._ended = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return super().__enter__()

    def __exit__(self, *exc_info):
        self._ended.set()
        self.shutdown()
        super().__exit__(*exc_info)

    @property
    def settings(self) -> dict[str, str]:
        """With which the client finds it."""
        return {'OS_IMAGE_ENDPOINT_OVERRIDE':
                f'http://127.0.0.1:{self.server_address[1]}'}

    def sending(self, size: int) -> None:
        with self._lock:
            self.sent += size
        if self.sent > self.limit:
            self.full.set()
            self._ended.wait()
            raise ConnectionAbortedError('the test is over')


class ImageCommandTest(base.CloudTestCase):

    def setUp(self):
        super().setUp()
        self.work = pathlib.Path(self.enterContext(
            tempfile.TemporaryDirectory()))

    def openstack(self, *words: str, ok: bool = True,
                  **settings: str) -> str:
        """What ``openstack container`` writes, or complains of."""
        done = base.openstack_command('container', *words, **settings)
        self.assertEqual(ok, done.returncode == 0, done.stderr)
        return done.stdout if ok else done.stderr

    def push(self, archive: bytes, kind: str) -> dict:
        """Push an archive; what the command says of it."""
        path = self.work / 'image.tar'
        path.write_bytes(archive)
        made = json.loads(self.openstack(
            'image', 'push', f'{kind}:{path}', f'test-{uuid.uuid4().hex[:8]}',
            '-f', 'json'))
        # Others of these tests have used the layers since.
        self.addCleanup(self.openstack, 'image', 'delete', made['id'],
                        '--yes', '--older-than', '0')
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

    def test_interrupted_push_goes_on_with_what_is_missing(self):
        project = self.new_project()
        mine = {'OS_PROJECT_NAME': project.name}
        tenant = base.connect_to(project.name)

        def layers() -> list:
            return list(tenant.image.images(owner=project.id, is_hidden=True))

        self.addCleanup(lambda: [tenant.image.delete_image(image)
                                 for image in layers()])
        oci = archives.OciArchive()
        path = self.work / 'image.tar'
        path.write_bytes(oci.save(oci.image(
            *(archives.files({str(size): os.urandom(size << 20)})
              for size in (3, 2, 1)), compression='gzip')))
        words = ('image', 'push', f'oci-archive:{path}', 'test-resumed',
                 '--parallel', '1', '--format', 'json')
        with Glance(limit=4 << 20) as glance, base.openstack_process(
                'container', *words, **mine,
                **glance.settings) as process:
            self.assertTrue(glance.full.wait(60))
            process.kill()
        self.assertEqual([], list(tenant.image.images(owner=project.id)))
        with Glance() as glance:
            made = json.loads(self.openstack(*words, **mine,
                                             **glance.settings))
        self.assertEqual((3, 2), (made['layers'], made['uploaded_layers']))
        self.assertLess(glance.sent, 3.1 * (1 << 20))
        self.openstack('image', 'pull', made['id'],
                       f'oci-archive:{path}-back', **mine)

        # One that has one of the layers, and is all that stays.
        kept = oci.image(archives.files({'kept': b''}))
        path.write_bytes(oci.save(kept))
        kept = json.loads(self.openstack(*words, **mine))
        tenant.image.delete_image(made['id'])
        # Three, and what the killed one had begun.
        said = self.openstack('image', 'prune', '--yes', **mine)
        self.assertIn('4 layers stay', said)
        self.assertEqual(5, len(layers()))
        said = self.openstack('image', 'prune', '--yes', '--older-than', '0',
                              **mine)
        self.assertIn('4 layers that no image has', said)
        (left,) = layers()
        self.assertIn(left.name, self.openstack('image', 'show', kept['id'],
                                                **mine))
        self.openstack('image', 'delete', kept['id'], '--yes', **mine)
        self.assertEqual([], layers())

    def test_shared_with_another_project(self):
        project = self.new_project()
        theirs = {'OS_PROJECT_NAME': project.name}
        image = self.push(base.busybox_archive(archives.files(
            {'new': os.urandom(100)})), 'docker-archive')['id']
        target = f'oci-archive:{self.work}/back.tar'
        self.openstack('image', 'pull', image, target, ok=False, **theirs)
        self.openstack('image', 'set', image, '--shared', '--share-with',
                       project.id)
        self.openstack('image', 'pull', image, target, **theirs)
        self.openstack('image', 'set', image, '--private')
        self.openstack('image', 'pull', image, target, ok=False, **theirs)
        self.assertIn('--shared', self.openstack(
            'image', 'set', image, '--public', '--share-with', project.id,
            ok=False))

    def test_from_a_registry_and_back(self):
        registry = self.registry()
        oci = archives.OciArchive()
        path = self.work / 'image.tar'
        path.write_bytes(oci.save(oci.image(
            functional.busybox_layer(), archives.files({'a': b'1'}),
            compression='gzip')))
        subprocess.run(['skopeo', 'copy', '--quiet',
                        '--dest-tls-verify=false', f'oci-archive:{path}',
                        f'{registry}/app:1'], check=True)
        image = json.loads(self.openstack(
            'image', 'push', f'{registry}/app:1', 'test-registry',
            '--no-tls-verify', '--format', 'json'))['id']
        self.addCleanup(self.openstack, 'image', 'delete', image, '--yes')
        self.openstack('image', 'pull', image, f'{registry}/back:1',
                       '--no-tls-verify')
        there, back = (subprocess.run(
            ['skopeo', 'inspect', '--raw', '--tls-verify=false',
             f'{registry}/{name}'], check=True, capture_output=True).stdout
            for name in ('app:1', 'back:1'))
        self.assertEqual(there, back)
        self.assertIn('manifest unknown', self.openstack(
            'image', 'push', f'{registry}/app:2', 'test-none',
            '--no-tls-verify', ok=False))

    def registry(self) -> str:
        """A registry on this host, in skopeo's words."""
        with socket.create_server(('127.0.0.1', 0)) as free:
            address = f'127.0.0.1:{free.getsockname()[1]}'
        config = self.work / 'registry.yml'
        config.write_text(json.dumps({
            'version': '0.1', 'http': {'addr': address},
            'storage': {'filesystem': {
                'rootdirectory': str(self.work / 'registry')}}}))
        process = subprocess.Popen(
            ['docker-registry', 'serve', config],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait, 60)
        self.addCleanup(process.terminate)
        for _ in base.utils.iterate_timeout(60, 'no registry', wait=0.1):
            self.assertIsNone(process.poll())
            with contextlib.suppress(OSError), urllib.request.urlopen(
                    f'http://{address}/v2/'):
                return f'docker://{address}'

    def test_docker_archive_twice(self):
        archive = base.busybox_archive()
        first, second = (self.push(archive, 'docker-archive')
                         for _ in range(2))
        self.assertEqual((1, 0), (first['uploaded_layers'],
                                  second['uploaded_layers']))

    def test_nothing_goes_that_an_unreadable_image_may_need(self):
        project = self.new_project()
        mine = {'OS_PROJECT_NAME': project.name}
        tenant = base.connect_to(project.name)
        oci = archives.OciArchive()
        path = self.work / 'image.tar'
        path.write_bytes(oci.save(oci.image(archives.files({'a': b'1'}))))
        push = ('image', 'push', f'oci-archive:{path}', 'test-unreadable',
                '--format', 'json')
        first, second = (json.loads(self.openstack(*push, **mine))['id']
                         for _ in range(2))
        admin = base.connect('admin')
        admin.image.deactivate_image(first)
        self.assertIn(first, self.openstack(
            'image', 'prune', '--yes', ok=False, **mine))
        self.assertIn(first, self.openstack(
            'image', 'delete', second, '--yes', '--older-than', '0', **mine))
        admin.image.reactivate_image(first)
        self.openstack('image', 'pull', first, f'oci-archive:{path}-back',
                       **mine)
        self.openstack('image', 'delete', first, '--yes', '--older-than',
                       '0', **mine)
        self.assertEqual([], list(tenant.image.images(owner=project.id,
                                                      is_hidden=True)))

    def test_layers_used_again_are_young_again(self):
        archive = archives.docker_archive(
            archives.files({'new': os.urandom(100)}))
        first = self.push(archive, 'docker-archive')['id']
        layer = json.loads(self.openstack(
            'image', 'show', first, '-f', 'json'))['layers'][0]['digest']

        def updated() -> str:
            return max(image.updated_at for image in self.user.image.images(
                is_hidden=True) if image.name == layer)

        before = updated()
        # Glance counts in seconds.
        for _ in base.utils.iterate_timeout(60, 'Glance notes no time',
                                            wait=1):
            self.push(archive, 'docker-archive')
            if updated() > before:
                break

    def test_mistakes(self):
        self.assertIn('unknown transport', self.openstack(
            'image', 'push', 'nothing:x', 'y', ok=False))
        self.assertIn("named 'nobody'", self.openstack(
            'image', 'show', 'nobody', ok=False))
        self.assertIn("named 'nobody'", self.openstack(
            'diff', 'nobody', ok=False))
