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

"""What the pages tell a user to type, typed."""

import json
import pathlib
import subprocess
import uuid

from tests.cloud import base
from tests import documented

_PARSE = """
import contextlib, io, json, sys
from openstackclient import shell
app = shell.OpenStackShell()
app.initialize_app([])
found = {}
for words in json.load(sys.stdin):
    text = io.StringIO()
    try:
        with contextlib.redirect_stderr(text):
            factory, name, rest = app.command_manager.find_command(words)
            factory(app, None).get_parser(name).parse_args(rest)
    except SystemExit as ended:
        if ended.code:
            found[' '.join(words)] = text.getvalue()
    except ValueError as unknown:
        found[' '.join(words)] = str(unknown)
print(json.dumps(found))
"""
_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def _openrc() -> str:
    return subprocess.run([_REPOSITORY / 'tools/cloud', 'openrc'], text=True,
                          capture_output=True, check=True).stdout


class DocumentationTest(base.CloudTestCase):

    def test_clients_know_their_commands(self):
        """Each openstack command has the options that it is shown with."""
        wanted = [command.words[1:] for command in documented.all_commands()
                  if command.words[0] == 'openstack']
        self.assertGreater(len(wanted), 10)
        done = subprocess.run(
            ['bash', '-c', f'{_openrc()}\nexec '
             f'{base.cloud()["venv"]}/bin/python -c "$0"', _PARSE],
            input=json.dumps(wanted), text=True, capture_output=True)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual({}, json.loads(done.stdout.splitlines()[-1]))

    def test_the_first_container(self):
        """The page's commands, one after another as they stand there.

        But for what is different each time: the address that the cloud gives.
        """
        name = f'web{uuid.uuid4().hex[:6]}'
        page = _REPOSITORY / 'doc/source/user/first-container.rst'
        address = 'ADDRESS'
        self.addCleanup(self.remove, name)
        for command in documented.commands(page):
            text = command.text.replace('172.24.4.30', address)
            if text.startswith('openstack server create'):
                text = text.removesuffix(' web') + f' --wait {name}'
            text = ' '.join(name if word == 'web' else word
                            for word in text.split(' '))
            if text.startswith('curl '):
                text += (' --noproxy "*" --silent --retry 30'
                         ' --retry-all-errors')
            done = subprocess.run(
                ['bash', '-c', f'{_openrc()}\n{text}'], text=True,
                capture_output=True, timeout=300)
            self.assertEqual(0, done.returncode,
                             f'{command}: {done.stdout}{done.stderr}')
            if text.startswith('openstack floating ip create'):
                address = next(
                    line.split('|')[2].strip()
                    for line in done.stdout.splitlines()
                    if 'floating_ip_address' in line)
                self.addCleanup(self.user.network.delete_ip,
                                self.user.network.find_ip(address))
            if text.startswith('curl '):
                self.assertIn(f'Hello from {name}', done.stdout)

    def remove(self, name: str) -> None:
        server = self.user.compute.find_server(name)
        if server is not None:
            self.delete(server)
