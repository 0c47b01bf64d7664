# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

import os
import subprocess

import setuptools
from setuptools.command import build_py

# Read by site(7) of the Python that the wheel is installed in.
_PTH = 'nova_container.pth'


class BuildPy(build_py.build_py):
    """Puts the .pth file beside the packages; see nova_container.locator."""

    def run(self):
        super().run()
        # An editable installation brings a finder of setuptools' own.
        if not self.editable_mode:
            with open(os.path.join(self.build_lib, _PTH), 'w') as file:
                file.write('import nova_container.locator\n')

    def get_outputs(self, include_bytecode=1):
        outputs = super().get_outputs(include_bytecode)
        if not self.editable_mode:
            outputs.append(os.path.join(self.build_lib, _PTH))
        return outputs


class Distribution(setuptools.Distribution):
    """Has a build_py of its own: pbr drops what ``cmdclass`` says."""

    def get_command_class(self, command):
        if command == 'build_py':
            return BuildPy
        return super().get_command_class(command)


# pbr asks git for the version and gives up where git has no answer: in an
# unpacked archive, or in a clone that belongs to another user.
if not os.path.exists('PKG-INFO') and subprocess.getstatusoutput(
        'git rev-parse --git-dir')[0]:
    os.environ.setdefault('PBR_VERSION', '0.0.0')

setuptools.setup(
    setup_requires=['pbr>=7.0.0'],
    pbr=True,
    distclass=Distribution,
)
