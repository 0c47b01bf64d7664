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

"""Wheels of this repository, made and installed as a packager does."""

import fnmatch
import os
import pathlib
import shutil
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
# What version control holds and a wheel is made of.
_SOURCES = ('etc', 'heat_plugin', 'nova', 'nova_container',
            'nova_container_dashboard', 'LICENSE', 'NOTICE', 'README.rst',
            'pyproject.toml', 'requirements.txt', 'setup.cfg', 'setup.py')
_TIMEOUT = 300


def run(*command: object, cwd: str | pathlib.Path | None = None,
        **environment: str) -> str:
    """What a command prints.

    :raises AssertionError: it failed; with all it said
    """
    done = subprocess.run(
        [str(word) for word in command], text=True, capture_output=True,
        cwd=cwd, env={**os.environ, **environment}, timeout=_TIMEOUT)
    if done.returncode:
        raise AssertionError(f'{command}: {done.stdout}{done.stderr}')
    return done.stdout


def pip(python: str | pathlib.Path, *words: object) -> None:
    """Run pip for another Python's environment."""
    run(sys.executable, '-m', 'pip', '--python', python, '--quiet',
        '--disable-pip-version-check', *words)


def held() -> set[str]:
    """Paths of what version control holds, with or without it."""
    ignored = [line.rstrip('/') for line in (
        REPOSITORY / '.gitignore').read_text().splitlines()
        if line and not line.startswith('#')] + ['.git']

    def is_held(path: str) -> bool:
        return not any(fnmatch.fnmatch(path, pattern)
                       or fnmatch.fnmatch(os.path.basename(path), pattern)
                       for pattern in ignored)

    found = set()
    for root, directories, files in os.walk(REPOSITORY):
        place = os.path.relpath(root, REPOSITORY)
        directories[:] = [name for name in directories if is_held(
            os.path.normpath(f'{place}/{name}'))]
        found |= {path for path in (os.path.normpath(f'{place}/{name}')
                                    for name in files) if is_held(path)}
    return found


def copy(target: pathlib.Path) -> None:
    """Copy the sources as they are now into a new directory."""
    target.mkdir()
    for name in _SOURCES:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, target / name,
                            ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy2(REPOSITORY / name, target)


def export(revision: str, target: pathlib.Path) -> None:
    """Unpack the sources of a revision into a new directory.

    :raises CalledProcessError: this clone does not have it
    """
    target.mkdir()
    packed = subprocess.run(
        ['git', '-C', REPOSITORY, 'archive', revision], check=True,
        stdout=subprocess.PIPE).stdout
    subprocess.run(['tar', '-x', '-C', target], input=packed, check=True)


def last_release() -> str | None:
    """The newest tag of a version before HEAD, where this clone has one."""
    done = subprocess.run(
        ['git', '-C', REPOSITORY, 'describe', '--tags', '--abbrev=0',
         '--match', '[0-9]*', 'HEAD~'], text=True, capture_output=True)
    return done.stdout.strip() if done.returncode == 0 else None


def build(source: pathlib.Path, target: pathlib.Path,
          version: str) -> pathlib.Path:
    """A wheel of the sources in a directory, with this Python's setuptools.

    :param target: the directory it is put in
    """
    run(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps',
        '--no-build-isolation', '--no-index', '--disable-pip-version-check',
        '--wheel-dir', target, source, PBR_VERSION=version)
    wheel, = target.glob(f'nova_container-{version}-*.whl')
    return wheel
