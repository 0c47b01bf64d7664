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

# pbr asks git for the version and gives up where git has no answer: in an
# unpacked archive, or in a clone that belongs to another user.
if not os.path.exists('PKG-INFO') and subprocess.getstatusoutput(
        'git rev-parse --git-dir')[0]:
    os.environ.setdefault('PBR_VERSION', '0.0.0')

setuptools.setup(
    setup_requires=['pbr>=7.0.0'],
    pbr=True,
)
