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

import errno
import os
import subprocess
import sys
import unittest
from unittest import mock

from nova_container.privileged import process

_TIMEOUT = 30

# Its first thread ends, and another one goes on until its input does.
_FIRST_THREAD_ENDS = """
import ctypes, os, threading
first = threading.get_native_id()
def go_on():
    while open(f'/proc/self/task/{first}/stat').read().split()[2] != 'Z':
        pass
    os.write(1, b'x')
    os.read(0, 1)
    os._exit(0)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).pthread_exit(None)
"""


class FirstThreadEndedTest(unittest.TestCase):

    def setUp(self):
        super().setUp()
        self.child = self.enterContext(subprocess.Popen(
            [sys.executable, '-c', _FIRST_THREAD_ENDS],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        self.addCleanup(self.child.kill)
        self.child.stdout.read(1)
        self.process = process.identify(self.child.pid)

    def test_the_process_is_alive(self):
        self.assertIsNotNone(self.process)
        self.assertTrue(process.alive(self.process))
        self.assertFalse(process.wait(self.process, 0))

    def test_its_namespaces_are_found(self):
        path = process.directory(self.child.pid)
        self.assertTrue(os.path.samefile('/proc/self/ns/net',
                                         f'{path}/ns/net'))

    def test_it_is_killed(self):
        self.assertTrue(process.send_signal(self.process, 9))
        self.assertTrue(process.wait(self.process, _TIMEOUT))
        self.assertFalse(process.alive(self.process))


class ReapedTest(unittest.TestCase):

    def test_meanwhile(self):
        """By what kernels before 6.16 and later ones say."""
        own = process.identify(os.getpid())
        for number in (errno.EINVAL, errno.ESRCH):
            with mock.patch.object(os, 'pidfd_open', autospec=True,
                                   side_effect=OSError(number, 'x')):
                self.assertTrue(process.wait(own, 0))
                self.assertFalse(process.send_signal(own, 9))
        with mock.patch.object(os, 'pidfd_open', autospec=True,
                               side_effect=OSError(errno.EMFILE, 'x')), \
                self.assertRaises(OSError):
            process.wait(own, 0)
