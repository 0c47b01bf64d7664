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


"""``python -m guest``: run functional tests in the guest.

What the tests say comes as it happens and is handed to stestr, so that they
are counted like those of any other suite.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from guest import image
from guest import machine
from guest import plan

_TREES = ('nova_container', 'tests', 'etc')

# Lines of what a guest printed whose tests could not be run.
_TAIL = 40


# What differs with cgroups, user namespaces and security modules, in the time
# that every run of the tests may take.
def _modules(package: str) -> tuple[str, ...]:
    directory = plan.REPOSITORY / 'tests' / package
    return tuple(f'tests.{package}.{path.stem}'
                 for path in sorted(directory.glob('test_*.py')))


SELECTED = (
    'tests.functional.test_isolation.IdentityTest',
    'tests.functional.test_isolation.NamespacesTest',
    'tests.functional.test_isolation.LimitsTest',
    'tests.functional.test_limits',
    'tests.functional.test_disk.FullDiskTest',
    *_modules('guest'),
)


def _fill(tree: pathlib.Path, tests: tuple[str, ...]) -> None:
    """What the second disk holds."""
    for name in _TREES:
        shutil.copytree(plan.REPOSITORY / name, tree / name,
                        ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(plan.FILES / 'guest-tests', tree / 'run')
    (tree / 'tests.txt').write_text('\n'.join(tests) + '\n')


def _run(tests: tuple[str, ...], timeout: int, log: pathlib.Path,
         results: pathlib.Path) -> int:
    built = image.ensure()
    print(f'guest: image {built}', file=sys.stderr, flush=True)
    began = time.monotonic()
    read, write = os.pipe()
    with tempfile.TemporaryDirectory(prefix='guest-tree.') as directory:
        tree = pathlib.Path(directory)
        _fill(tree, tests)
        with subprocess.Popen(
                [shutil.which('stestr'), '--repo-url', results,
                 '--test-path', 'tests/functional', 'load', '--force-init',
                 '--subunit-trace'],
                stdin=read) as loader:
            os.close(read)
            try:
                status = machine.run(
                    built, tree, plan.Machine(timeout=timeout), write, log)
            finally:
                os.close(write)
    print(f'guest: exit status {status} after '
          f'{time.monotonic() - began:.0f} s', file=sys.stderr, flush=True)
    if status:
        lines = log.read_text(errors='replace').splitlines()
        print('\n'.join(f'guest: {line}' for line in lines[-_TAIL:]),
              file=sys.stderr)
    return status or loader.returncode


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m guest',
        description='Run functional tests in a throw-away QEMU guest with '
        'systemd and cgroup v2 alone.')
    parser.add_argument('--whole', action='store_true',
                        help='all functional tests, not the selected ones')
    parser.add_argument('--timeout', type=int, default=3600,
                        metavar='SECONDS')
    parser.add_argument('--log', type=pathlib.Path, required=True,
                        help='file that gets what the guest prints')
    parser.add_argument('--stestr', type=pathlib.Path, required=True,
                        help='repository that gets the results')
    parser.add_argument('test', nargs='*', help='modules, classes or tests')
    args = parser.parse_args(argv)
    whole = (*_modules('functional'), *_modules('guest'))
    tests = tuple(args.test) or (whole if args.whole else SELECTED)
    if reason := machine.available():
        print(f'guest: {reason}', file=sys.stderr)
        return 1
    try:
        return _run(tests, args.timeout, args.log, args.stestr)
    except plan.Failure as failure:
        print(f'guest: {failure}', file=sys.stderr)
        return 1
