# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Carrying out steps, several at once, and telling the user about it."""

import collections.abc as cabc
import concurrent.futures
import contextlib
import dataclasses
import pathlib
import sys
import threading
import time
import traceback
import typing as ty

from onenode import command
from onenode import plan

TAIL_LINES = 20
_SPINNER = '|/-\\'


@dataclasses.dataclass(frozen=True)
class Step:
    """A part of the work.

    :ivar action: does it; returns False when there was nothing to do.
    :ivar needs: names of the steps that must have ended before.
    """

    name: str
    action: cabc.Callable[[], ty.Optional[bool]]
    needs: tuple[str, ...] = ()


class Reporter:
    """Prints a line per finished step; on a terminal, what is under way."""

    def __init__(self, stream: ty.TextIO = sys.stdout) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._lock = threading.Lock()
        self._running: dict[str, float] = {}
        self._start = time.monotonic()
        self._turn = 0
        self._unchanged = 0

    def started(self, step: str) -> None:
        with self._lock:
            self._running[step] = time.monotonic()

    def ended(self, step: str, verdict: str) -> None:
        with self._lock:
            began = self._running.pop(step)
            seconds = time.monotonic() - began
            if verdict == 'unchanged':
                self._unchanged += 1
            else:
                self._line(f'  {verdict:<7} {step:<44} {seconds:6.1f} s')

    def say(self, text: str) -> None:
        with self._lock:
            self._line(text)

    def _line(self, text: str) -> None:
        clear = '\r\x1b[K' if self._live else ''
        print(f'{clear}{text}', file=self._stream, flush=True)

    def say_unchanged(self) -> None:
        if self._unchanged:
            self.say(f'  ({self._unchanged} steps had nothing to do)')

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def _draw(self) -> None:
        with self._lock:
            self._turn += 1
            names = ', '.join(self._running)
            sign = _SPINNER[self._turn % len(_SPINNER)]
            text = f'{sign} {self.elapsed():.0f} s  {names}'
            print(f'\r\x1b[K{text[:78]}', end='', file=self._stream,
                  flush=True)

    @contextlib.contextmanager
    def spinning(self) -> cabc.Iterator[None]:
        if not self._live:
            yield
            return
        stop = threading.Event()

        def spin() -> None:
            while not stop.wait(0.15):
                self._draw()
        thread = threading.Thread(target=spin, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            print('\r\x1b[K', end='', file=self._stream, flush=True)

    def failure(self, step: str, error: Exception) -> None:
        with self._lock:
            self._line(f'\n{step}: {error}')
            if not isinstance(error, (plan.Failure, OSError)):
                traceback.print_exception(error, file=self._stream)
            log = getattr(error, 'log', None)
            if log is not None:
                for line in tail(log):
                    self._line(f'    {line}')
                self._line(f'The log: {log}')


def tail(path: pathlib.Path, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a file that may be long or absent."""
    try:
        with open(path, 'rb') as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 256 * lines))
            return file.read().decode(errors='replace').splitlines()[-lines:]
    except FileNotFoundError:
        return []


def carry_out(steps: cabc.Sequence[Step], report: Reporter) -> bool:
    """Run every step once those it needs have ended.

    After a failure no new step starts; those under way are waited for.

    :returns: whether all of them succeeded.
    """
    names = {step.name for step in steps}
    if len(names) != len(steps):
        raise ValueError('two steps have the same name')
    for step in steps:
        if missing := set(step.needs) - names:
            raise ValueError(f'{step.name} needs unknown {missing}')
    waiting = list(steps)
    ended: set[str] = set()
    failed: list[tuple[str, Exception]] = []
    running: dict[concurrent.futures.Future, Step] = {}
    with (concurrent.futures.ThreadPoolExecutor(len(steps)) as pool,
          report.spinning()):
        while running or (waiting and not failed):
            if not failed:
                ready = [s for s in waiting if ended.issuperset(s.needs)]
                if not ready and not running:
                    raise ValueError('steps need each other: ' + ', '.join(
                        step.name for step in waiting))
                for step in ready:
                    waiting.remove(step)
                    report.started(step.name)
                    running[pool.submit(step.action)] = step
            try:
                done, _ = concurrent.futures.wait(
                    running, return_when=concurrent.futures.FIRST_COMPLETED)
            except KeyboardInterrupt:
                command.stopping.set()
                report.say('interrupted; waiting for what is under way: '
                           + ', '.join(s.name for s in running.values()))
                raise
            for future in done:
                step = running.pop(future)
                error = future.exception()
                if error is None:
                    changed = future.result() is not False
                    report.ended(step.name, 'ok' if changed else 'unchanged')
                    ended.add(step.name)
                    continue
                if isinstance(error, command.Interrupted):
                    report.ended(step.name, 'stopped')
                    continue
                report.ended(step.name, 'FAILED')
                command.stopping.set()
                failed.append((step.name, error))
    report.say_unchanged()
    for name, error in failed:
        report.failure(name, error)
    return not failed
