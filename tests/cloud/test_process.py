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

from tests.cloud import base


class FeedbackTest(base.CloudTestCase):
    """What the driver does when a process ends, and what it says of it."""

    def await_metadata(self, server, **wanted) -> None:
        """Wait until the server's metadata says so."""
        wanted = {f'container:{key}': value for key, value in wanted.items()}
        for _ in base.utils.iterate_timeout(
                120, f'{wanted} is not in the metadata', wait=0.5):
            if wanted.items() <= self.user.compute.get_server(
                    server).metadata.items():
                return

    def test_exit_code_and_reason(self):
        server = self.boot(self.busybox(), metadata={
            'container:command': '/bin/sh -c "sleep 2; exit 7"'})
        self.status(server, 'SHUTOFF')
        self.await_metadata(server, exit_code='7',
                            exit_reason='exited with code 7')

    def test_started_again_as_often_as_asked_for(self):
        server = self.boot(self.busybox(), metadata={
            'container:command': '/bin/sh -c "echo one try; exit 1"',
            'container:restart': 'on-failure:2'})
        self.status(server, 'SHUTOFF')
        self.assertEqual(3, self.console(server).count('one try'))

    def test_started_again_keeps_its_network(self):
        server = self.boot(self.busybox(), metadata={
            'container:command':
                '/bin/sh -c "ping -c1 -W5 10.0.0.1 && echo reached; '
                'sleep 1; exit 1"',
            'container:restart': 'always'})
        self.active(server)
        for _ in base.utils.iterate_timeout(120, 'not twice', wait=0.5):
            if self.console(server).count('reached') > 1:
                break

    def test_health(self):
        image = self.upload(base.busybox_archive(config={
            'Cmd': ['/bin/sleep', '1000000'],
            'Healthcheck': {'Test': ['CMD', '/bin/true'],
                            'Interval': 1000000000}}))
        self.await_metadata(self.active(self.boot(image)), health='healthy')
