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

from unittest import mock

from nova.compute import task_states
from nova.compute import vm_states

from nova_container.compute import interrupted
from tests.unit import base


class NoContainerTest(base.TestCase):
    """A task was cut off after the container was removed."""

    def after(self, task, before):
        return interrupted._vm_state(mock.Mock(vm_state=before), task, None)

    def test_server_that_has_lost_it_is_in_error(self):
        self.assertEqual(vm_states.ERROR, self.after(
            task_states.PAUSING, vm_states.ACTIVE))
        self.assertEqual(vm_states.ERROR, self.after(
            task_states.REBUILDING, vm_states.ERROR))

    def test_what_was_shelved_stays_so(self):
        """Its snapshot is in Glance."""
        self.assertEqual(vm_states.SHELVED, self.after(
            task_states.SHELVING_OFFLOADING, vm_states.SHELVED))
