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

"""Start containers again whose process has ended, as their policy says.

What has been counted is on disk, so that a service that was restarted goes on
where it was: it reports the containers it finds ended to ``Restarter.ended``.
"""

import collections.abc
import concurrent.futures
import contextlib
import dataclasses
import os
import threading
import time

from oslo_log import log

from nova_container import exception
from nova_container.privileged import container
from nova_container.privileged import place
from nova_container.runtime import schedule
from nova_container.runtime import state
from nova_container.spec import restart

LOG = log.getLogger(__name__)

# Starting takes until the network is there; a few at a time are enough.
_WORKERS = 4

# Seconds until a server is looked at again that Nova is at work on.
_BUSY_PAUSE = 0.5


@dataclasses.dataclass(frozen=True)
class Plan:
    """The next start.

    :param restarts: how many starts in a row it makes
    :param delay: seconds until then
    """

    container_id: str
    restarts: int
    delay: float


def plan(container_id: str) -> Plan | None:
    """The next start of a container that has ended; None for none.

    None also for a container that runs, and for one that was halted, unless
    that was half of a restart.
    """
    due = state.due(container_id)
    if due is not None:
        return Plan(container_id, due, restart.delay(due - 1))
    if not state.ended_unattended(container_id):
        return None
    ended = state.read(container_id)
    restarts = ended.restarts
    if _ran(container_id) >= restart.STABLE:
        restarts = 0
    if not state.policy(container_id).restart.wants(ended.exit_code,
                                                    restarts):
        return None
    return Plan(container_id, restarts + 1, restart.delay(restarts))


def _ran(container_id: str) -> float:
    """Seconds between start and end."""
    try:
        ran = container.uptime(container_id)
    except FileNotFoundError:
        return 0.0
    with contextlib.suppress(FileNotFoundError):
        ended = os.stat(place.exit_file(container_id)).st_mtime
        ran -= max(time.time() - ended, 0.0)
    return ran


class Restarter:
    """Starts containers again, a few at a time.

    :param start: halts what is left of the container with this id, and
        creates and starts it with this count of restarts. When it raises, it
        is called again later with a count that is one higher, or with the
        same one for ServerBusy
    :param give_up: called with the id when a container stays ended
    """

    def __init__(self, start: collections.abc.Callable[[str, int], None],
                 give_up: collections.abc.Callable[[str], None]):
        self._start = start
        self._give_up = give_up
        self._lock = threading.Lock()
        self._pending: dict[str, Plan] = {}
        # Those that somebody decides about, and whether they ended meanwhile.
        self._resting: dict[str, bool] = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(
            _WORKERS, thread_name_prefix='container-restart')
        self._schedule = schedule.Schedule(self._due, 'container-restarts')

    def ended(self, container_id: str) -> None:
        """A container's process has ended."""
        with self._lock:
            if container_id in self._resting:
                self._resting[container_id] = True
                return
            found = plan(container_id)
            if found is not None:
                self._pending[container_id] = found
        if found is None:
            self._give_up(container_id)
            return
        LOG.info('Container %s has ended; start %s in a row follows in %.1f s',
                 container_id, found.restarts, found.delay)
        self._schedule.after(found.delay, found)

    def pending(self, container_id: str) -> bool:
        """Whether the container is about to be started again."""
        with self._lock:
            return container_id in self._pending

    def expected(self, container_id: str) -> bool:
        """Whether a container that has ended will be started again.

        Also when its end has not been reported yet.
        """
        return self.pending(container_id) or plan(container_id) is not None

    def cancel(self, container_id: str) -> None:
        """It is not to be started again for now."""
        with self._lock:
            self._pending.pop(container_id, None)

    @contextlib.contextmanager
    def resting(self, container_id: str) -> collections.abc.Iterator[None]:
        """Somebody else decides about the container meanwhile.

        One at a time. An end that is told meanwhile is looked at afterwards.
        """
        with self._lock:
            self._pending.pop(container_id, None)
            self._resting[container_id] = False
        try:
            yield
        finally:
            with self._lock:
                ended = self._resting.pop(container_id)
            if ended:
                self.ended(container_id)

    def stop(self) -> None:
        """End the threads; starts under way are waited for."""
        self._schedule.stop()
        self._pool.shutdown(cancel_futures=True)

    def _due(self, found: Plan) -> None:
        self._pool.submit(self._attempt, found)

    def _current(self, found: Plan) -> bool:
        with self._lock:
            return self._pending.get(found.container_id) is found

    def _attempt(self, found: Plan) -> None:
        if not self._current(found):
            return
        try:
            self._start(found.container_id, found.restarts)
        except exception.ContainerNotFound:
            self.cancel(found.container_id)
            return
        except exception.ServerBusy as e:
            LOG.debug('%s', e)
            self._schedule.after(_BUSY_PAUSE, found)
            return
        except Exception:
            LOG.exception('Starting container %s again failed',
                          found.container_id)
            self._again(found)
            return
        with self._lock:
            if self._pending.get(found.container_id) is found:
                del self._pending[found.container_id]

    def _again(self, found: Plan) -> None:
        container_id = found.container_id
        following = None
        if state.policy(container_id).restart.wants(None, found.restarts):
            following = Plan(container_id, found.restarts + 1,
                             restart.delay(found.restarts))
        with self._lock:
            if self._pending.get(container_id) is not found:
                return
            if following is None:
                del self._pending[container_id]
            else:
                self._pending[container_id] = following
        if following is None:
            self._give_up(container_id)
        else:
            self._schedule.after(following.delay, following)
