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

"""Whether a container is what its template waits for.

Decides from what Nova says of the server; Heat is not imported here.
"""

import collections.abc
import dataclasses
import re
import time
import typing as ty

from heat_plugin import words

# Seconds that a process has to stay up before it counts as running, in which
# Nova learns of one that has ended at once.
SETTLE = 2.0
# The same once it has ended and been started again by its restart policy.
SETTLE_AGAIN = 10.0
# Seconds in which the driver has written what it knows of a server to its
# metadata.
PATIENCE = 20.0

# Seconds in which a process may end and be started again over and over.
STRUGGLE = 300.0

PATTERN = (r'running|healthy|'
           r'exited:([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])')

# What the driver says of a process that has ended.
ENDED = frozenset(words.PREFIX + word for word in ('exit_code', 'exit_reason'))

# nova.compute.power_state
_RUNNING = 1


class Failed(Exception):
    """The container will not become what is waited for; says why."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is waited for.

    :param healthy: the health check has to succeed; None: if there is one
    :param exit_code: with which the process has to end; None: it has to run
    """

    healthy: bool | None = None
    exit_code: int | None = None

    @classmethod
    def parse(cls, value: str | None) -> 'Wanted':
        """From the property ``wait_for``.

        :raises ValueError: there is no such condition
        """
        if value is None:
            return cls()
        if not re.fullmatch(PATTERN, value):
            raise ValueError(f'{value!r} is neither running, healthy nor '
                             'exited:CODE')
        if value.startswith('exited:'):
            return cls(exit_code=int(value.partition(':')[2]))
        return cls(healthy=value == 'healthy')


@dataclasses.dataclass(frozen=True)
class Observation:
    """What Nova says of a server."""

    status: str
    power_state: int | None
    metadata: collections.abc.Mapping[str, str]

    def _said(self, word: str) -> str | None:
        return self.metadata.get(words.PREFIX + word)

    @property
    def health(self) -> str | None:
        return self._said('health')

    @property
    def exit_code(self) -> int | None:
        code = self._said('exit_code')
        return None if code is None else int(code)

    @property
    def exit_reason(self) -> str:
        return self._said('exit_reason') or 'ended'

    @property
    def state(self) -> str:
        """The state of the container, in one word."""
        if self.status == 'ACTIVE':
            return ('running' if self.power_state == _RUNNING
                    else 'restarting')
        return {'SHUTOFF': 'exited', 'BUILD': 'created'}.get(
            self.status, self.status.lower())


def conditions(wanted: Wanted, seen: Observation) -> list[dict[str, ty.Any]]:
    """What a container that is ready has to be later, as Heat compares it."""
    found: list[tuple[str, ty.Any, ty.Any]] = [
        ('state', seen.state,
         'running' if wanted.exit_code is None else 'exited')]
    if wanted.exit_code is not None:
        found.append(('exit_code', seen.exit_code, wanted.exit_code))
    if seen.health is not None and wanted.healthy is not False:
        found.append(('health', seen.health, ['healthy', 'starting']))
    return [{'attr': name, 'current': current, 'expected': expected}
            for name, current, expected in found]


class Waiting:
    """Waiting until a container is what its template wants.

    :param clock: seconds, for the tests
    """

    def __init__(self, wanted: Wanted,
                 clock: collections.abc.Callable[[], float] = time.monotonic
                 ) -> None:
        self._wanted = wanted
        self._clock = clock
        self._state: str | None = None
        self._since = 0.0
        self._began: float | None = None
        # How it ended before, which the driver may say for a while.
        self._before: int | None = None

    def is_over(self, seen: Observation) -> bool:
        """Whether it is so now.

        :raises Failed: it will not become so
        """
        if self._state is None and seen.state == 'running':
            self._before = seen.exit_code
        if seen.state != self._state:
            self._state, self._since = seen.state, self._clock()
        age = self._clock() - self._since
        if seen.state == 'restarting':
            if self._began is None:
                self._began = self._clock()
            if self._clock() - self._began > STRUGGLE:
                raise Failed(f'its process {seen.exit_reason}, whenever it '
                             'was started again')
        if seen.state == 'exited':
            return self._has_ended_well(seen, age)
        if seen.state != 'running' or self._wanted.exit_code is not None:
            return False
        settled = age >= (SETTLE if seen.exit_code == self._before
                          else SETTLE_AGAIN)
        if self._wanted.healthy is False:
            return settled
        if seen.health is None:
            if not self._wanted.healthy:
                return settled
            if age > PATIENCE:
                raise Failed('wait_for is healthy, but it has no health '
                             'check')
            return False
        if seen.health == 'unhealthy':
            raise Failed('its health check failed')
        return seen.health == 'healthy'

    def _has_ended_well(self, seen: Observation, age: float) -> bool:
        if seen.exit_code is None:
            if age > PATIENCE:
                raise Failed('it was stopped')
            return False
        if seen.exit_code == self._wanted.exit_code:
            return True
        raise Failed(f'its process {seen.exit_reason}')
