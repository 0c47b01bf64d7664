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

"""Steps at Nova, one after the other.

Heat polls those of an update; ``carry_out`` waits for them elsewhere.
"""

import dataclasses
import time
import typing as ty

from heat.common import exception
from heat.common.i18n import _

# Seconds for all steps of one ``carry_out``.
_TIMEOUT = 180.0


@dataclasses.dataclass
class Step:
    """Something to start once, and to wait for.

    :param start: starts it; False to be called again
    :param check: whether it is over; None if it is as soon as it is started
    """

    start: ty.Callable[[], bool]
    check: ty.Callable[[], bool] | None = None
    started: bool = False
    done: bool = False

    def is_done(self) -> bool:
        """Start it, or look for its end; to be called until it is."""
        if not self.started:
            self.started = self.start()
            if self.check is not None:
                return False
        if self.started and not self.done:
            self.done = self.check is None or self.check()
        return self.done


def carry_out(server_id: str, steps: list[Step]) -> None:
    """Wait for steps where Heat does not poll.

    :raises Error: they take too long
    """
    end = time.monotonic() + _TIMEOUT
    for each in steps:
        while not each.is_done():
            if time.monotonic() > end:
                raise exception.Error(
                    _('Volumes and interfaces of the server %s could not be '
                      'handed over in time: look what Nova does with it, and '
                      'update the stack again') % server_id)
            time.sleep(0.5)
