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

from openstack.orchestration.util import template_utils
from openstack import utils

from tests.cloud import base
from tests.cloud import stacks
from tests.cloud import test_dashboard

_BUILD_TIMEOUT = 1800

_PASSWORD = 'not a secret of anyone'
_TITLE = 'What was written before'
_TEXT = 'The database is replaced, and this stays.'


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


class TemplatesTest(DemoTestCase):

    def again(self, stack, template: str, **parameters):
        """The stack, updated with its template and other parameters."""
        files, content = template_utils.get_template_contents(
            template_file=str(stacks.TEMPLATES / template))
        return self.update(stack, content, files, **parameters)

    def written(self, blog: Blog) -> int:
        """Install a blog, and publish a post; its number."""
        self.assertIn('Success!', blog.install())
        self.assertIn('Dashboard', blog.log_in())
        number = blog.write(_TITLE, _TEXT)
        self.assertIn(_TEXT, blog.read(number))
        return number

    def test_wordpress(self):
        """Write a post; it outlives what becomes of its two containers."""
        stack = self.demo('wordpress')
        blog = Blog(self.outputs(stack)['address'])
        number = self.written(blog)
        before = self.physical(stack)
        servers = [self.user.compute.get_server(before[name])
                   for name in ('db', 'blog')]

        for server in servers:
            with self.subTest('ended from inside', server=server.name):
                self.end_from_inside(server)
                self.assertIn(_TEXT, blog.read(number))
        with self.subTest('suspended and resumed'):
            self.sleep_and_wake(stack, *servers)
            self.assertIn(_TEXT, blog.read(number))
        with self.subTest('the database replaced'):
            volumes = base.cloud()['volumes']
            self.assertEqual(volumes, 'data' in before)
            stack = self.again(stack, 'wordpress_mysql.yaml',
                               database_generation='2',
                               volume_size=int(volumes))
            after = self.physical(stack)
            self.assertEqual({'db'}, {name for name in before
                                      if before[name] != after[name]})
            if volumes:
                self.assertIn(_TEXT, blog.read(number))
            else:
                # Found by its name, without its data.
                self.assertIn('install.php',
                              blog.get('wp-admin/install.php'))

    def test_wordpress_from_a_compose_file(self):
        """Three blogs of one database have the same post."""
        stack = self.demo('wordpress-compose')
        number = self.written(Blog(self.outputs(stack)['address']))
        stack = self.again(stack, 'wordpress_mysql_compose.yaml', size=3)
        addresses = {name: address for name, address in self.outputs(
            stack)['addresses'].items() if address}
        self.assertEqual({'blog', 'blog-2', 'blog-3'}, addresses.keys())
        for address in addresses.values():
            self.assertIn(_TEXT, Blog(f'http://{address}/').content(number))

    def test_wordpress_with_the_password_from_the_log(self):
        stack = self.demo('wordpress-log')
        self.assertIn('Success!',
                      Blog(self.outputs(stack)['address']).install())

    def test_web_tier(self):
        """Balanced; then three of another image."""
        stack = self.demo('web-tier')
        address = self.outputs(stack)['address']
        self.assertIn('Hello from web-', Blog(address).get())
        balancer = self.physical(stack)['balancer']
        stack = self.again(
            stack, 'web_tier.yaml', size=3, image=self.upload(
                base.busybox_archive(config={'Cmd': [
                    '/bin/sh', '-c', 'mkdir -p /w; hostname >/w/index.html; '
                    'exec httpd -f -h /w'], 'StopSignal': 'KILL'})))
        self.assertEqual(balancer, self.physical(stack)['balancer'])
        found = set()
        for _ in utils.iterate_timeout(
                60, 'not every server is asked', wait=0.2):
            found.add(Blog(address).get().strip())
            if found == {'web-0', 'web-1', 'web-2'}:
                break

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


class PanelTest(DemoTestCase, test_dashboard.PanelTestCase):

    def test_wordpress(self):
        """The template in Horizon, and the blog in the same window."""
        # For its images.
        self.remove(self.demo('wordpress-log'))
        stack = self.launch((stacks.TEMPLATES / 'wordpress_mysql.yaml'
                             ).read_text())
        nodes = self.topology(stack)
        self.assertEqual({'CREATE_COMPLETE'}, set(nodes.values()))
        self.assertLessEqual({'blog', 'db', 'network', 'password'},
                             nodes.keys())
        self.visit(stack)
        self.browser.find('body', 'Welcome')
        self.browser.picture('wordpress')
