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

"""The packages of Debian: built, checked, installed, upgraded and removed."""

import pathlib
import shutil
import subprocess
import tempfile
import unittest

from tests import wheels

# Where Nova 34 is.
_SUITE = 'sid'
_SCRIPT = pathlib.Path(__file__).with_name('lifecycle')
_TIMEOUT = 3600


class PackagesTest(unittest.TestCase):

    def test_life_of_the_packages(self):
        """In a Debian that is made for it and thrown away."""
        world = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(
            dir='/var/tmp')))
        source = world / 'nova-container'
        for path in wheels.held():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(wheels.REPOSITORY / path, source / path)
        done = subprocess.run(
            ['mmdebstrap', '--quiet', '--variant=buildd', '--format=null',
             # A mirror may be behind.
             '--aptopt=Acquire::Check-Valid-Until "false"',
             f'--customize-hook=copy-in {source} {_SCRIPT} /root',
             '--customize-hook=chroot "$1" /root/lifecycle',
             _SUITE, '/dev/null'],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            stdin=subprocess.DEVNULL, timeout=_TIMEOUT)
        self.assertEqual(0, done.returncode, done.stdout[-8000:])
