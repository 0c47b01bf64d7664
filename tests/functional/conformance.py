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

"""Nova's own tests of what it asks of a driver, against the real runtime.

To be run in a process of its own, see ``test_conformance``: Nova's tests patch
the process that imports them.
"""

import os
import re
from unittest import mock

import fixtures
from nova import monkey_patch
monkey_patch.patch()  # Before anything imports eventlet.

from nova import exception as nova_exception  # noqa: E402
from nova import objects  # noqa: E402
from nova import test  # noqa: E402
from nova.tests import fixtures as nova_fixtures  # noqa: E402
from nova.tests.unit import utils as test_utils  # noqa: E402
from nova.tests.unit.virt import test_virt_drivers  # noqa: E402
from oslo_config import cfg  # noqa: E402

from nova_container.runtime import state  # noqa: E402
from tests.functional import base  # noqa: E402

CONF = cfg.CONF

# What a container has no use for, or what Nova does for the driver.
_REFUSED = frozenset((
    'block_stats', 'get_device_name_for_instance', 'get_instance_disk_info',
    'get_mks_console', 'get_spice_console', 'get_vnc_console',
    'host_power_action', 'live_migration_abort',
    'live_migration_force_complete', 'restore', 'soft_delete'))

_PLACES = ('state_path', 'run_path', 'cgroup_parent', 'id_range_start')

# Nova's fixtures tell of another.
_UNAME = os.uname


def _runtime():
    """A class for what belongs to it alone; it holds no tests."""
    class Runtime(base.RuntimeTestCase):
        pass
    return Runtime


class ConformanceTest(test_virt_drivers._VirtDriverTestCase, test.TestCase):
    """A test whose method raises NotImplementedError passes in Nova; here only
    if the method is known to be refused.
    """

    driver_module = 'nova.virt.nova_container.ContainerDriver'

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.runtime = _runtime()
        cls.addClassCleanup(cls.runtime.doClassCleanups)
        cls.runtime.setUpClass()
        cls.places = {name: CONF.container[name] for name in _PLACES}
        cls.addClassCleanup(cls._configure)

    @classmethod
    def _configure(cls):
        for name, value in cls.places.items():
            CONF.set_override(name, value, 'container')

    def setUp(self):
        # Nova's fixture wants to be the first to read them.
        CONF.clear()
        # A real runtime is to be found in sysfs.
        with mock.patch.object(nova_fixtures, 'SysFsPoisonFixture',
                               fixtures.Fixture):
            super().setUp()
        # And on the kernel that runs.
        self.useFixture(fixtures.MonkeyPatch('os.uname', _UNAME))
        self._configure()
        self.flags(instance_name_template='%(uuid)s')
        self.useFixture(fixtures.MonkeyPatch(
            'nova_container.compute.courier.service_context',
            lambda: self.ctxt))
        self.useFixture(fixtures.MonkeyPatch(
            'nova_container.compute.courier.service_project',
            lambda: self.ctxt.project_id))
        # Nova's fixture of Glance does not look at what it is sent.
        self.useFixture(fixtures.MonkeyPatch(
            'nova_container.compute.upload.require_whole',
            lambda image, sent: None))
        self.connection.init_host('host')
        self.addCleanup(self._end)

    def _end(self):
        for container_id in state.ids():
            self.connection.destroy(self.ctxt, objects.Instance(
                self.ctxt, uuid=container_id, image_ref=''), [])
        self.connection.cleanup_host('host')

    def _get_running_instance(self, obj=True):
        instance = test_utils.get_test_instance(obj=True)
        instance.system_metadata = {'image_container_format': 'docker',
                                    'image_disk_format': 'raw'}
        # Nothing of Nova's is about how long it takes to end.
        instance.metadata = {'container:command': '/bin/sleep 1000000',
                             'container:stop_signal': 'SIGKILL'}
        instance.hostname = 'test'
        instance.info_cache = objects.InstanceInfoCache(
            network_info=test_utils.network_model.NetworkInfo([]))
        instance.trusted_certs = None
        self.connection._images.store.adopt(
            instance.image_ref,
            self.runtime.images.record(self.runtime.image.id))
        self.connection.spawn(
            self.ctxt, instance, instance.image_meta, [], 'herp', {},
            network_info=[])
        return instance, []

    def tearDown(self):
        said = set(re.findall(r'does not implement (\w+)',
                              self.stdlog.logger.output))
        super().tearDown()
        self.assertLessEqual(said, _REFUSED)

    def test_get_console_output(self):
        instance, _ = self._get_running_instance()
        # What is text is for Nova to say.
        self.assertIsInstance(
            self.connection.get_console_output(self.ctxt, instance), bytes)

    def test_destroy_instance_nonexistent(self):
        instance = test_utils.get_test_instance(obj=True)
        self.connection.destroy(self.ctxt, instance, [])

    def test_unrescue_rescued_instance(self):
        # Nova's own makes os.unlink do nothing.
        instance, network_info = self._get_running_instance()
        self.connection.rescue(
            self.ctxt, instance, network_info, objects.ImageMeta.from_dict({}),
            '', None, objects.ShareMappingList())
        self.connection.unrescue(self.ctxt, instance)

    def test_set_admin_password(self):
        # The image has no chpasswd.
        self.assertRaises(nova_exception.SetAdminPasswdNotSupported,
                          super().test_set_admin_password)

    # Nova's fake volumes have no id, its fake Glance has no data: with real
    # ones these are tested in the cloud.

    def test_attach_detach_volume(self):
        self.assertRaises(nova_exception.InvalidInput,
                          super().test_attach_detach_volume)

    def test_attach_detach_different_power_states(self):
        self.assertRaises(nova_exception.InvalidInput,
                          super().test_attach_detach_different_power_states)

    def test_swap_volume(self):
        self.assertRaises(nova_exception.InvalidInput,
                          super().test_swap_volume)

    def test_snapshot_running(self):
        self.assertRaises(nova_exception.InvalidInput,
                          super().test_snapshot_running)

    def test_snapshot_not_running(self):
        # Nova has it not run by not having it.
        self.assertRaises(nova_exception.InstanceNotFound,
                          super().test_snapshot_not_running)

    def test_live_migration(self):
        self.assertRaises(NotImplementedError, super().test_live_migration)

    def test_live_migration_force_complete(self):
        instance, _ = self._get_running_instance()
        self.assertRaises(NotImplementedError,
                          self.connection.live_migration_force_complete,
                          instance)
