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
import dataclasses
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
from tests.functional import system_image

_TREES = ('nova_container', 'tests', 'etc')

# Lines of what a guest printed whose tests could not be run.
_TAIL = 40


# They drive Nova, which the guest does not have.
_WITH_NOVA = ('test_conformance', 'test_driver', 'test_image_kinds',
              'test_moving')


def _systems(tests: tuple[str, ...]) -> tuple[pathlib.Path, ...]:
    """Archives of the systems that some of the tests run in containers.

    The guest has no network to build them.
    """
    if not any('test_machine' in test or 'test_unpack' in test
               for test in tests):
        return ()
    nested = any(test.endswith('test_machine') or 'NestingTest' in test
                 for test in tests)
    return system_image.build(plan.SUITE, nested)


def _modules(package: str) -> tuple[str, ...]:
    directory = plan.REPOSITORY / 'tests' / package
    return tuple(f'tests.{package}.{path.stem}'
                 for path in sorted(directory.glob('test_*.py'))
                 if path.stem not in _WITH_NOVA)


# Of Debian's kernel, which has both security modules: AppArmor unless told.
# Debian's policy does not let systemd's journal start.
_SELINUX = ('security=selinux selinux=1 '
            'systemd.mask=systemd-journald.service '
            'systemd.mask=systemd-journald.socket '
            'systemd.mask=systemd-journald-dev-log.socket')

# What differs with cgroups, user namespaces and security modules, in the time
# that every run of the tests may take.
SELECTED = (
    'tests.functional.test_isolation.IdentityTest',
    'tests.functional.test_isolation.NamespacesTest',
    'tests.functional.test_isolation.LimitsTest',
    'tests.functional.test_limits',
    'tests.functional.test_disk.FullDiskTest',
    'tests.functional.test_machine.MachineTest',
    *_modules('guest'),
)


@dataclasses.dataclass(frozen=True)
class Boot:
    """One run of the guest.

    :ivar systems: archives of systems that tests run in containers
    """

    machine: plan.Machine
    tests: tuple[str, ...]
    systems: tuple[pathlib.Path, ...]

    def fill(self, tree: pathlib.Path) -> None:
        """Write what the second disk holds."""
        for name in _TREES:
            shutil.copytree(plan.REPOSITORY / name, tree / name,
                            ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy(plan.FILES / 'guest-tests', tree / 'run')
        (tree / 'tests.txt').write_text('\n'.join(self.tests) + '\n')
        (tree / 'systems').mkdir()
        for path in self.systems:
            shutil.copy(path, tree / 'systems')

    def run(self, built: pathlib.Path, results: int,
            log: pathlib.Path) -> int:
        """The exit status; see ``machine.run``."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix='guest-tree.') as directory:
            tree = pathlib.Path(directory)
            self.fill(tree)
            status = machine.run(built, tree, self.machine, results, log)
        print(f'guest: exit status {status} after '
              f'{time.monotonic() - began:.0f} s', file=sys.stderr,
              flush=True)
        if status:
            lines = log.read_text(errors='replace').splitlines()
            print('\n'.join(f'guest: {line}' for line in lines[-_TAIL:]),
                  file=sys.stderr)
        return status


def _boots(tests: tuple[str, ...], systems: tuple[pathlib.Path, ...],
           timeout: int) -> list[Boot]:
    """One for each kernel that some of the tests need."""
    selinux = tuple(test for test in tests if 'selinux' in test)
    others = tuple(test for test in tests if test not in selinux)
    return [Boot(plan.Machine(kernel, timeout=timeout), some, systems)
            for kernel, some in (('', others), (_SELINUX, selinux)) if some]


def _run(boots: list[Boot], log: pathlib.Path, results: pathlib.Path) -> int:
    built = image.ensure()
    print(f'guest: image {built}', file=sys.stderr, flush=True)
    read, write = os.pipe()
    with subprocess.Popen(
            [shutil.which('stestr'), '--repo-url', results,
             '--test-path', 'tests/functional', 'load', '--force-init',
             '--subunit-trace'],
            stdin=read) as loader:
        os.close(read)
        try:
            status = max(boot.run(built, write, log) for boot in boots)
        finally:
            os.close(write)
    return status or loader.returncode


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m guest',
        description='Run functional tests in a throw-away QEMU guest with '
        'systemd and cgroup v2 alone.')
    parser.add_argument('--whole', action='store_true',
                        help='all functional tests that need no Nova, not the '
                        'selected ones')
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
        return _run(_boots(tests, _systems(tests), args.timeout), args.log,
                    args.stestr)
    except plan.Failure as failure:
        print(f'guest: {failure}', file=sys.stderr)
        return 1
