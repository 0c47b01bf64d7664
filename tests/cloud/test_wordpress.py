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

"""The blog of ``tools/cloud demo wordpress``, and what becomes of it."""

from tests.cloud import base
from tests.cloud import demos


class WordPressTest(demos.DemoTestCase):

    def test_wordpress(self):
        """Write a post; it outlives what becomes of its two containers."""
        stack = self.demo('wordpress')
        blog = demos.Blog(self.outputs(stack)['address'])
        number = self.written(blog)
        before = self.physical(stack)
        servers = [self.user.compute.get_server(before[name])
                   for name in ('db', 'blog')]

        for server in servers:
            with self.subTest('ended from inside', server=server.name):
                self.end_from_inside(server)
                self.assertIn(demos.TEXT, blog.read(number))
        with self.subTest('suspended and resumed'):
            self.sleep_and_wake(stack, *servers)
            self.assertIn(demos.TEXT, blog.read(number))
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
                self.assertIn(demos.TEXT, blog.read(number))
            else:
                # Found by its name, without its data.
                self.assertIn('install.php',
                              blog.get('wp-admin/install.php'))
