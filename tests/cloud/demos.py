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

"""Stacks of ``tools/cloud demo``, and the blog that some of them are."""

import json
import subprocess
from urllib import parse
from urllib import request

from openstack.orchestration.util import template_utils

from tests.cloud import base
from tests.cloud import stacks

_BUILD_TIMEOUT = 1800

_PASSWORD = 'not a secret of anyone'
_TITLE = 'What was written before'
TEXT = 'The database is replaced, and this stays.'


class Blog:
    """A visitor of a web site with a browser that keeps cookies.

    :param address: http://HOST/
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._browser = request.build_opener(
            # None, or it would be that of the surroundings.
            request.ProxyHandler({}), request.HTTPCookieProcessor())

    def get(self, path: str = '') -> str:
        """The text of a page."""
        return self._open(self._address + path)

    def post(self, path: str, **fields: str) -> str:
        """What a form answers."""
        return self._open(self._address + path,
                          parse.urlencode(fields).encode())

    def _open(self, *what) -> str:
        with self._browser.open(*what, timeout=60) as answer:
            return answer.read().decode()

    def install(self) -> str:
        """Go through WordPress's own installation."""
        return self.post('wp-admin/install.php?step=2',
                         weblog_title='A blog of containers',
                         user_name='author', admin_password=_PASSWORD,
                         admin_password2=_PASSWORD, pw_weak='on',
                         admin_email='author@example.org', blog_public='0')

    def log_in(self) -> str:
        self.get('wp-login.php')
        return self.post('wp-login.php', log='author', pwd=_PASSWORD,
                         testcookie='1')

    def write(self, title: str, text: str) -> int:
        """Publish a post; its number."""
        nonce = self.get('wp-admin/admin-ajax.php?action=rest-nonce')
        made = json.loads(self._open(request.Request(
            self._address + 'index.php?rest_route=/wp/v2/posts',
            json.dumps({'title': title, 'content': text,
                        'status': 'publish'}).encode(),
            {'X-WP-Nonce': nonce, 'Content-Type': 'application/json'})))
        return made['id']

    def read(self, number: int) -> str:
        """The page of a post."""
        return self.get(f'?p={number}')

    def content(self, number: int) -> str:
        """A post as this blog itself has it, whatever its address is."""
        return self.get(f'index.php?rest_route=/wp/v2/posts/{number}')


class DemoTestCase(stacks.StackTestCase):

    def demo(self, name: str):
        """The stack of a demo; removed after the test."""
        self.addCleanup(self.remove_by_name, name)
        done = subprocess.run([base._CLOUD, 'demo', name], text=True,
                              capture_output=True, timeout=_BUILD_TIMEOUT)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        found = next(self.user.orchestration.stacks(name=name))
        return self.user.orchestration.get_stack(found.id)

    def remove_by_name(self, name: str) -> None:
        for stack in self.user.orchestration.stacks(name=name):
            self.remove(stack)

    def again(self, stack, template: str, **parameters):
        """The stack, updated with its template and other parameters."""
        files, content = template_utils.get_template_contents(
            template_file=str(stacks.TEMPLATES / template))
        return self.update(stack, content, files, **parameters)

    def written(self, blog: Blog) -> int:
        """Install a blog, and publish a post; its number."""
        self.assertIn('Success!', blog.install())
        self.assertIn('Dashboard', blog.log_in())
        number = blog.write(_TITLE, TEXT)
        self.assertIn(TEXT, blog.read(number))
        return number
