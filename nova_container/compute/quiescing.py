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

"""Servers held still while Nova has snapshots of their volumes made.

Nova's API asks for it, and asks again to have the server let go. An API that
was killed in between never does, so nobody is held for longer than
``[container] quiesce_timeout``, nor beyond the end of this service.
"""

import threading

from nova import exception as nova_exception
from oslo_config import cfg
from oslo_log import log

from nova_container import exception
from nova_container.runtime import engine
from nova_container.runtime import schedule

CONF = cfg.CONF
LOG = log.getLogger(__name__)


class Quiescer:
    """Holds servers and lets them go."""

    def __init__(self):
        self._lock = threading.Lock()
        # Each time is another object: an old one's end is not a new one's.
        self._held: dict[str, object] = {}
        self._schedule = schedule.Schedule(self._due, 'quiesced')

    def stop(self) -> None:
        """End the thread, and let every server go."""
        self._schedule.stop()
        for container_id in list(self._held):
            try:
                engine.unquiesce(container_id)
            except exception.ContainerError as e:
                LOG.warning('Container %s is held still until this service '
                            'is started again: %s', container_id, e)

    def quiesce(self, instance) -> None:
        """Have all on an instance's volumes that belongs there, and no more.

        :raises InstanceQuiesceFailed: it does not run, or is held already
        """
        try:
            engine.quiesce(instance.uuid)
        except exception.ContainerError as e:
            raise nova_exception.InstanceQuiesceFailed(reason=e.message)
        held = object()
        with self._lock:
            self._held[instance.uuid] = held
        self._schedule.after(CONF.container.quiesce_timeout,
                             (instance.uuid, held))

    def unquiesce(self, instance) -> None:
        """Let an instance go; it may be gone, or have been let go."""
        self._let_go(instance.uuid, self._held.get(instance.uuid))

    def _let_go(self, container_id: str, held: object) -> bool:
        """False if it was let go before. What fails is tried when due."""
        done = engine.unquiesce(container_id)
        with self._lock:
            if self._held.get(container_id) is held:
                self._held.pop(container_id, None)
        return done

    def _due(self, item: tuple[str, object]) -> None:
        container_id, held = item
        if (self._held.get(container_id) is held
                and self._let_go(container_id, held)):
            LOG.warning(
                'Container %s was held still for snapshots of its volumes '
                'for %d s, the longest that is allowed (quiesce_timeout), '
                'and runs on now; those that are not ready yet may not agree '
                'with each other', container_id,
                CONF.container.quiesce_timeout)
