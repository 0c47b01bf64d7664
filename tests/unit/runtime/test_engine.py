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

from oslo_config import cfg
from oslo_config import fixture

from nova_container import exception
from nova_container.runtime import engine
from tests.unit import base


class SetupTest(base.TestCase):

    def test_no_sudo(self):
        """The service's user may not start its helper."""
        options = self.useFixture(fixture.Config(cfg.CONF))
        options.config(helper_command='/bin/false',
                       group='nova_container_privileged')
        with self.assertRaisesRegex(
                exception.HostUnsupported,
                'helper failed: .*exited non-zero .*sudoers.d'):
            engine.setup(1000, 1000)
