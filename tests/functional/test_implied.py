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

"""Layers whose archives leave out the directories of their files."""

import os

from nova_container import exception
from nova_container.oci import digest
from nova_container.privileged import changes
from nova_container.privileged import layer
from nova_container.runtime import engine
from nova_container.spec import disk
from tests import archives
from tests.functional import base

_LOW = archives.tar(
    archives.directory('tmp', mode=0o1777),
    archives.directory('srv', mode=0o750, uid=33),
    archives.directory('srv/data', mode=0o700, uid=33, gid=34),
    archives.directory('plain'),
    archives.directory('hidden', mode=0o700),
    archives.entry('gone/below', b'file'),
    archives.directory('linked', mode=0o700))
_MIDDLE = archives.tar(
    archives.entry('hidden/.wh..wh..opq'),
    archives.entry('hidden/file', b''),
    archives.entry('.wh.gone'),
    archives.symlink('link', '/srv/data'))
_AGAIN = archives.tar(
    archives.entry('.wh.linked'),
    archives.entry('linked/file', b''))
_HIGH = archives.tar(
    archives.entry('tmp/file', b''),
    archives.entry('srv/data/deep/file', b''),
    archives.entry('plain/file', b''),
    archives.entry('link/file', b''),
    archives.entry('hidden/other', b''),
    archives.entry('gone/below/file', b''))

_SHOW = ('for d in tmp srv srv/data srv/data/deep plain hidden gone '
         'gone/below linked link; do stat -c "%n %a %u %g" /$d; done')
_SHOWN = ['/tmp 1777 0 0', '/srv 750 33 0', '/srv/data 700 33 34',
          '/srv/data/deep 755 0 0', '/plain 755 0 0', '/hidden 700 0 0',
          '/gone 755 0 0', '/gone/below 755 0 0', '/linked 755 0 0',
          '/link 755 0 0']


class ImpliedTest(base.RuntimeTestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.sparse = cls.add_image(archives.docker_archive(
            base.busybox_layer(), _LOW, _MIDDLE, _AGAIN, _HIGH))

    def test_they_are_what_the_layers_below_say(self):
        for size in (disk.Disk(), disk.Disk(root=64 << 20)):
            with self.subTest(size):
                out = self.shell(_SHOW, image=self.sparse, size=size)
                self.assertEqual(_SHOWN, out.splitlines())

    def test_nothing_more_is_made(self):
        container_id = self.define('/bin/true', image=self.sparse)
        engine.create(container_id)
        made = {os.path.relpath(directory, self.upper(container_id))
                for directory, _, _ in os.walk(self.upper(container_id))}
        # The runtime's own mount points.
        self.assertEqual({'srv', 'srv/data', 'tmp', 'hidden'},
                         made - {'.', 'dev', 'etc', 'proc', 'sys'})
        self.assertEqual([], changes.changes(container_id))

    def test_what_a_tenant_has_changed_stays(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'chmod 711 /tmp; rm -r /srv; ' + _SHOW,
            image=self.sparse)
        self.finish(container_id)
        engine.halt(container_id)
        engine.create(container_id)
        engine.start(container_id)
        self.finish(container_id)
        shown = [line for line in self.text(container_id).splitlines()
                 if line.startswith('/')]
        self.assertEqual(2 * ['/tmp 711 0 0'], [
            line for line in shown if '/tmp' in line])
        self.assertEqual([], [line for line in shown if '/srv' in line])

    def test_paths_that_lead_out_are_refused(self):
        for path in ('../etc', 'a/../../b', '/etc', 'a//b', '', 'a\0b'):
            with self.assertRaises(exception.ContainerError):
                layer._check_implied(digest.Digest.of(b''), [path])
