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

"""Notice at once when a container's process ends.

One thread for all containers waits on process descriptors (pidfd_open(2)):
first on the monitor's, which has written the exit code when it ends, and if
the monitor was killed, on that of the container's own process.
"""

import collections.abc
import os
import select
import threading

from oslo_log import log

from nova_container.privileged import process
from nova_container.runtime import state

LOG = log.getLogger(__name__)


class ExitMonitor:
    """Calls ``on_exit(container_id)`` once for each watched start."""

    def __init__(self, on_exit: collections.abc.Callable[[str], None]):
        self._on_exit = on_exit
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._watched: dict[int, tuple[str, state.State, bool]] = {}
        self._wake_read, self._wake_write = os.pipe2(
            os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, daemon=True,
                                        name='container-exits')
        self._thread.start()

    def watch(self, container_id: str) -> None:
        """Watch a container that was just started or found running."""
        current = state.read(container_id)
        if current.process is None and current.monitor is None:
            self._on_exit(container_id)
            return
        self._register(container_id, current, current.monitor is not None)

    def _register(self, container_id: str, current: state.State,
                  by_monitor: bool) -> None:
        target = current.monitor if by_monitor else current.process
        fd = None if target is None else process.open_pidfd(target)
        if fd is None:
            self._ended(container_id, current, by_monitor)
            return
        with self._lock:
            self._watched[fd] = (container_id, current, by_monitor)
        self._epoll.register(fd, select.EPOLLIN)

    def _ended(self, container_id: str, current: state.State,
               by_monitor: bool) -> None:
        if by_monitor and current.process is not None and process.alive(
                current.process):
            LOG.error('The monitor of container %s was killed; its exit code '
                      'will not be known', container_id)
            self._register(container_id, current, False)
            return
        self._on_exit(container_id)

    def stop(self) -> None:
        """End the thread."""
        os.write(self._wake_write, b'x')
        self._thread.join()
        with self._lock:
            for fd in (*self._watched, self._wake_read, self._wake_write):
                os.close(fd)
            self._watched.clear()
        self._epoll.close()

    def _run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd == self._wake_read:
                    return
                with self._lock:
                    watched = self._watched.pop(fd)
                self._epoll.unregister(fd)
                os.close(fd)
                try:
                    self._ended(*watched)
                except Exception:
                    # One container's trouble must not end the watch over
                    # the others.
                    LOG.exception('Reporting the end of container %s failed',
                                  watched[0])
