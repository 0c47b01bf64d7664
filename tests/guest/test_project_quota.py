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

"""Disks on XFS with project quotas."""

import os

from nova_container.privileged import place
from nova_container.privileged import quota
from nova_container.runtime import engine
from nova_container.spec import disk
from tests.functional import base

_SMALL = disk.Disk(root=32 << 20)


class ProjectQuotaTest(base.RuntimeTestCase):

    def test_is_what_limits_a_disk(self):
        container_id = self.run_container('/bin/sleep', '1000000',
                                          size=_SMALL)
        self.assertTrue(quota.offered(place.state()))
        self.assertNotEqual(0, quota.project(self.upper(container_id)))
        self.assertFalse(os.path.exists(
            place.container_state(container_id, 'root.img')))
        self.assertEqual([], base.backing_files(container_id))

    def test_two_containers_have_a_limit_each(self):
        script = ('/bin/sh', '-c', 'dd if=/dev/zero of=/srv/x bs=1M count=24 '
                  '&& echo DONE')
        for container_id in [self.run_container(*script, size=_SMALL)
                             for _ in range(2)]:
            self.finish(container_id)
            self.assertIn('DONE', self.text(container_id))

    def test_nothing_is_counted_once_the_container_is_gone(self):
        container_id = self.define('/bin/true', size=_SMALL)
        project = quota.project(self.upper(container_id))
        self.assertNotEqual(0, project)
        engine.undefine(container_id)
        self.assertEqual(0, quota.used(place.state(), project))
