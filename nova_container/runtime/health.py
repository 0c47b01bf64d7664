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

"""Check the health of every container that wants it.

One thread knows when which is due; a few workers, shared by all, wait for the
checks. When all are busy checks come later, they do not fail.
"""

import collections.abc
import concurrent.futures
import dataclasses

from oslo_log import log

from nova_container import exception
from nova_container.privileged import container
from nova_container.privileged import health as privileged
from nova_container.privileged import process
from nova_container.runtime import schedule
from nova_container.runtime import state
from nova_container.spec import health

LOG = log.getLogger(__name__)

_WORKERS = 8


@dataclasses.dataclass(frozen=True)
class _Watched:
    """One start of one container."""

    container_id: str
    check: health.Healthcheck
    init: process.Process


class HealthMonitor:
    """Checks, and calls ``on_change(container_id, status)``.

    Also when a container is first watched, with the status it has.
    """

    def __init__(self,
                 on_change: collections.abc.Callable[[str, str], None]):
        self._on_change = on_change
        self._pool = concurrent.futures.ThreadPoolExecutor(
            _WORKERS, thread_name_prefix='container-health')
        self._schedule = schedule.Schedule(self._due,
                                           'container-health-checks')

    def watch(self, container_id: str) -> None:
        """Watch a container that was just started or found running.

        Until it ends, or is started anew.
        """
        check = state.policy(container_id).health
        current = state.read(container_id)
        if (check is None or current.process is None
                or current.health is None):
            return
        self._on_change(container_id, current.health)
        watched = _Watched(container_id, check, current.process)
        self._schedule.after(self._pause(watched), watched)

    def stop(self) -> None:
        """End the threads; checks under way are waited for."""
        self._schedule.stop()
        self._pool.shutdown(cancel_futures=True)

    @staticmethod
    def _pause(watched: _Watched) -> float:
        try:
            return watched.check.pause(
                container.uptime(watched.container_id))
        except FileNotFoundError:
            return 0

    def _due(self, watched: _Watched) -> None:
        try:
            current = state.read(watched.container_id)
        except exception.ContainerNotFound:
            return
        if current.process != watched.init:
            return
        if current.status is state.Status.RUNNING:
            self._pool.submit(self._check, watched, current.health)
        else:
            self._schedule.after(self._pause(watched), watched)

    def _check(self, watched: _Watched, before: str | None) -> None:
        try:
            status = privileged.check(watched.container_id)
            if status != before:
                LOG.info('Container %s is %s', watched.container_id, status)
                self._on_change(watched.container_id, status)
        except (exception.StateConflict, exception.ContainerNotFound):
            # It has ended, or was paused; its next turn tells.
            pass
        except Exception:
            LOG.exception('Checking container %s failed',
                          watched.container_id)
        self._schedule.after(self._pause(watched), watched)
