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

"""A line on the screen per suite: what it does, for how long, its end."""

import re
import sys
import threading
import time
import types

from suites import suite

# Seconds between two lines where the output is not a terminal.
_PATIENCE = 60
_TEST_ENDED = re.compile(rb'\.\.\. (ok|FAILED|SKIPPED)')


class Line:
    """While entered, the line of a suite is kept up to date."""

    def __init__(self, shown: suite.Suite) -> None:
        self._suite = shown
        self._began = time.monotonic()
        self._text = ''
        self._live = sys.stdout.isatty()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> 'Line':
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None,
                 error: BaseException | None,
                 where: types.TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def says(self, text: str) -> None:
        """What is done now; empty for the tests themselves."""
        self._text = text

    def ends(self, verdict: str) -> None:
        """Stop, with the line that stays."""
        self._stop.set()
        self._thread.join()
        self._print(verdict, '\n')

    def _tests(self) -> str:
        try:
            log = self._suite.log.read_bytes()
        except FileNotFoundError:
            return ''
        return f'{len(_TEST_ENDED.findall(log))} tests'

    def _tick(self) -> None:
        while not self._stop.wait(1 if self._live else _PATIENCE):
            text = self._text or (self._tests() if self._suite.stestr else '')
            self._print(f'{text} ...', '' if self._live else '\n')

    def _print(self, text: str, end: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        clear = '\r\x1b[K' if self._live else ''
        print(f'{clear}{self._suite.name:<12}{minutes:>3}:{seconds:02}  '
              f'{text}', end=end, flush=True)
