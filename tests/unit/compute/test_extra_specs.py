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

import unittest
from unittest import mock

from nova.api.validation.extra_specs import validators
from nova import exception as nova_exception

from nova_container.compute import extra_specs


class ExtraSpecsTest(unittest.TestCase):
    """As Nova's API would with the entry point."""

    def setUp(self):
        super().setUp()
        known = {each.name: each for each in extra_specs.register()}
        self.enterContext(mock.patch.dict(validators.VALIDATORS, known))
        self.enterContext(mock.patch.object(
            validators, 'NAMESPACES', validators.NAMESPACES | {'container'}))

    def test_what_is_right(self):
        validators.validate('container:pids_limit', '100')
        validators.validate('container:open_files', '1024')

    def test_a_typo_is_refused(self):
        with self.assertRaises(nova_exception.ValidationError):
            validators.validate('container:pid_limit', '100')

    def test_what_makes_no_sense_is_refused(self):
        for value in ('0', '-1', 'many', ''):
            with self.assertRaises(nova_exception.ValidationError):
                validators.validate('container:pids_limit', value)

    def test_names_of_novas_are_left_to_it(self):
        self.assertFalse([each.name for each in extra_specs.register()
                          if not each.name.startswith('container:')])
