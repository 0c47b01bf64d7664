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

import ast
import contextlib
import importlib.metadata
import io
import pathlib
import re
import unittest

import nova.exception
import nova.virt.driver
import oslo_rootwrap.cmd

from nova_container.cli import main
from tests import documented

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Where messages come from that are not ours.
_OTHERS = [pathlib.Path(module.__file__) for module in (
    nova.exception, nova.virt.driver, oslo_rootwrap.cmd)]
_ASSIGNMENT = re.compile(r'^[A-Z_]+=')


def _words(command: documented.Command) -> list[str]:
    words = command.words
    while _ASSIGNMENT.match(words[0]):
        words.pop(0)
    for number, word in enumerate(words):
        if word in ('|', '>', '<', '&&', ';', '2>&1'):
            return words[:number]
    return words


class CommandsTest(unittest.TestCase):
    """A command that is shown can be typed."""

    def test_programs_exist(self):
        self.assertGreater(len(documented.all_commands()), 20)
        ours = {script.name for script in importlib.metadata.entry_points(
            group='console_scripts')}
        for command in documented.all_commands():
            with self.subTest(str(command)):
                program = _words(command)[0]
                if program.startswith('tools/'):
                    self.assertTrue((_REPOSITORY / program).exists())
                elif program.startswith('nova-container'):
                    self.assertIn(program, ours)

    def test_options_of_the_host_tool(self):
        """Those in the text, too, unless they are names or patterns."""
        for words in (*map(_words, documented.all_commands()),
                      *(words for words in documented.mentioned()
                        if len(words) > 2
                        and not any(word.isupper() for word in words))):
            if words[0] != 'nova-container':
                continue
            with self.subTest(words):
                refused = io.StringIO()
                try:
                    with contextlib.redirect_stderr(refused):
                        main._parser().parse_args(words[1:])
                except SystemExit:
                    self.fail(refused.getvalue())

    def test_suites_and_parts_of_the_cloud(self):
        for command in documented.all_commands():
            words = _words(command)
            if words[0] != 'tools/test':
                continue
            with self.subTest(str(command)):
                tox = (_REPOSITORY / 'tox.ini').read_text()
                for word in words[1:]:
                    if word == '--':
                        break
                    self.assertRegex(tox, rf'\[testenv:[^]]*\b{word}\b')

    def test_what_runs_elsewhere(self):
        """Each exception is one still, and says where to look."""
        used = {command.elsewhere for command in documented.all_commands()}
        self.assertEqual(set(documented.ELSEWHERE), used - {None})
        for beginning, where in documented.ELSEWHERE.items():
            if ' ' not in where:
                with self.subTest(beginning):
                    self.assertTrue((_REPOSITORY / where).exists())

    def test_no_command_in_another_kind_of_block(self):
        """There nothing would look at it."""
        for page in documented.pages():
            shown = documented.without_commands(page)
            with self.subTest(page.name):
                self.assertNotRegex(
                    shown, r'(?m)code-block:: (ba)?sh|^ +[$#] [a-z]')


class TroubleshootingTest(unittest.TestCase):

    def test_messages(self):
        """What a reader looks for is what is printed."""
        page = _REPOSITORY / 'doc/source/admin/troubleshooting.rst'
        said = '\n'.join(
            node.value for path in (
                *(_REPOSITORY / 'nova_container').rglob('*.py'),
                *_OTHERS) for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str))
        heads = re.findall(r'^(``.*)\n    \S', page.read_text(), re.MULTILINE)
        self.assertGreater(len(heads), 8)
        for message in re.findall('``(.+?)``', ' '.join(heads)):
            with self.subTest(message):
                self.assertNotEqual(-1, said.find(message))


class PagesTest(unittest.TestCase):

    def test_test_names_exist(self):
        """tests.unit.oci and the like, wherever they are mentioned."""
        for page in documented.pages():
            for name in re.findall(r'\btests\.(?:unit|functional|cloud)'
                                   r'(?:\.\w+)*', page.read_text()):
                path = _REPOSITORY / name.replace('.', '/')
                with self.subTest(f'{page.name}: {name}'):
                    self.assertTrue(path.is_dir()
                                    or path.with_suffix('.py').exists())

    def test_files_exist(self):
        """Paths of this repository, wherever they are mentioned."""
        for page in documented.pages():
            for name in re.findall(
                    r'``((?:nova_container|tests|tools|devstack|doc)/'
                    r'[\w./-]+)``', page.read_text()):
                with self.subTest(f'{page.name}: {name}'):
                    self.assertTrue((_REPOSITORY / name).exists())
