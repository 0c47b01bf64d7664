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

"""Running one suite through tox, and reading what stestr recorded."""

import csv
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import time

from onenode import command
from onenode import plan

from suites import display
from suites import environment
from suites import suite

_CLOUD = suite.REPOSITORY / 'tools' / 'cloud'


def _follow(words: list[str], log: pathlib.Path,
            env: dict[str, str] | None = None) -> int:
    """Run a long command, its output appended to ``log``; its exit status.

    Where this program is told to end, so are the command and all it
    started.
    """
    with open(log, 'ab') as output:
        output.write(f'$ {shlex.join(words)}\n'.encode())
        output.flush()
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, cwd=suite.REPOSITORY,
            env=env or command.environment(), start_new_session=True)
        try:
            return child.wait()
        except BaseException:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait()
            raise


def _tests(wanted: suite.Suite) -> dict[str, list[str]]:
    """Names of the tests of the last run by what became of them."""
    tools = suite.REPOSITORY / '.tox' / wanted.name / 'bin'
    last = subprocess.run(
        [tools / 'stestr', '--repo-url', wanted.results, 'last', '--subunit'],
        cwd=suite.REPOSITORY, capture_output=True)
    rows = subprocess.run(
        [tools / 'subunit2csv', '--no-passthrough'], input=last.stdout,
        cwd=suite.REPOSITORY, capture_output=True)
    by_status: dict[str, list[str]] = {}
    for row in csv.DictReader(rows.stdout.decode().splitlines()):
        by_status.setdefault(row['status'], []).append(row['test'])
    return by_status


def _cloud_environment(log: pathlib.Path) -> dict[str, str]:
    """Have a cloud that runs this clone's driver; its clients' settings."""
    if status := _follow([str(_CLOUD), 'up', '--nodes', '2',
                         '--volumes', '--key-manager'], log):
        raise plan.Failure(f'exit status {status} from tools/cloud up', log)
    shell = command.output(['bash', '-c', f'set -e; settings="$({_CLOUD} '
                            'openrc)"; eval "$settings"; env -0'])
    return dict(pair.split('=', 1) for pair in shell.split('\0') if pair)


def cloud_down(log: pathlib.Path) -> None:
    """Undo what the cloud suite started.

    :raises Failure: something was left
    """
    if status := _follow([str(_CLOUD), 'down'], log):
        raise plan.Failure(f'exit status {status} from tools/cloud down', log)


def run(wanted: suite.Suite, arguments: list[str], strict: bool,
        line: display.Line) -> suite.Outcome:
    """Run a suite on a machine that can.

    :param arguments: for stestr or the check, such as names of tests
    :param strict: skipped tests count as a failure
    """
    began = time.monotonic()
    shutil.rmtree(wanted.results, ignore_errors=True)
    suite.RESULTS.mkdir(exist_ok=True)
    wanted.log.write_bytes(b'')
    try:
        line.says('installing what is missing')
        environment.prepare(wanted, wanted.log)
        env = command.environment()
        if wanted.uses_cloud:
            line.says('tools/cloud up')
            env |= _cloud_environment(wanted.log)
        line.says('')
        status = _follow(
            [str(environment.TOX), 'run', '--colored', 'no', '-e',
             wanted.name, '--', *(arguments or wanted.arguments)],
            wanted.log, env)
    except plan.Failure as failure:
        return suite.Outcome(wanted, seconds=time.monotonic() - began,
                             reason=str(failure))
    seconds = time.monotonic() - began
    if not wanted.stestr:
        return suite.Outcome(
            wanted, passed=int(status == 0), seconds=seconds,
            reason=f'exit status {status}' if status else '')
    tests = _tests(wanted)
    passed = len(tests.pop('success', ())) + len(tests.pop('xfail', ()))
    skipped = tuple(tests.pop('skip', ()))
    failures = tuple(name for names in tests.values() for name in names)
    reason = ''
    if not passed and not failures:
        reason = 'no test was run'
    elif status and not failures:
        reason = f'exit status {status}'
    elif strict and skipped:
        reason = 'tests were skipped'
    return suite.Outcome(wanted, passed, failures, skipped, seconds, reason)
