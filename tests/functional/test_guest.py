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

import base64
import os

from nova_container import exception
from nova_container.runtime import engine
from nova_container.spec import file
from nova_container.spec import limits
from tests.functional import base


class GuestFilesTest(base.RuntimeTestCase):

    def test_config_drive_and_key(self):
        drive = (file.File(('latest/meta', '2012/meta'),
                           base64.b64encode(b'told\n').decode()),)
        container_id = self.define('/bin/sh', '-c', '''
            cat /config-drive/latest/meta /config-drive/2012/meta
            stat -c "%a %u" /config-drive/latest/meta
            rm -f /config-drive/latest/meta && echo removed
            echo x > /config-drive/new && echo written
            su web -c "cat /config-drive/latest/meta" && echo read
            cat /root/.ssh/authorized_keys
            stat -c "%a %u" /root/.ssh/authorized_keys''')
        self.redefine(container_id, config_drive=drive,
                      authorized_keys='ssh-ed25519 AAAA me')
        engine.create(container_id)
        engine.start(container_id)
        self.finish(container_id)
        said = [line for line in self.text(container_id).splitlines()
                if ': ' not in line]
        self.assertEqual(['told', 'told', '400 0', 'ssh-ed25519 AAAA me',
                          '600 0'], said)

    def test_injected_files(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'cd /srv; test -e fifo || { '
            'ln -s /../../../../../../tmp out; mkfifo fifo; '
            'ln -s /etc/passwd link; exit; }; '
            'cat out/x link fifo deep/er/y; stat -c "%a %u" out/x deep; '
            'ls -a /srv | grep injected; head -n1 /etc/passwd | cut -c1-4; '
            'rm out/x')
        self.finish(container_id)
        engine.halt(container_id)
        name = f'x-{container_id}'
        content = base64.b64encode(b'told\n').decode()
        self.redefine(container_id, injected=(
            file.File(('srv/out/x', 'srv/link', 'srv/fifo', 'srv/deep/er/y',
                       f'srv/out/{name}'), content),))
        for expected in (['told'] * 4 + ['644 0', '755 0', 'root'],
                         ['told'] * 3 + ['755 0', 'root']):
            engine.create(container_id)
            engine.start(container_id)
            self.finish(container_id)
            said = [line for line in self.text(container_id).splitlines()
                    if ': ' not in line]
            self.assertEqual(expected, said[-len(expected):])
            engine.halt(container_id)
        self.assertFalse(os.path.exists(f'/tmp/{name}'))

    def test_injected_file_below_a_file(self):
        container_id = self.define('/bin/true')
        self.redefine(container_id, injected=(
            file.File(('etc/passwd/x',), ''),))
        with self.assertRaisesRegex(exception.InvalidSpec, 'etc/passwd/x'):
            engine.create(container_id)

    def test_names_that_lead_elsewhere(self):
        for path in ('../x', '/etc/x', 'a//b', 'a/../b', '', 'a b'):
            with self.assertRaises(exception.InvalidSpec, msg=path):
                file.File((path,), '')

    def test_processors_and_memory_of_a_node(self):
        said = self.shell('grep _allowed_list /proc/self/status',
                          limit=limits.Limits(cpuset='0', memory_nodes='0'))
        self.assertIn('Cpus_allowed_list:\t0\n', said)
        self.assertIn('Mems_allowed_list:\t0\n', said)
