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

"""Every template, brought up by ``tools/cloud demo`` and used.

Their images are built from Debian's packages, which takes minutes, so this
runs by name.
"""

import json
import subprocess
from urllib import parse
from urllib import request

from openstack import utils

from tests.cloud import base
from tests.cloud import stacks

_PASSWORD = 'not a secret of anyone'
_TITLE = 'What was written before'
_TEXT = 'The database is replaced, and this stays.'


class Blog:
    """A visitor with a browser that keeps cookies.

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

    def write(self, title: str, text: str) -> str:
        """Publish a post; the path of its page."""
        nonce = self.get('wp-admin/admin-ajax.php?action=rest-nonce')
        made = json.loads(self._open(request.Request(
            self._address + 'index.php?rest_route=/wp/v2/posts',
            json.dumps({'title': title, 'content': text,
                        'status': 'publish'}).encode(),
            {'X-WP-Nonce': nonce, 'Content-Type': 'application/json'})))
        return f'?p={made["id"]}'


class TemplatesTest(stacks.StackTestCase):

    def demo(self, name: str):
        """The stack of a demo; removed after the test."""
        self.addCleanup(self.remove_by_name, name)
        done = subprocess.run([base._CLOUD, 'demo', name], text=True,
                              capture_output=True)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        found = next(self.user.orchestration.stacks(name=name))
        return self.user.orchestration.get_stack(found.id)

    def remove_by_name(self, name: str) -> None:
        for stack in self.user.orchestration.stacks(name=name):
            self.remove(stack)

    def again(self, stack, template: str, **parameters):
        """The stack, updated with its template and other parameters."""
        return self.update(stack, (stacks.TEMPLATES / template).read_text(),
                           **parameters)

    def test_wordpress(self):
        """Install it, write a post, replace the database, read the post."""
        stack = self.demo('wordpress')
        blog = Blog(self.outputs(stack)['address'])
        self.assertIn('Success!', blog.install())
        self.assertIn('Dashboard', blog.log_in())
        page = blog.write(_TITLE, _TEXT)
        self.assertIn(_TEXT, blog.get(page))

        before = self.physical(stack)
        volumes = base.cloud()['volumes']
        self.assertEqual(volumes, 'data' in before)
        stack = self.again(stack, 'wordpress_mysql.yaml',
                           database_generation='2', volume_size=int(volumes))
        after = self.physical(stack)
        self.assertEqual({'db'}, {name for name in before
                                  if before[name] != after[name]})
        # Found by its name, also where it is another one without its data.
        self.assertIn(_TEXT if volumes else 'install.php',
                      blog.get(page if volumes else 'wp-admin/install.php'))

    def test_wordpress_from_a_compose_file(self):
        stack = self.demo('wordpress-compose')
        blog = Blog(self.outputs(stack)['address'])
        self.assertIn('Success!', blog.install())
        self.assertIn('Dashboard', blog.log_in())

    def test_wordpress_with_the_password_from_the_log(self):
        stack = self.demo('wordpress-log')
        self.assertIn('Success!',
                      Blog(self.outputs(stack)['address']).install())

    def test_web_tier(self):
        """Balanced; more of it; another image; asleep and awake."""
        stack = self.demo('web-tier')
        address = self.outputs(stack)['address']
        self.assertIn('Welcome to nginx', Blog(address).get())
        balancer = self.physical(stack)['balancer']

        with self.subTest('three servers of another image'):
            stack = self.again(stack, 'web_tier.yaml', size=3,
                               image=self.busybox())
            self.assertEqual(balancer, self.physical(stack)['balancer'])
            servers = [server for server in self.user.compute.servers()
                       if server.image.id == self.busybox()]
            self.assertEqual(3, len(servers))

    def test_auto_scaling(self):
        stack = self.demo('auto-scaling')
        self.assertEqual(1, len(self.outputs(stack)['addresses']))
        for policy, size in (('grow', 2), ('shrink', 1)):
            with self.subTest(policy):
                self.signal(stack, policy)
                for _ in utils.iterate_timeout(
                        120, f'{policy} does nothing', wait=1):
                    found = self.user.orchestration.get_stack(stack.id)
                    if len(self.outputs(found)['addresses']) == size:
                        break

    def signal(self, stack, name: str) -> None:
        answer = self.user.orchestration.post(
            f'/stacks/{stack.name}/{stack.id}/resources/{name}/signal')
        self.assertEqual(200, answer.status_code, answer.text)

    def test_redis_and_worker(self):
        stack = self.demo('redis-worker')
        for _ in utils.iterate_timeout(60, 'the job is not done', wait=1):
            found = self.user.orchestration.get_stack(stack.id)
            if 'done: a first job' in self.outputs(found)['log']:
                break
