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

"""The commands that the documentation shows."""

from collections.abc import Iterator
import dataclasses
import pathlib
import re
import shlex

_REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r'^( *)\.\. code-block:: console\n((?:\1 +.*\n|\n)+)',
                    re.MULTILINE)

# Beginnings of commands that tests/cloud/test_documentation.py does not run: a
# file that does, or why nothing does.
ELSEWHERE = {
    'pip install': 'tests/unit/test_package.py',
    'pip install --upgrade nova-container': 'tests/cloud/test_upgrade.py',
    'pip install pre-commit': 'a machine of the reader\'s own',
    'python3 -m venv': 'a machine of the reader\'s own',
    'apt-get install ../': 'tests/debian/lifecycle',
    'apt-get build-dep': 'tests/debian/lifecycle',
    'dpkg-buildpackage': 'tests/debian/lifecycle',
    'apt-get install': 'tools/onenode/packages.py',
    'apparmor_parser': 'tools/guest/files/guest-tests',
    'pre-commit': 'a clone of the reader\'s own',
    'tox': '.ci/run',
    'tools/test': '.ci/run',
    'tools/bench': 'takes an idle machine',
    'UPGRADE_FROM=': 'tests/cloud/test_upgrade.py',
    'DEVSTACK_DIR=': 'takes a clone of DevStack',
    'tools/cloud up': 'tools/suites/run.py',
    'eval': 'tests/cloud/test_documentation.py',
    'docker save': 'there is no Docker; an archive of that kind is there',
    'openstack flavor create': 'tools/onenode/api/resources.py',
    'mmdebstrap': 'tests/functional/system_image.py',
    'openstack container image push docker://':
        'there is no registry; skopeo reads it as it reads the others',
    'openstack host set': 'tests/cloud/test_moving.py',
    'openstack volume create': 'tests/cloud/test_volumes.py',
    'openstack server add volume': 'tests/cloud/test_volumes.py',
    'openstack server create --image mariadb': 'tests/cloud/test_volumes.py',
    'openstack stack snapshot': 'tests/cloud/test_heat.py',
    'openstack stack abandon': 'tests/cloud/test_heat.py',
    'openstack stack adopt': 'tests/cloud/test_heat.py',
    'websocat': 'tests/cloud/test_console.py',
    # It would end containers of others.
    'nova-container destroy-all': 'tests/functional/test_cli.py',
}

_LITERAL = re.compile(r'``((?:openstack|nova-container) [^`]+)``')


@dataclasses.dataclass(frozen=True)
class Command:
    """A line after a prompt, with those that continue it.

    :ivar root: the prompt is root's
    """

    page: str
    line: int
    root: bool
    text: str

    def __str__(self) -> str:
        return f'{self.page}:{self.line}: {self.text}'

    @property
    def elsewhere(self) -> str | None:
        """The longest beginning in ELSEWHERE."""
        return max((beginning for beginning in ELSEWHERE
                    if self.text.startswith(beginning)),
                   key=len, default=None)

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def pages() -> list[pathlib.Path]:
    """Every page, and the files that are read beside them."""
    return sorted([*_REPOSITORY.glob('doc/source/**/*.rst'),
                   *_REPOSITORY.glob('*.rst')])


def commands(page: pathlib.Path) -> Iterator[Command]:
    """The commands of a page, in its order."""
    text = page.read_text()
    name = str(page.relative_to(_REPOSITORY))
    for block in _BLOCK.finditer(text):
        first = text.count('\n', 0, block.start(2)) + 1
        joined = ''
        for offset, raw in enumerate(block[2].splitlines()):
            line = raw.strip()
            if joined:
                joined += ' ' + line
            elif line[:2] in ('$ ', '# '):
                start, root, joined = first + offset, line[0] == '#', line[2:]
            else:
                continue
            if joined.endswith('\\'):
                joined = joined[:-1].rstrip()
            else:
                yield Command(name, start, root, joined)
                joined = ''


def without_commands(page: pathlib.Path) -> str:
    """A page without the blocks that ``commands`` reads."""
    return _BLOCK.sub('', page.read_text())


def all_commands() -> list[Command]:
    """Those of every page."""
    return [command for page in pages() for command in commands(page)]


def mentioned() -> list[list[str]]:
    """The words of commands that stand in the text."""
    return [shlex.split(found) for page in pages()
            for found in _LITERAL.findall(page.read_text())
            if '...' not in found]
