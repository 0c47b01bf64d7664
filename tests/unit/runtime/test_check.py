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

import subprocess
import unittest
from unittest import mock

from nova_container.runtime import check


class NetworkTest(unittest.TestCase):

    def test_kernel_without_what_limits_bandwidth(self):
        """Only the queueing that the driver uses is lacking."""
        def kernel(args, **options):
            lacks = ' htb ' in args[-1]
            return subprocess.CompletedProcess(
                args, 2 * lacks, '', 'Error: no htb' * lacks)

        self.enterContext(mock.patch.object(
            check.shutil, 'which', autospec=True))
        self.enterContext(mock.patch.object(check.subprocess, 'run', kernel))
        levels = {finding.name: finding.level
                  for finding in check.PROBES['Network']()}
        self.assertEqual({'veth': check.Level.OK,
                          'traffic control': check.Level.LACKS}, levels)
