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

"""The last by its name: what all the others have left behind."""

from tests.cloud import base


class ZeroLeftTest(base.CloudTestCase):

    def test_placement_agrees_with_nova(self):
        done = base.nova_manage('placement', 'audit', '--verbose')
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)

    def test_nothing_waits_in_glance_or_in_a_spool(self):
        self.assertEqual([], base.transfers())
        self.assertEqual([], base.spooled())
