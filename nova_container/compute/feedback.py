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

"""Tell the tenant, in the server's metadata, how the container does.

``container:health`` while it runs, ``container:exit_code`` and
``container:exit_reason`` once it has ended. Nova's metadata is written as a
whole, so what a user changes in the very moment between our reading and
writing would be lost: the server is read afresh each time, and only written
when something has changed.
"""

import threading

from nova.compute import task_states
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from oslo_log import log

from nova_container.compute import wishes
from nova_container import exception
from nova_container.runtime import schedule
from nova_container.runtime import state

LOG = log.getLogger(__name__)

# Seconds until another try when Nova's database is out of reach.
_PAUSE = 15.0


class Feedback:
    """Writes to metadata, one server after the other, in its own thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self._news: dict[str, dict[str, str | None]] = {}
        self._schedule = schedule.Schedule(self._due, 'container-feedback')

    def health(self, container_id: str, status: str) -> None:
        """What the health checks say now."""
        self._tell(container_id, {'health': status})

    def ended(self, container_id: str) -> None:
        """The container's process has ended."""
        try:
            ended = state.read(container_id)
        except exception.ContainerNotFound:
            return
        if ended.status is not state.Status.STOPPED:
            return
        code = ended.exit_code
        self._tell(container_id, {
            'health': None,
            'exit_code': None if code is None else str(code),
            'exit_reason': ended.reason})

    def stop(self) -> None:
        """End the thread."""
        self._schedule.stop()

    def _tell(self, container_id: str, news: dict[str, str | None]) -> None:
        with self._lock:
            known = self._news.setdefault(container_id, {})
            known.update(news)
        self._schedule.after(0, container_id)

    def _due(self, container_id: str) -> None:
        with self._lock:
            news = self._news.pop(container_id, None)
        if news is None:
            return
        try:
            _write(container_id, news)
        except nova_exception.InstanceNotFound:
            pass
        except Exception:
            LOG.exception('Writing to the metadata of server %s failed; '
                          'trying again in %d s', container_id, _PAUSE)
            with self._lock:
                self._news[container_id] = {
                    **news, **self._news.get(container_id, {})}
            self._schedule.after(_PAUSE, container_id)


def _write(container_id: str, news: dict[str, str | None]) -> None:
    instance = objects.Instance.get_by_uuid(
        nova_context.get_admin_context(), container_id,
        expected_attrs=['metadata'])
    if instance.task_state == task_states.DELETING:
        return
    metadata = dict(instance.metadata)
    for word, value in news.items():
        if value is None:
            metadata.pop(wishes.PREFIX + word, None)
        else:
            metadata[wishes.PREFIX + word] = value
    if metadata != instance.metadata:
        instance.metadata = metadata
        instance.save()
