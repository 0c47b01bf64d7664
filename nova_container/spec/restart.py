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

"""Whether a process that has ended is started again."""

import dataclasses
import re
from typing import Self

from nova_container import exception

NO = 'no'
ON_FAILURE = 'on-failure'
ALWAYS = 'always'

_RETRIES = re.compile(r'\d{1,6}')

# A process that has run this long, in seconds, starts counting afresh.
STABLE = 10.0

_DELAY_FIRST = 0.1
_DELAY_MAX = 60.0


def delay(restarts: int) -> float:
    """Seconds to wait before the next start, after so many in a row."""
    return min(_DELAY_FIRST * 2 ** min(restarts, 30), _DELAY_MAX)


@dataclasses.dataclass(frozen=True)
class RestartPolicy:
    """
    :param when: NO, ON_FAILURE or ALWAYS
    :param retries: with ON_FAILURE: how many starts in a row; None for no end
    """

    when: str = NO
    retries: int | None = None

    def __post_init__(self) -> None:
        if self.when not in (NO, ON_FAILURE, ALWAYS):
            raise exception.InvalidSpec(
                f'restart policy {self.when!r} is not one of {NO}, '
                f'{ON_FAILURE}, {ON_FAILURE}:N and {ALWAYS}')
        if self.retries is not None and (
                self.when != ON_FAILURE or self.retries < 1):
            raise exception.InvalidSpec(
                f'restart policy {self.when}:{self.retries}: a number of '
                f'starts, 1 or more, goes with {ON_FAILURE}')

    @classmethod
    def parse(cls, text: str) -> Self:
        """``no``, ``on-failure``, ``on-failure:N`` or ``always``.

        :raises InvalidSpec: it is none of them
        """
        when, colon, number = text.strip().lower().partition(':')
        if not colon:
            return cls(when)
        if not _RETRIES.fullmatch(number):
            raise exception.InvalidSpec(
                f'restart policy {text!r}: {number!r} is not a number')
        return cls(when, int(number))

    def wants(self, exit_code: int | None, restarts: int) -> bool:
        """Whether to start again.

        :param exit_code: None where it is not known, which counts as failure
        :param restarts: starts in a row that this policy has caused
        """
        if self.when == ON_FAILURE:
            return exit_code != 0 and (self.retries is None
                                       or restarts < self.retries)
        return self.when == ALWAYS
