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

from nova_container_dashboard import container


class ContainerTest(unittest.TestCase):

    def test_words_of_the_driver(self):
        found = container.Container.of({
            'container:command': 'nginx -g "daemon off;"',
            'container:health': 'healthy', 'container:exit_code': '137',
            'container:exit_reason': 'out of memory',
            'container:unknown': 'x', 'color': 'blue'})
        self.assertEqual('nginx -g "daemon off;"', found.command)
        self.assertEqual(('healthy', '137', 'out of memory'),
                         (found.health, found.exit_code, found.exit_reason))
        self.assertIsNone(found.user)

    def test_a_virtual_machine(self):
        self.assertEqual(container.Container(), container.Container.of({}))
        self.assertFalse(container.has_words({'color': 'blue'}))

    def test_one_from_a_volume(self):
        """It has no image by which it could be told."""
        self.assertTrue(container.has_words({'container:health': 'healthy'}))

    def test_secrets_are_hidden(self):
        names = ('DB_PASSWORD', 'MYSQL_ROOT_PASSWD', 'API_TOKEN', 'secret',
                 'SSH_KEY', 'aws_credentials', 'BASIC_AUTH')
        found = container.Container.of({
            **{f'container:env:{name}': 'hidden' for name in names},
            'container:env:LANG': 'C'})
        self.assertEqual(
            {**dict.fromkeys(names), 'LANG': 'C'},
            {variable.name: variable.value
             for variable in found.environment})

    def test_usage(self):
        found = container.usage({
            'cpu0_time': 7, 'memory': 2048, 'memory-actual': 1024,
            'eth0_rx': 10, 'eth1_rx': 20, 'eth0_tx': 3, 'eth0_rx_packets': 9,
            'root_read': 4, 'root_write': 5, 'pids': 6})
        self.assertEqual({
            'cpu': 7, 'memory': 1 << 20, 'memory_limit': 2 << 20,
            'received': 30, 'sent': 3, 'read': 4, 'written': 5,
            'processes': 6}, found)
