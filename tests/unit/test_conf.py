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

import pathlib
import tempfile
import unittest

from oslo_config import cfg

from nova_container import conf


class WrongValuesTest(unittest.TestCase):

    def test_option_and_file_are_named(self):
        path = pathlib.Path(self.enterContext(
            tempfile.TemporaryDirectory())) / 'nova.conf'
        path.write_text('[container]\ncgroup_manager = upstart\n'
                        'id_range_start = many\nlog_size = 65536\n')
        options = cfg.ConfigOpts()
        conf.register_opts(options)
        options([], default_config_files=[str(path)])

        wrong = conf.wrong_values(options)

        self.assertEqual(2, len(wrong))
        for message, words in zip(wrong, (
                ('cgroup_manager', 'auto, systemd, cgroupfs', 'upstart'),
                ('id_range_start', 'many'))):
            for word in (*words, f'in {path} is not valid'):
                self.assertIn(word, message)
