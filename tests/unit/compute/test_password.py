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

from unittest import mock

from nova import exception as nova_exception

from nova_container.compute import password
from nova_container.runtime import engine
from tests.unit import base


class PasswordTest(base.TestCase):

    def setUp(self):
        super().setUp()
        execute = mock.patch.object(
            engine, 'execute', autospec=True,
            return_value=engine.Execution(0, b'', b'', False))
        self.execute = execute.start()
        self.addCleanup(execute.stop)

    def set(self, text, user=None):
        password.set_admin(mock.Mock(uuid='u', image_meta=mock.Mock(
            properties={'os_admin_user': user})), text)

    def test_is_input_and_nothing_else(self):
        self.set('a:b "$(id)', 'admin')
        _, command = self.execute.call_args.args
        self.assertEqual(('chpasswd',), command.args)
        self.assertEqual(b'admin:a:b "$(id)\n',
                         self.execute.call_args.kwargs['data'])

    def test_what_would_be_another_line(self):
        for text, user in (('', None), ('a\nroot:b', None), ('a\0', None),
                           ('a', 'x:y'), ('a', 'x\ny')):
            with self.assertRaises(nova_exception.InvalidInput):
                self.set(text, user)
        self.execute.assert_not_called()

    def test_failure_in_the_words_of_the_command(self):
        self.execute.return_value = engine.Execution(
            1, b'', b'no such user', False)
        with self.assertRaisesRegex(
                nova_exception.InstancePasswordSetFailed, 'no such user'):
            self.set('secret')
