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

"""A host in maintenance: it takes no server, and its servers go elsewhere.

The compute service is disabled, and the reason tells that it is in maintenance
and what is left on the host: whoever lists the services sees it, and the
service goes on with it after a restart. It asks Nova's API for each move, as
an operator would, so that the server's events have it, and confirms it.

A server that cannot move, as one that is paused, holds up no other. It moves
once it can; what failed is tried again later.
"""

import dataclasses
import re
import threading
import time

from keystoneauth1 import adapter
from keystoneauth1 import exceptions as keystone_exception
from nova.compute import vm_states
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova import service_auth
from oslo_config import cfg
from oslo_log import log

from nova_container.compute import courier
from nova_container import exception
from nova_container.runtime import schedule

CONF = cfg.CONF
LOG = log.getLogger(__name__)

ON, OFF = 'on_maintenance', 'off_maintenance'

# Of Nova's API.
_MICROVERSION = '2.1'

# How many servers are on their way at once.
_AT_ONCE = 4
# Seconds between looks, while something moves and while nothing can.
_PAUSE = 2
_IDLE = 10
# Seconds until what failed is tried again.
_AGAIN = 300

# What a migration is until it is confirmed.
_UNDER_WAY = ('accepted', 'pre-migrating', 'migrating', 'post-migrating',
              'finished', 'confirming')

_MOVABLE = (vm_states.ACTIVE, vm_states.STOPPED)

# What is left on the host.
_BEGINS, _NONE = 'begins', 'no server is left'
_TO_MOVE = 'servers to move: '
_TO_CONFIRM = 'moves that users have to confirm: '
_STAY = 'servers that stay: '

# Characters of Nova's column, and what of them is for the reason before.
_REASON, _BEFORE = 255, 100
# An operator who disables a service can give a reason that begins like ours,
# and does not mean the servers to go.
_PATTERN = re.compile(
    fr'maintenance mode: (?P<text>{_BEGINS}|{_NONE}'
    fr'|(?:{_TO_MOVE}|{_TO_CONFIRM}|{_STAY})\d.*?)'
    r'(?: \[was disabled(?:: (?P<before>.*))?(?P<was>\]))?', re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why the compute service of a host in maintenance is disabled.

    :param text: what is left on the host
    :param before: why it was disabled before that, '' if nobody said so; None
        if it was not
    """

    text: str
    before: str | None = None

    def __str__(self) -> str:
        end = ''
        if self.before is not None:
            before = self.before[:_BEFORE]
            end = f' [was disabled: {before}]' if before else (
                ' [was disabled]')
        return f'maintenance mode: {self.text}'[:_REASON - len(end)] + end

    @classmethod
    def of(cls, service) -> 'Reason | None':
        """None if the host is not in maintenance.

        :param service: its nova.objects.Service
        """
        found = _PATTERN.fullmatch(service.disabled_reason or '')
        if not service.disabled or found is None:
            return None
        return cls(found['text'],
                   (found['before'] or '') if found['was'] else None)

    @classmethod
    def begin(cls, service) -> 'Reason':
        """That of a host that was not in maintenance, or was already."""
        before = cls.of(service)
        if before is None:
            before = cls('', (service.disabled_reason or '')
                         if service.disabled else None)
        return dataclasses.replace(before, text=_BEGINS)


class Maintenance:
    """Takes this host out of service and puts it back.

    :param host: of this service
    :param virtapi: nova.compute.manager.ComputeVirtAPI
    """

    def __init__(self, host: str, virtapi):
        self._host = host
        self._virtapi = virtapi
        # Servers that were asked to move, and when those that did not may be
        # asked again.
        self._asked: set[str] = set()
        self._failed: dict[str, float] = {}
        # Who asks for the next look has the one before forgotten.
        self._turn: object = None
        self._lock = threading.Lock()
        self._schedule = schedule.Schedule(self._due, 'maintenance')

    def at_start(self) -> None:
        """Go on with what was begun before the service was started."""
        self._look_in(0)

    def stop(self) -> None:
        """End the thread; what moves is gone on with at the next start."""
        self._schedule.stop()

    def enter(self) -> str:
        """Disable the service and begin to move its servers.

        :returns: ON, or why that is not possible
        """
        try:
            self._api()
        except exception.OperatorError as e:
            return e.message
        context = nova_context.get_admin_context()
        with self._lock:
            service = objects.Service.get_by_compute_host(context, self._host)
            self._save(context, service, True, str(Reason.begin(service)))
            self._failed.clear()
        self._look_in(0)
        return ON

    def leave(self) -> str:
        """Enable the service, unless it was disabled before. Servers that are
        on their way still arrive; none comes back.

        :returns: OFF
        """
        context = nova_context.get_admin_context()
        with self._lock:
            service = objects.Service.get_by_compute_host(context, self._host)
            reason = Reason.of(service)
            if reason is not None:
                self._save(context, service, reason.before is not None,
                           reason.before or None)
        return OFF

    def _save(self, context, service, disabled: bool,
              reason: str | None) -> None:
        service.disabled = disabled
        service.disabled_reason = reason
        service.save()
        try:
            self._virtapi.update_compute_provider_status(
                context, service.compute_node.uuid, not disabled)
        except (nova_exception.NovaException,
                keystone_exception.ClientException):
            # Nova tells it again with the resources of the host.
            LOG.warning('Placement was not told that this host is %s',
                        'disabled' if disabled else 'enabled', exc_info=True)

    def _look_in(self, seconds: float) -> None:
        self._turn = object()
        self._schedule.after(seconds, self._turn)

    def _due(self, turn: object) -> None:
        if turn is not self._turn:
            return
        pause: float | None = _IDLE
        try:
            with self._lock:
                pause = self._look(nova_context.get_admin_context())
        finally:
            if pause is not None and turn is self._turn:
                self._look_in(pause)

    def _look(self, context) -> float | None:
        """Do what is to be done now.

        :returns: seconds until the next look; None if nothing is left to do
        """
        try:
            service = objects.Service.get_by_compute_host(context, self._host)
        except nova_exception.ComputeHostNotFound:
            # Its very first start.
            return None
        reason = Reason.of(service)
        moves = objects.MigrationList.get_by_filters(context, {
            'source_compute': self._host, 'status': list(_UNDER_WAY)})
        if not (reason or moves and CONF.service_user.auth_type):
            return None
        me = self._api().get_user_id()
        on_their_way, others = set(), 0
        for migration in moves:
            instance = self._moving(context, migration)
            if instance is None:
                continue
            if migration.user_id != me:
                others += 1
                continue
            on_their_way.add(instance.uuid)
            if (migration.status == 'finished' and instance.task_state is None
                    and self._may_ask(instance)):
                self._ask(instance, 'confirmResize')
        if reason is None:
            return _PAUSE if on_their_way else None
        moving, staying = self._move_all(context, on_their_way)
        self._tell(service, reason, moving, others, staying)
        return _PAUSE if moving else _IDLE

    def _moving(self, context, migration):
        """The instance that a migration moves from here to another host; None
        if nothing more becomes of that.
        """
        try:
            instance = objects.Instance.get_by_uuid(context,
                                                    migration.instance_uuid)
        except nova_exception.InstanceNotFound:
            return None
        if (migration.dest_compute == self._host
                or instance.task_state is None
                and instance.vm_state != vm_states.RESIZED):
            return None
        return instance

    def _move_all(self, context,
                  on_their_way: set[str]) -> tuple[int, list[str]]:
        """Ask for the moves that are possible now.

        :returns: how many servers are on their way or will be, and which stay
        """
        servers = {instance.uuid: instance for instance in
                   objects.InstanceList.get_by_host(context, self._host)}
        busy = on_their_way | {uuid for uuid, instance in servers.items()
                               if instance.task_state is not None}
        moving, staying = len(busy), []
        free = _AT_ONCE - len(busy)
        for uuid, instance in servers.items():
            if uuid in busy:
                continue
            if uuid in self._asked:
                LOG.warning('It did not move away from this host, which is in '
                            'maintenance; its events tell why',
                            instance=instance)
                self._fails(uuid)
            if instance.vm_state not in _MOVABLE:
                staying.append(f'{uuid} is {instance.vm_state}')
            elif not self._may_ask(instance):
                staying.append(f'{uuid} cannot move, see its events')
            else:
                moving += 1
                if free > 0 and self._ask(instance, 'migrate'):
                    self._asked.add(uuid)
                    free -= 1
        self._asked &= servers.keys()
        return moving, staying

    def _may_ask(self, instance) -> bool:
        return time.monotonic() >= self._failed.get(instance.uuid, 0)

    def _fails(self, uuid: str) -> None:
        self._asked.discard(uuid)
        self._failed[uuid] = time.monotonic() + _AGAIN

    def _tell(self, service, reason: Reason, moving: int, others: int,
              staying: list[str]) -> None:
        words = []
        if moving:
            words.append(f'{_TO_MOVE}{moving}')
        if others:
            words.append(f'{_TO_CONFIRM}{others}')
        if staying:
            words.append(f'{_STAY}{len(staying)}: ' + ', '.join(staying))
        text = str(dataclasses.replace(
            reason, text='; '.join(words) or _NONE))
        if service.disabled_reason != text:
            LOG.info('This host is in %s', text)
            service.disabled_reason = text
            service.save()

    @staticmethod
    def _api() -> adapter.Adapter:
        """Nova's, as the service's own user.

        :raises OperatorError: nova.conf does not name one
        """
        context = courier.service_context()
        return adapter.Adapter(
            service_auth.get_service_auth_session(
                'service_user', context.user_auth_plugin),
            service_type='compute', interface=['internal', 'public'],
            region_name=CONF.placement.region_name, min_version=_MICROVERSION,
            max_version='2.latest', default_microversion=_MICROVERSION)

    def _ask(self, instance, action: str) -> bool:
        """Ask for an action on a server; False if it is refused."""
        try:
            self._api().post(f'/servers/{instance.uuid}/action',
                             json={action: None})
        except keystone_exception.ClientException as e:
            LOG.warning('%s, for the maintenance of this host, failed: %s',
                        action, e, instance=instance)
            self._fails(instance.uuid)
            return False
        return True
