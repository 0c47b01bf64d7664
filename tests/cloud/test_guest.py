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

import base64
import json
import uuid

from tests.cloud import base
from tests.cloud import terminal

_DRIVE = '/config-drive/openstack/latest'
_SERVICE = 'http://169.254.169.254/openstack/latest'


class GuestTest(base.CloudTestCase):
    """What a server is told about itself."""

    def test_config_drive_key_and_metadata_service(self):
        key = self.user.compute.create_keypair(
            name=f'test-{uuid.uuid4().hex[:8]}',
            public_key='ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkK'
                       'CwwNDg8QERITFBUWFxgZGhscHR4f test')
        self.addCleanup(self.user.compute.delete_keypair, key)
        said = '#cloud-config\nruncmd: [echo, "it\'s me"]\n'
        server = self.active(self.boot(
            self.busybox(), name='Told It All', config_drive=True,
            key_name=key.name, metadata={'container:user': '0',
                                         'owner': 'test'},
            user_data=base64.b64encode(said.encode()).decode()))
        shell = self.enterContext(terminal.of(self.user, server))
        told = json.loads(shell.run(f'cat {_DRIVE}/meta_data.json'))
        asked = json.loads(shell.run(f'wget -qO- {_SERVICE}/meta_data.json'))
        for found in (told, asked):
            self.assertEqual(server.id, found['uuid'])
            self.assertEqual('test', found['meta']['owner'])
            self.assertEqual({key.name: key.public_key},
                             found['public_keys'])
        self.assertEqual(server.admin_password, told['admin_pass'])
        self.assertNotIn('admin_pass', asked)
        for command in (f'cat {_DRIVE}/user_data',
                        f'wget -qO- {_SERVICE}/user_data'):
            self.assertEqual(said, shell.run(command))
        network = json.loads(shell.run(f'cat {_DRIVE}/network_data.json'))
        port = next(self.user.network.ports(device_id=server.id))
        self.assertEqual([port.mac_address], [
            link['ethernet_mac_address'] for link in network['links']])
        self.assertEqual(f'{key.public_key}\n',
                         shell.run('cat /root/.ssh/authorized_keys'))
        # Secrets in it are for root, and nobody can change it.
        self.assertEqual('400 0\n', shell.run(
            f'stat -c "%a %u" {_DRIVE}/meta_data.json'))
        with self.assertRaises(AssertionError):
            shell.run(f'rm -f {_DRIVE}/meta_data.json')
        with self.assertRaises(AssertionError):
            shell.run(f'su web -c "cat {_DRIVE}/meta_data.json"')
        hosts = shell.run('cat /etc/hosts /etc/hostname; hostname')
        self.assertIn('told-it-all\ntold-it-all\n', hosts)
        for ip in port.fixed_ips:
            self.assertIn(f'{ip["ip_address"]} told-it-all\n', hosts)

    def test_injected_files(self):
        """As "nova boot --file" has them, of clients before 2.57."""
        files = {'/etc/app/app.conf': 'size=3\n', '/etc/motd': 'welcome\n'}
        server = self.injected(files)
        self.active(server)
        for path, content in files.items():
            self.assertEqual(content, self.execute(server, 'cat',
                                                   path).stdout)
        told = self.execute(server, 'cat', f'{_DRIVE}/meta_data.json').stdout
        self.assertEqual(set(files), {
            file['path'] for file in json.loads(told)['files']})
        # They are the server's own from then on.
        self.execute(server, 'sh', '-c',
                     'echo size=4 >/etc/app/app.conf; rm /etc/motd')
        self.user.compute.reboot_server(server, 'HARD')
        self.assertEqual('ACTIVE', self.settled(server))
        self.assertEqual('size=4\n', self.execute(
            server, 'cat', '/etc/app/app.conf').stdout)
        self.assertNotEqual(0, self.execute(
            server, 'cat', '/etc/motd', check=False).returncode)
        # What the drive says only once is still on it.
        self.assertEqual(told, self.execute(
            server, 'cat', f'{_DRIVE}/meta_data.json').stdout)
        self.assertIn('admin_pass', told)
        self.assertIn('/etc/passwd/x', self.fault(self.injected(
            {'/etc/passwd/x': 'no directory'})))

    def injected(self, files: dict[str, str]):
        answer = self.user.compute.post('/servers', microversion='2.1', json={
            'server': {
                'name': 'test', 'imageRef': self.busybox(),
                'flavorRef': self.user.compute.find_flavor('c1.tiny').id,
                'networks': [{'uuid': self.network.id}], 'config_drive': True,
                'metadata': {'container:stop_signal': 'SIGKILL'},
                'personality': [
                    {'path': path,
                     'contents': base64.b64encode(content.encode()).decode()}
                    for path, content in files.items()]}})
        self.assertEqual(202, answer.status_code, answer.text)
        server = self.user.compute.get_server(answer.json()['server']['id'])
        self.addCleanup(self.delete, server)
        return server
