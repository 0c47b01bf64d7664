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

"""What the pages tell a reader to type, typed."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import textwrap

from openstack import utils

from tests.cloud import base
from tests import documented
from tests.functional import base as functional

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_TIMEOUT = 300

# What is read first, and what follows on which page: a container that one of
# them creates is still there in the next. Rules of security groups stay.
_CHAPTERS = (
    ('doc/source/user/first-container.rst', 'doc/source/user/console.rst'),
    ('README.rst',),
)

# Programs that succeed with another code, too: warnings.
_CODES = {'nova-container-status': (0, 1)}

# Addresses that the pages make up.
_ADDRESS = re.compile(r'172\.24\.4\.(?:x|\d+)\b')

_PARSE = """
import contextlib, io, json, sys
from openstackclient import shell
app = shell.OpenStackShell()
app.options, _ = app.parser.parse_known_args([])
app.configure_logging()
app.initialize_app([])
found = {}
for words in json.load(sys.stdin):
    text = io.StringIO()
    try:
        with contextlib.redirect_stderr(text):
            factory, name, rest = app.command_manager.find_command(words)
            # A name alone is how a text speaks of a command.
            if rest:
                factory(app, None).get_parser(name).parse_args(rest)
    except SystemExit as ended:
        if ended.code:
            found[' '.join(words)] = text.getvalue()
    except ValueError as unknown:
        found[' '.join(words)] = str(unknown)
print(json.dumps(found))
"""


class ParsingTest(base.CloudTestCase):

    def test_client_knows_the_commands(self):
        """Those in the text, too, and those that run elsewhere."""
        wanted = [words[1:] for words in (
            *(command.words for command in documented.all_commands()),
            *documented.mentioned()) if words[0] == 'openstack'
            # The client's plugin of Zun is another's.
            and words[1] != 'appcontainer']
        self.assertGreater(len(wanted), 30)
        done = subprocess.run(
            ['bash', '-c', 'eval "$(tools/cloud openrc)" && exec "$@"', '-',
             f'{base.cloud()["venv"]}/bin/python', '-c', _PARSE], text=True,
            input=json.dumps(wanted), capture_output=True, cwd=_REPOSITORY)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual({}, json.loads(done.stdout.splitlines()[-1]))


class ReaderTest(base.CloudTestCase):
    """A reader with a project of his own, who begins at the first page."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.project = cls.new_project()
        cls.reader = base.connect_to(cls.project.name)

    def setUp(self):
        super().setUp()
        self.work = pathlib.Path(self.enterContext(
            tempfile.TemporaryDirectory()))
        self.address = None
        self.node = base.cloud()['nodes'][0]

    def test_pages(self):
        self.lay_out()
        done = set()
        for chapter in (*_CHAPTERS, *(
                (str(page.relative_to(_REPOSITORY)),)
                for page in documented.pages())):
            if chapter[0] not in done:
                done.update(chapter)
                with self.subTest(chapter[0]):
                    try:
                        for page in chapter:
                            self.follow(page)
                    finally:
                        self.clear()

    def lay_out(self) -> None:
        """The files that the pages speak of."""
        for name in ('app.tar', 'busybox.tar'):
            (self.work / name).write_bytes(base.busybox_archive())
        for name in ('nginx.tar', 'web.tar'):
            shutil.copy(f'{base.cloud()["dir"]}/cache/nginx.tar',
                        self.work / name)
        (self.work / 'system.tar').write_bytes(functional.busybox_layer())
        page = (_REPOSITORY / 'doc/source/user/heat.rst').read_text()
        template = re.search(
            r'code-block:: yaml\n\n((?: +.*\n|\n)+)', page)[1]
        (self.work / 'web.yaml').write_text(textwrap.dedent(template))

    def follow(self, page: str) -> None:
        """Run the commands of a page, as they stand there."""
        user = 'admin' if '/admin/' in page else 'demo'
        for command in documented.commands(_REPOSITORY / page):
            if command.elsewhere:
                continue
            done = self.run_command(command.text, user)
            self.assertIn(done.returncode, _CODES.get(command.words[0], (0,)),
                          f'{command}: {done.stdout}{done.stderr}')
            if command.text.startswith('openstack floating ip create'):
                self.address = re.search(
                    r'floating_ip_address\s*\|\s*(\S+)', done.stdout)[1]
            if command.text.startswith('curl'):
                self.assertIn('Hello from web', done.stdout)
            self.settle(str(command))

    def run_command(self, text: str,
                    user: str) -> subprocess.CompletedProcess:
        """A command in a shell of the reader's, who agrees when asked."""
        if self.address:
            text = _ADDRESS.sub(self.address, text)
        if text.startswith('curl '):
            text += (' --noproxy "*" --silent --show-error --max-time 5'
                     ' --retry 15 --retry-delay 1 --retry-all-errors')
        if text.startswith('nova-container '):
            program, subcommand, *rest = text.split(' ', 2)
            text = ' '.join([program, subcommand, '--config-file',
                             self.node['config'], *rest])
        project = self.project.name if user == 'demo' else user
        controller, terminal = os.openpty()
        with os.fdopen(controller, 'wb'), os.fdopen(terminal) as stdin:
            os.write(controller, b'y\n')
            return subprocess.run(
                ['bash', '-c', f'eval "$({_REPOSITORY}/tools/cloud openrc '
                 f'{user})"; export OS_PROJECT_NAME={project}; {text}'],
                text=True, capture_output=True, stdin=stdin, cwd=self.work,
                timeout=_TIMEOUT)

    def settle(self, what: str) -> None:
        """Wait until the reader's servers have done what they were told."""
        for _ in utils.iterate_timeout(
                _TIMEOUT, f'a server is still at work after {what}',
                wait=0.5):
            servers = list(self.reader.compute.servers())
            self.assertNotIn('ERROR', {s.status for s in servers}, what)
            if all(s.status != 'BUILD' and s.task_state is None
                   for s in servers):
                return

    def clear(self) -> None:
        """Remove what the reader has made."""
        for stack in self.reader.orchestration.stacks():
            self.reader.orchestration.delete_stack(stack)
            for _ in utils.iterate_timeout(_TIMEOUT, 'a stack stays'):
                if not list(self.reader.orchestration.stacks()):
                    break
        for server in list(self.reader.compute.servers()):
            self.reader.compute.delete_server(server)
            self.reader.compute.wait_for_delete(server, interval=0.5,
                                                wait=_TIMEOUT)
        for address in self.reader.network.ips():
            self.reader.network.delete_ip(address)
        for image in self.reader.image.images(owner=self.project.id):
            self.reader.image.delete_image(image)
        for secret in self.reader.key_manager.secrets():
            self.reader.key_manager.delete_secret(secret.secret_id)
        self.admin.compute.enable_service(next(
            self.admin.compute.services(binary='nova-compute',
                                        host=self.node['name'])))
