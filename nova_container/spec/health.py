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

"""A command that tells whether the container does its work.

The semantics are those of Docker's HEALTHCHECK.
"""

import dataclasses

from nova_container import exception

STARTING = 'starting'
HEALTHY = 'healthy'
UNHEALTHY = 'unhealthy'

# The workers are shared by all containers of the host.
INTERVAL_MIN = 1.0
INTERVAL_MAX = 86400.0
TIMEOUT_MAX = 60.0


@dataclasses.dataclass(frozen=True)
class Healthcheck:
    """
    :param test: command and arguments; exit code 0 means healthy
    :param interval: seconds between the end of a check and the next
    :param timeout: seconds until a check is killed, which is a failure
    :param start_period: seconds after the start in which failures do not
        count
    :param start_interval: ``interval`` during the start period
    :param retries: failures in a row that make it unhealthy
    """

    test: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3

    def __post_init__(self) -> None:
        if not self.test or not self.test[0]:
            raise exception.InvalidSpec('the health check has no command')
        for name, low, high in (
                ('interval', INTERVAL_MIN, INTERVAL_MAX),
                ('timeout', 0.001, TIMEOUT_MAX),
                ('start_period', 0.0, INTERVAL_MAX),
                ('start_interval', INTERVAL_MIN, INTERVAL_MAX),
                ('retries', 1, 1 << 31)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise exception.InvalidSpec(
                    f'health check: {name} {value} is not in {low}..{high}')

    def pause(self, running: float) -> float:
        """Seconds until the next check, ``running`` after the start."""
        if running < self.start_period:
            return min(self.start_interval, self.interval)
        return self.interval


@dataclasses.dataclass(frozen=True)
class Health:
    """What the checks have found.

    :param failures: in a row, outside the start period
    :param exit_code: of the last check; None after its timeout
    :param output: beginning of what the last check wrote
    """

    status: str = STARTING
    failures: int = 0
    exit_code: int | None = None
    output: str = ''

    def after(self, check: Healthcheck, exit_code: int | None, output: str,
              running: float) -> 'Health':
        """The health after one more check.

        :param running: seconds since the start
        """
        if exit_code == 0:
            return Health(HEALTHY, 0, 0, output)
        if self.status == STARTING and running < check.start_period:
            return Health(STARTING, 0, exit_code, output)
        failures = self.failures + 1
        status = UNHEALTHY if failures >= check.retries else self.status
        return Health(status, failures, exit_code, output)
