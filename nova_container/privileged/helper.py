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

"""The daemon that runs as root, as its caller sees it: oslo.privsep.

A socket whose peer is killed before it has read everything fails with
ECONNRESET instead of telling the end (unix(7)). oslo.privsep's reader then
ends without a word to those who wait for an answer, and the context takes its
daemon for alive ever after.
"""

from collections.abc import Iterable
import contextlib
import typing

from oslo_privsep import daemon
from oslo_privsep import priv_context

# Seconds. The reader learns of the end when the writer does.
_READER_END = 5


def _until_reset(messages: Iterable[typing.Any]) -> typing.Any:
    with contextlib.suppress(ConnectionResetError):
        yield from messages


class _Channel(daemon.RootwrapClientChannel):

    def _reader_main(self, reader: Iterable[typing.Any]) -> None:
        super()._reader_main(_until_reset(reader))

    def send_recv(self, msg: typing.Any,
                  timeout: float | None = None) -> typing.Any:
        try:
            return super().send_recv(msg, timeout)
        except BrokenPipeError:
            # Then another call starts the daemon anew.
            self.reader_thread.join(_READER_END)
            raise


class Context(priv_context.PrivContext):
    """A context that notices the end of its daemon."""

    def start(self, method: typing.Any = priv_context.Method.ROOTWRAP
              ) -> None:
        if method is not priv_context.Method.ROOTWRAP:
            super().start(method)
            return
        with self.start_lock:
            if self.channel is None:
                self.channel = _Channel(context=self)
