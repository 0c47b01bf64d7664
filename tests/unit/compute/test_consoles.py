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

import nova.conf
from nova import exception as nova_exception
from oslo_config import fixture as config
import testtools

from nova_container.compute import consoles


class ConsolesTest(testtools.TestCase):

    def test_address_that_is_not_the_hosts(self):
        options = self.useFixture(config.Config(nova.conf.CONF))
        for host in ('198.51.100.1', '2001:db8::1'):
            options.config(group='serial_console', proxyclient_address=host)
            self.assertRaises(nova_exception.ConsoleTypeUnavailable,
                              consoles.Consoles().serial,
                              types.SimpleNamespace(uuid='x'))
