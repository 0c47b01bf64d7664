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

"""Tell Nova that a container's process has ended.

Nova drops a lifecycle event while a task is under way on the instance, and
would then only notice at its next power state synchronisation, ten minutes
later. A process that ends right after it was started falls into that gap, so
the event is sent again for as long as Nova has not reacted: it reacts by
powering the instance off, which halts the container.
"""

import collections.abc
import heapq
import threading
import time

from oslo_log import log

from nova_container.runtime import state

LOG = log.getLogger(__name__)

# Seconds until the event is sent again, and again.
_PAUSES = (1, 2, 4, 8, 15, 30, 60, 120, 240)


class ExitReporter:
    """Sends one event per end of a process, until it was heard.

    :param emit: called with the container's id
    """

    def __init__(self, emit: collections.abc.Callable[[str], None]):
        self._emit = emit
        self._due: list[tuple[float, int, str]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True,
                                        name='container-exit-events')
        self._thread.start()

    def report(self, container_id: str) -> None:
        """A process has ended."""
        self._schedule(0, container_id)

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _schedule(self, attempt: int, container_id: str) -> None:
        delay = _PAUSES[attempt - 1] if attempt else 0
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay, attempt,
                                       container_id))
            self._changed.notify()

    def _next(self) -> tuple[int, str] | None:
        with self._changed:
            while not self._stopping:
                wait = None
                if self._due:
                    wait = self._due[0][0] - time.monotonic()
                    if wait <= 0:
                        _, attempt, container_id = heapq.heappop(self._due)
                        return attempt, container_id
                self._changed.wait(wait)
        return None

    def _run(self) -> None:
        while (item := self._next()) is not None:
            attempt, container_id = item
            if not state.ended_unattended(container_id):
                continue
            try:
                self._emit(container_id)
            except Exception:
                # The message bus may be away; the next attempt tells.
                LOG.exception('Reporting the end of container %s failed',
                              container_id)
            if attempt < len(_PAUSES):
                self._schedule(attempt + 1, container_id)
