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

"""What the suites are run with: Debian packages and tox in a virtualenv."""

import os
import pathlib
import shutil
import subprocess
import sys

from onenode import command
from onenode import packages
from onenode import plan

from suites import suite

VENV = suite.REPOSITORY / '.venv-test'
TOX = VENV / 'bin' / 'tox'
_PINS = suite.REPOSITORY / 'tools' / 'constraints-tests.txt'
_RUNNERS = ('bindep', 'tox', 'tox-uv')


def _install(names: list[str], log: pathlib.Path) -> None:
    if os.geteuid():
        raise plan.Failure('needs packages only root can install: apt-get '
                           f'install {" ".join(names)}')
    packages.install(tuple(names), log)


def _missing(profile: str) -> list[str]:
    """Packages of a profile of bindep.txt that are not installed."""
    ended = subprocess.run(
        [VENV / 'bin' / 'bindep', '--brief', profile], cwd=suite.REPOSITORY,
        capture_output=True, text=True, env=command.environment())
    if ended.returncode not in (0, 1) or ended.stderr:
        raise plan.Failure(f'bindep {profile}: {ended.stderr.strip()}')
    return ended.stdout.split()


def prepare(wanted: suite.Suite, log: pathlib.Path) -> None:
    """Install what is missing for a suite.

    :raises Failure: it could not be installed
    """
    stamp = VENV / 'pins'
    fingerprint = sys.version + _PINS.read_text()
    if not stamp.exists() or stamp.read_text() != fingerprint:
        if subprocess.run(
                [sys.executable, '-c', 'import ensurepip'],
                capture_output=True).returncode:
            _install(['python3-venv'], log)
        shutil.rmtree(VENV, ignore_errors=True)
        command.run([sys.executable, '-m', 'venv', VENV], log=log)
        command.run([VENV / 'bin' / 'pip', 'install', '--quiet',
                     '--constraint', plan.CONSTRAINTS, '--constraint', _PINS,
                     *_RUNNERS], log=log)
        stamp.write_text(fingerprint)
    for profile in filter(None, ('test', wanted.profile)):
        if names := _missing(profile):
            _install(names, log)
