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
"""cloud-init, as Debian packages it, in a machine container.

Run by name, since the image is a whole system that is built first::

    tools/test cloud -- tests.cloud.test_cloud_init
"""

import base64
import json
import uuid

from tests import archives
from tests.cloud import base
from tests.functional import system_image

_USER_DATA = '''#cloud-config
# The image has no locales.
locale: false
write_files:
  - path: /srv/written
    content: of the user
runcmd:
  - [sh, -c, "echo $(id -u) >/srv/ran"]
'''


class CloudInitTest(base.CloudTestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        layer = system_image.cloud_layer()
        cls.image = cls.upload(archives.docker_archive(
            layer, raw_config=archives.config(
                (layer,), config={'Cmd': ['/sbin/init']})))

    def test_from_the_config_drive(self):
        self.assertEqual('configdrive', self.told(config_drive=True))

    def test_from_the_metadata_service(self):
        self.assertEqual('openstack', self.told())

    def told(self, **fields) -> str:
        """Name of the data source that cloud-init has found."""
        key = self.user.compute.create_keypair(
            name=f'test-{uuid.uuid4().hex[:8]}',
            public_key='ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkK'
                       'CwwNDg8QERITFBUWFxgZGhscHR4f test')
        self.addCleanup(self.user.compute.delete_keypair, key)
        server = self.active(self.boot(
            self.image, 'c1.small', name='told', key_name=key.name,
            user_data=base64.b64encode(_USER_DATA.encode()).decode(),
            **fields))
        for _ in base.utils.iterate_timeout(300, 'at work', wait=2):
            done = self.execute(server, 'cloud-init', 'status', '--format',
                                'json', check=False)
            if done.stdout and json.loads(done.stdout)['status'] in (
                    'done', 'error', 'disabled'):
                break
        status = json.loads(done.stdout)
        self.assertEqual(('done', []), (status['status'], status['errors']))
        self.assertEqual('of the user0\n', self.execute(
            server, 'cat', '/srv/written', '/srv/ran').stdout)
        self.assertIn(key.public_key, self.execute(
            server, 'cat', '/home/debian/.ssh/authorized_keys').stdout)
        self.assertEqual('told\n', self.execute(server, 'hostname').stdout)
        # The addresses are those of Neutron, whatever it wrote about them.
        port = next(self.user.network.ports(device_id=server.id))
        addresses = self.execute(server, 'ip', 'addr').stdout
        for ip in port.fixed_ips:
            self.assertIn(f' {ip["ip_address"]}/', addresses)
        return json.loads(self.execute(
            server, 'cat', '/run/cloud-init/instance-data.json').stdout
        )['v1']['cloud_id']
