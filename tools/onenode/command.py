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

"""Running other programs."""

import collections.abc as cabc
import os
import pathlib
import shlex
import subprocess
import threading
import time
import typing as ty

from onenode import plan

# A parent's Python settings must not reach the programs of the cloud.
_FOREIGN = ('PYTHON', 'OS_', 'UV_', 'VIRTUAL_ENV', 'DJANGO_')


def environment(**extra: str) -> dict[str, str]:
    """The caller's environment without what would mislead the programs."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(_FOREIGN)}
    kept.setdefault('HOME', '/root')
    kept.update(LC_ALL='C.UTF-8', **extra)
    path = kept.get('PATH', '').split(':')
    kept['PATH'] = ':'.join(
        path + [d for d in ('/usr/sbin', '/usr/bin', '/sbin', '/bin')
                if d not in path])
    return kept


def run(command: cabc.Sequence[ty.Any], *, log: pathlib.Path,
        env: ty.Optional[dict[str, str]] = None,
        stdin: ty.Optional[str] = None, may_outlive: bool = False) -> None:
    """Run a command, its output appended to ``log``.

    It is killed with this process, unless it ``may_outlive`` it.

    :raises Failure: it did not exit with 0.
    """
    words = [str(word) for word in command]
    guard = () if may_outlive else ('setpriv', '--pdeathsig', 'KILL', '--')
    with open(log, 'ab') as output:
        output.write(f'$ {shlex.join(words)}\n'.encode())
        output.flush()
        try:
            ended = subprocess.run(
                [*guard, *words], stdout=output, stderr=subprocess.STDOUT,
                env=env or environment(),
                input=(stdin or '').encode())
        except FileNotFoundError as error:
            raise plan.Failure(f'{words[0]}: {error.strerror}', log)
    if ended.returncode:
        raise plan.Failure(
            f'exit status {ended.returncode} from: {shlex.join(words)}', log)


def output(command: cabc.Sequence[ty.Any],
           stdin: ty.Optional[str] = None) -> str:
    """Run a short command and return what it printed.

    :raises Failure: it did not exit with 0; the message holds its stderr.
    """
    words = [str(word) for word in command]
    try:
        ended = subprocess.run(words, capture_output=True, text=True,
                               env=environment(), input=stdin)
    except FileNotFoundError as error:
        raise plan.Failure(f'{words[0]}: {error.strerror}')
    if ended.returncode:
        raise plan.Failure(
            f'exit status {ended.returncode} from: {shlex.join(words)}\n'
            f'{ended.stderr.strip()}')
    return ended.stdout


def succeeds(command: cabc.Sequence[ty.Any]) -> bool:
    """Whether a short command exits with 0."""
    return subprocess.run(
        [str(word) for word in command], env=environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL).returncode == 0


class Interrupted(plan.Failure):
    """Given up because something else failed, or on the user's request."""


stopping = threading.Event()


def wait_for(condition: cabc.Callable[[], bool], what: str, seconds: float,
             log: ty.Optional[pathlib.Path] = None) -> None:
    """Wait until ``condition`` holds.

    :raises Failure: it still did not after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if stopping.is_set():
            raise Interrupted(f'{what}: no longer waited for', log)
        if time.monotonic() > deadline:
            raise plan.Failure(f'{what}: not after {seconds:.0f} s', log)
        time.sleep(0.1)
