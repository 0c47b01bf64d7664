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

"""The virtualenv with OpenStack and this driver in it."""

import pathlib
import shutil
import sys

from onenode import command
from onenode import marks
from onenode import plan

# What the wheel is made of.
SOURCES = ('heat_plugin', 'nova_container', 'nova_container_dashboard',
           'nova', 'etc', 'setup.cfg', 'setup.py', 'pyproject.toml',
           'requirements.txt', 'README.rst', 'LICENSE', 'NOTICE')

_UV = next(line.strip() for line in plan.CONSTRAINTS.read_text().splitlines()
           if line.startswith('uv=='))


def _environment(layout: plan.Layout) -> dict[str, str]:
    return command.environment(
        VIRTUAL_ENV=str(layout.venv), TMPDIR=str(layout.cache / 'tmp'),
        UV_CACHE_DIR=str(layout.cache / 'uv'), UV_NATIVE_TLS='1')


def create(layout: plan.Layout, log: pathlib.Path) -> bool:
    """Install the pinned versions; False if they are."""
    wanted = marks.fingerprint(plan.CONSTRAINTS) + sys.version
    have = marks.get(layout, 'venv')
    if have == wanted:
        return False
    # A half-made virtualenv can claim packages whose files are missing.
    marks.drop(layout, 'venv')
    marks.drop(layout, 'driver')
    shutil.rmtree(layout.venv, ignore_errors=True)
    command.run(['/usr/bin/python3', '-m', 'venv', layout.venv], log=log)
    command.run([layout.bin / 'pip', 'install', '--quiet', _UV], log=log)
    command.run([layout.bin / 'uv', 'pip', 'install', '--no-deps',
                 '--compile-bytecode', '--requirement', plan.CONSTRAINTS],
                log=log, env=_environment(layout))
    marks.put(layout, 'venv', wanted)
    return True


def packages(layout: plan.Layout) -> pathlib.Path:
    """Where the virtualenv has its packages."""
    return layout.venv / ('lib/python{0.major}.{0.minor}/site-packages'
                          .format(sys.version_info))


def driver_sources() -> list[pathlib.Path]:
    """The files and directories of this clone that the wheel is made of."""
    return [path for path in (plan.REPOSITORY / name for name in SOURCES)
            if path.exists()]


def install_driver(layout: plan.Layout, log: pathlib.Path) -> bool:
    """Install this clone as a wheel; False if it did not change."""
    sources = driver_sources()
    wanted = marks.fingerprint(*sources)
    if marks.get(layout, 'driver') == wanted:
        return False
    # Built from a copy, for setuptools writes beside its sources.
    build = layout.cache / 'driver'
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    for path in sources:
        if path.is_dir():
            shutil.copytree(path, build / path.name,
                            ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy2(path, build / path.name)
    env = _environment(layout)
    env['PBR_VERSION'] = f'0.1.0.dev0+{wanted[:8]}'
    command.run([layout.bin / 'uv', 'build', '--wheel',
                 '--no-build-isolation', '--python', layout.bin / 'python',
                 '--out-dir', build / 'dist', build], log=log, env=env)
    wheel, = (build / 'dist').glob('*.whl')
    marks.drop(layout, 'driver')
    command.run([layout.bin / 'uv', 'pip', 'install', '--no-deps',
                 '--compile-bytecode', '--reinstall', wheel],
                log=log, env=env)
    marks.put(layout, 'driver', wanted)
    return True
