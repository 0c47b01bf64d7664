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

"""The command ``tools/test``."""

import argparse
import os
import signal
import sys
import typing as ty

from onenode import host
from onenode import plan
from onenode import progress

from suites import display
from suites import run
from suites import suite

_DESCRIPTION = """\
Install what the tests need and run them: the suites named, or every one that
is not marked as run by name only.
With CI=true in the environment a suite that cannot be run and a test that
is skipped are failures, and the cloud is taken down at the end.
"""


def _obstacle(wanted: suite.Suite) -> str:
    """Why this machine cannot run the suite, empty if it can."""
    if (wanted.host or wanted.root) and os.geteuid():
        return 'needs root'
    return host.obstacle() if wanted.host else ''


def _verdict(outcome: suite.Outcome) -> str:
    if not outcome.ran:
        return f'NOT RUN: {outcome.reason}'
    text = f'{outcome.passed} passed, {outcome.failed} failed'
    if outcome.skipped:
        text += f', {len(outcome.skipped)} skipped'
    return text + (f' ({outcome.reason})' if outcome.reason else '')


def _explain(outcome: suite.Outcome) -> None:
    """What a reader needs who has nothing but this output."""
    for name in outcome.skipped:
        print(f'    skipped: {name}')
    if outcome.failed and outcome.ran:
        for line in progress.tail(outcome.suite.log, 60):
            print(f'    | {line}')
        for name in outcome.failures:
            print(f'    failed: {name}')
        print(f'    the log: {outcome.suite.log}', flush=True)


def _run(wanted: suite.Suite, arguments: list[str],
         strict: bool) -> suite.Outcome:
    with display.Line(wanted) as line:
        if reason := _obstacle(wanted):
            outcome = suite.Outcome(wanted, reason=reason, ran=False)
        else:
            outcome = run.run(wanted, arguments, strict, line)
        line.ends(_verdict(outcome))
    _explain(outcome)
    return outcome


def _take_down(cloud: suite.Suite) -> suite.Outcome:
    with display.Line(cloud) as line:
        line.says('tools/cloud down')
        try:
            run.cloud_down(cloud.log)
        except plan.Failure as failure:
            outcome = suite.Outcome(cloud, reason=str(failure))
        else:
            outcome = suite.Outcome(cloud)
        line.ends(outcome.reason or 'taken down')
    _explain(outcome)
    return outcome


def _parse(argv: list[str] | None) -> tuple[list[suite.Suite], list[str]]:
    words = list(sys.argv[1:] if argv is None else argv)
    arguments: list[str] = []
    if '--' in words:
        cut = words.index('--')
        words, arguments = words[:cut], words[cut + 1:]
    parser = argparse.ArgumentParser(
        prog='tools/test', description=_DESCRIPTION,
        usage='%(prog)s [-h] [SUITE ...] [-- ARGUMENT ...]',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='suites:\n' + '\n'.join(
            f'  {known.name:<12}{known.purpose}'
            f'{" (by name only)" * known.by_name}' for known in suite.SUITES)
        + '\n\nARGUMENTs go to stestr, for instance the regular expression '
        'that names\nsome tests: tools/test unit -- tests.unit.oci')
    known = {each.name: each for each in suite.SUITES}
    parser.add_argument('suite', nargs='*', help=argparse.SUPPRESS)
    names = parser.parse_args(words).suite
    if unknown := set(names) - set(known):
        parser.error(f'no suite {", ".join(unknown)}; there are '
                     + ', '.join(known))
    names = names or [each.name for each in suite.SUITES if not each.by_name]
    return [known[name] for name in names], arguments


def _end(number: int, _frame: object) -> ty.NoReturn:
    """An end from outside takes the way of an error: children end too."""
    sys.exit(128 + number)


def main(argv: list[str] | None = None) -> int:
    wanted, arguments = _parse(argv)
    named = len(wanted) < sum(not each.by_name for each in suite.SUITES)
    strict = os.environ.get('CI') == 'true'
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    outcomes = []
    try:
        for each in wanted:
            outcomes.append(_run(each, arguments, strict))
    finally:
        cloud = [each for each in wanted
                 if each.uses_cloud and not _obstacle(each)]
        if strict and cloud:
            outcomes.append(_take_down(cloud[0]))
    not_run = [outcome for outcome in outcomes if not outcome.ran]
    for outcome in not_run:
        print(f'not run: {outcome.suite.name}, because it {outcome.reason}')
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    if strict or named:
        failed += len(not_run)
    print(f'{passed} passed, {failed} failed', flush=True)
    return 1 if failed else 0
