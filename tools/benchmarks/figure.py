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


"""What a benchmark yields: rows of figures, each against its target."""

import collections.abc as cabc
import dataclasses
import statistics
import time


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    :ivar value: ours, in ``unit``
    :ivar against: what it is compared with, such as ``podman 91.2``
    :ivar ratio: ours divided by that; None where nothing is compared
    :ivar target: largest ratio, or value where nothing is compared
    """

    figure: str
    value: float
    unit: str
    against: str = ''
    ratio: float | None = None
    target: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        reached = self.value if self.ratio is None else self.ratio
        return reached <= self.target

    def row(self) -> dict[str, object]:
        """As JSON shows it."""
        return {**dataclasses.asdict(self), 'met': self.met}


Timed = cabc.Callable[[], None]


def timed(action: cabc.Callable[[], object]) -> float:
    """Milliseconds that ``action`` takes."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def alternately(count: int,
                measures: dict[str, cabc.Callable[[], float]],
                ) -> dict[str, float]:
    """Medians of measures taken in turn, so that noise meets all alike.

    The first of each, which warms up, is not counted.
    """
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(count + 1):
        for name, measure in measures.items():
            value = measure()
            if turn:
                taken[name].append(value)
    return {name: statistics.median(values)
            for name, values in taken.items()}


def compared(title: str, unit: str, medians: dict[str, float], ours: str,
             targets: dict[str, float | None]) -> list[Row]:
    """A row for each of the others."""
    return [Row(title, round(medians[ours], 1), unit,
                f'{other} {medians[other]:.1f}',
                round(medians[ours] / medians[other], 3), target)
            for other, target in targets.items() if other in medians]
