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

"""Do things later, with one thread for all of them."""

import collections.abc
import heapq
import itertools
import threading
import time
import typing

from oslo_log import log

LOG = log.getLogger(__name__)


class Schedule:
    """Calls ``action(item)`` when the item's time has come.

    The action must not block: it holds up the others.
    """

    def __init__(self, action: collections.abc.Callable[[typing.Any], None],
                 name: str):
        self._action = action
        self._due: list[tuple[float, int, typing.Any]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True,
                                        name=name)
        self._thread.start()

    def after(self, delay: float, item: typing.Any) -> None:
        """Have the action called in ``delay`` seconds."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay,
                                       next(self._number), item))
            self._changed.notify()

    def stop(self) -> None:
        """End the thread; what is not due yet is forgotten."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _next(self) -> tuple[typing.Any] | None:
        with self._changed:
            while not self._stopping:
                wait = None
                if self._due:
                    wait = self._due[0][0] - time.monotonic()
                    if wait <= 0:
                        return heapq.heappop(self._due)[2],
                self._changed.wait(wait)
        return None

    def _run(self) -> None:
        while (found := self._next()) is not None:
            try:
                self._action(*found)
            except Exception:
                # One item's trouble must not end the others' turn.
                LOG.exception('%s: %s failed', self._thread.name, *found)
