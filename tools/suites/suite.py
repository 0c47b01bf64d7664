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

"""What a test suite is, and which there are. Nothing here acts."""

import dataclasses
import pathlib
import typing as ty

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Results and logs: a stestr repository and a log per suite.
RESULTS = REPOSITORY / '.stestr'


@dataclasses.dataclass(frozen=True)
class Suite:
    """A tox environment of the same name.

    :ivar profile: of bindep.txt, whose packages it needs besides those of
        every test environment.
    :ivar host: it uses root and this machine's kernel.
    :ivar root: it needs root, but not this machine's kernel.
    :ivar uses_cloud: it needs what tools/cloud starts.
    :ivar stestr: it is made of tests; otherwise it is one check.
    :ivar by_name: it runs only when it is named.
    :ivar arguments: of stestr, where none are given.
    """

    name: str
    purpose: str
    profile: str | None = None
    host: bool = False
    root: bool = False
    uses_cloud: bool = False
    stestr: bool = True
    by_name: bool = False
    arguments: tuple[str, ...] = ()

    @property
    def log(self) -> pathlib.Path:
        return RESULTS / f'{self.name}.log'

    @property
    def results(self) -> pathlib.Path:
        return RESULTS / self.name


SUITES: ty.Final = (
    Suite('pep8', 'style and layering', stestr=False),
    Suite('docs', 'the documentation builds', stestr=False),
    Suite('unit', 'modules by themselves, without root'),
    Suite('functional', "containers on this machine's kernel",
          profile='functional', host=True),
    Suite('cgroup2', 'containers on Debian 13 with cgroup v2, emulated',
          profile='guest', root=True, by_name=True),
    Suite('debian', 'the packages of Debian, in a Debian that is made for it',
          profile='debian', root=True, by_name=True),
    Suite('faults', 'services killed in the middle of operations',
          profile='cloud', host=True, uses_cloud=True, by_name=True),
    Suite('cloud', 'servers through the APIs of a real cloud',
          profile='cloud', host=True, uses_cloud=True,
          # These are run by name: -- volume, or -- cloud.test_templates
          arguments=('--exclude-regex', r'cloud\.test_(boot_volume|'
                     r'cloud_init|templates|upgrade|volumes)')),
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a suite.

    :ivar reason: why it was not run, or why it counts as failed although
        no test failed.
    :ivar failures: names of the tests that failed.
    :ivar skipped: names of the tests that were skipped.
    """

    suite: Suite
    passed: int = 0
    failures: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    seconds: float = 0
    reason: str = ''
    ran: bool = True

    @property
    def failed(self) -> int:
        """Failed tests; an end without a failed test is a failure too."""
        return len(self.failures) or int(self.ran and bool(self.reason))
