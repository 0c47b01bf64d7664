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

import os
import socket

from nova_container.runtime import attachment
from tests.unit import base


class ConnectTest(base.TestCase):

    def test_beside_a_socket_whose_name_is_no_text(self):
        directory = self.directory()
        for name in (b'\0\xff\xfe', os.path.join(directory, 'attach')):
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.addCleanup(listener.close)
            listener.bind(name)
        listener.listen()
        self.addCleanup(lambda: accepted[0].close())
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(ours.close)
        ours.connect(name)
        self.assertTrue(attachment._waits(name))
        accepted = listener.accept()
        self.assertFalse(attachment._waits(name))
