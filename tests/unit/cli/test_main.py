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

"""The command of the operator, where it needs neither root nor a container."""

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

from nova_container.cli import main
from tests.unit import base

_AS_ROOT = """\
import os, sys
from nova_container.cli import main
os.geteuid = lambda: 0
sys.exit(main.main(sys.argv[1:]))
"""


class MainTest(base.TestCase):

    def run_ps(self, shell='"$@"', **options):
        directory = self.directory()
        config = os.path.join(directory, 'nova.conf')
        with open(config, 'w') as file:
            file.write(f'[container]\nstate_path = {directory}\n')
        done = subprocess.run(
            ['/bin/sh', '-c', shell, 'sh', sys.executable, '-c', _AS_ROOT,
             'ps', '--config-file', config], stderr=subprocess.PIPE,
            env={**os.environ, 'PYTHONUNBUFFERED': ''}, **options)
        self.assertEqual((0, b''), (done.returncode, done.stderr))

    def test_reader_who_has_gone(self):
        read, write = os.pipe()
        os.close(read)
        with open(write, 'wb') as output:
            self.run_ps(stdout=output)

    def test_no_output_at_all(self):
        self.run_ps('exec "$@" >&-')

    def test_number_that_is_none(self):
        for words in (('stop', '--time', 'nan', 'web'),
                      ('stop', '--time', '-1', 'web'),
                      ('run', '--cpus', 'inf', 'archive.tar')):
            said = io.StringIO()
            with contextlib.redirect_stderr(said), \
                    self.assertRaises(SystemExit):
                main.main(list(words))
            self.assertIn('is not a number', said.getvalue())

    def test_who_may_not_read_the_configuration_either(self):
        said = io.StringIO()
        with mock.patch('os.geteuid', autospec=True, return_value=1000), \
                contextlib.redirect_stderr(said):
            self.assertEqual(1, main.main(
                ['ps', '--config-file', '/nowhere/nova.conf']))
        self.assertIn('run it with sudo', said.getvalue())
