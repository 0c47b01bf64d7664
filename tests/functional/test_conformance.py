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

"""What Nova asks of a driver, and how it loads one."""

import os
import pathlib
import subprocess
import sys
import unittest

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


_LOAD = '''
from nova import monkey_patch
monkey_patch.patch(backend='threading')
import nova.conf
from nova.virt import driver, fake
nova.conf.CONF([], project='nova', default_config_files=[])
loaded = driver.load_compute_driver(fake.FakeVirtAPI(),
                                    'nova_container.ContainerDriver')
print(type(loaded).__name__, monkey_patch.MONKEY_PATCHED)
'''


def _python(disable: str, *words: str) -> subprocess.CompletedProcess:
    """Python with Nova's switch between eventlet and native threads."""
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *words], text=True,
        capture_output=True, cwd=_REPOSITORY,
        env={**os.environ, 'OS_NOVA_DISABLE_EVENTLET_PATCHING': disable})


class ConformanceTest(unittest.TestCase):

    def test_everything_that_nova_tests_of_a_driver(self):
        done = _python('true', '-m', 'unittest',
                       'tests.functional.conformance')
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertRegex(done.stderr, r'Ran [5-9]\d tests')


class BackendTest(unittest.TestCase):
    """nova-compute loads the driver whichever way it makes threads."""

    def load(self, disable: str) -> str:
        done = _python(disable, '-c', _LOAD)
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout.strip().splitlines()[-1]

    def test_native_threads(self):
        self.assertEqual('ContainerDriver False', self.load('true'))

    def test_eventlet(self):
        self.assertEqual('ContainerDriver True', self.load('false'))
