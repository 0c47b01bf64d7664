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

from nova import objects

from nova_container.compute import config_drive
from nova_container import exception

objects.register_all()


class ConfigDriveTest(unittest.TestCase):

    def test_user_data_that_nobody_can_read(self):
        instance = types.SimpleNamespace(
            config_drive='True', user_data='\u00fc',
            image_meta=objects.ImageMeta.from_dict({}))
        with self.assertRaisesRegex(exception.InvalidSpec, 'Base64'):
            config_drive.files(instance, [])
