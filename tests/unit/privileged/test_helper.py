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

from concurrent import futures
import select
import socket
import unittest

from oslo_privsep import comm

from nova_container.privileged import helper


class ChannelTest(unittest.TestCase):

    def test_daemon_that_is_killed_before_it_has_read_a_request(self):
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        channel = helper._Channel.__new__(helper._Channel)
        comm.ClientChannel.__init__(channel, ours)
        pool = self.enterContext(futures.ThreadPoolExecutor(1))
        call = pool.submit(channel.send_recv, 'request')
        select.select([theirs], [], [], 30)
        theirs.close()
        with self.assertRaises(OSError):
            call.result(30)
        channel.reader_thread.join(30)
        self.assertFalse(channel.running)
        with self.assertRaises(BrokenPipeError):
            channel.send_recv('another')
