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

"""Which containers are meant, while others come and go."""

import argparse
import contextlib
import io
import os
import uuid

from oslo_config import cfg
from oslo_config import fixture

from nova_container.cli import listing
from nova_container.cli import owner
from nova_container import conf
from nova_container import exception
from nova_container.runtime import state
from tests.unit import base


class OwnerTest(base.TestCase):

    def setUp(self):
        super().setUp()
        conf.register_opts(cfg.CONF)
        options = self.useFixture(fixture.Config(cfg.CONF))
        directory = self.directory()
        options.config(state_path=os.path.join(directory, 'state'),
                       run_path=os.path.join(directory, 'run'),
                       group='container')
        owner.remember_configuration()
        self.addCleanup(owner._nova.clear)
        self.container_id = str(uuid.uuid4())
        self.place = os.path.join(directory, 'state', 'containers',
                                  self.container_id)
        os.makedirs(self.place)

    def test_empty_word_is_not_the_only_container(self):
        self.assertEqual(self.container_id, owner.find(self.container_id[:4]))
        with self.assertRaises(exception.InvalidSpec):
            owner.find('')

    def test_list_while_one_is_removed(self):
        ids = state.ids
        self.addCleanup(setattr, state, 'ids', ids)

        def removed() -> list[str]:
            found = ids()
            if found:
                os.rmdir(self.place)
            return found

        state.ids = removed
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            listing._ps(argparse.Namespace(all=True, quiet=False,
                                           format='json'))
        self.assertEqual('[]\n', out.getvalue())
