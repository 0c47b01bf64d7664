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

import types
import unittest

from nova.compute import task_states
import nova.conf
from nova import exception as nova_exception

from nova_container.compute import fault
from nova_container import exception


class FaultTest(unittest.TestCase):

    def told(self, task, host, error):
        instance = types.SimpleNamespace(uuid='u', image_ref='i', host=host,
                                         task_state=task)
        with self.assertRaises(nova_exception.NovaException) as caught:
            with fault.translated(instance):
                raise error
        return caught.exception

    def test_host_that_is_full_is_left_for_another(self):
        here = nova.conf.CONF.host
        for task, host in ((task_states.SPAWNING, here),
                           (task_states.REBUILD_SPAWNING, 'evacuated')):
            self.assertIsInstance(
                self.told(task, host, exception.NoSpace('full')),
                nova_exception.ComputeResourcesUnavailable)

    def test_rebuild_whose_container_is_gone_has_failed(self):
        for task in (task_states.REBUILDING, task_states.REBUILD_SPAWNING):
            found = self.told(task, nova.conf.CONF.host,
                              exception.NoSpace('the disk is full'))
            self.assertNotIsInstance(
                found, nova_exception.ComputeResourcesUnavailable)
            self.assertIn('the disk is full', str(found))

    def test_what_is_in_the_way_is_all_that_is_said(self):
        found = self.told(None, 'here', exception.StateConflict(
            '/dev/vdb is open in the container'))
        self.assertEqual((400, '/dev/vdb is open in the container'),
                         (found.code, found.format_message()))
