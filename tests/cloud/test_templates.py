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

"""Every other template, brought up by ``tools/cloud demo`` and used.

Their images are built from Debian's packages, which takes minutes, so this
runs by name.
"""

from openstack import utils
from oslo_utils import timeutils

from tests.cloud import base
from tests.cloud import demos
from tests.cloud import stacks
from tests.cloud import test_dashboard


class TemplatesTest(demos.DemoTestCase):

    def test_wordpress_from_a_compose_file(self):
        """Three blogs of one database have the same post."""
        stack = self.demo('wordpress-compose')
        number = self.written(demos.Blog(self.outputs(stack)['address']))
        stack = self.again(stack, 'wordpress_mysql_compose.yaml', size=3)
        addresses = {name: address for name, address in self.outputs(
            stack)['addresses'].items() if address}
        self.assertEqual({'blog', 'blog-2', 'blog-3'}, addresses.keys())
        for address in addresses.values():
            blog = demos.Blog(f'http://{address}/')
            self.assertIn(demos.TEXT, blog.content(number))

    def test_wordpress_with_the_password_from_the_log(self):
        stack = self.demo('wordpress-log')
        self.assertIn('Success!',
                      demos.Blog(self.outputs(stack)['address']).install())

    def test_web_tier(self):
        """Balanced; then three of another image."""
        stack = self.demo('web-tier')
        address = self.outputs(stack)['address']
        self.assertIn('Hello from web-', demos.Blog(address).get())
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
            found.add(demos.Blog(address).get().strip())
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
                    if (len(self.outputs(found)['addresses']) == size
                            and not self.scales(stack, policy)):
                        break

    def scales(self, stack, policy: str) -> bool:
        """Whether Heat passes over signals, for it scales or has just done.
        """
        for name in ('group', policy):
            found = self.user.orchestration.get(
                f'/stacks/{stack.name}/{stack.id}/resources/{name}/metadata'
            ).json()['metadata']
            now = timeutils.utcnow().isoformat()
            if found.get('scaling_in_progress') or any(
                    now < end for end in found.get('cooldown_end', ())):
                return True
        return False

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


class PanelTest(demos.DemoTestCase, test_dashboard.PanelTestCase):

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
