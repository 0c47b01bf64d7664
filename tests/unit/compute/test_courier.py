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

import io
import os
import tempfile
from unittest import mock

from keystoneauth1 import exceptions as keystone_exception

from nova_container.compute import courier
from nova_container import exception
from tests.unit import base


class IndexTest(base.TestCase):

    def file(self, content: bytes) -> int:
        file = tempfile.TemporaryFile()
        self.addCleanup(file.close)
        file.write(content)
        file.flush()
        return file.fileno()

    def test_found_behind_the_parts(self):
        index = courier.Index('{"os": "linux"}', (
            courier.Part('upper', 'sha256:' + '0' * 64, 0, 7),
            courier.Part('', 'sha256:' + '1' * 64, 7, 3)))
        fd = self.file(b'partone' + b'two' + index.encode())
        self.assertEqual(index, courier.Index.read(fd))

    def test_refuses_what_has_none(self):
        whole = courier.Index('{}', ()).encode()
        for content in (b'', b'x', b'x' * 100, whole[1:], whole[:-1],
                        whole[:-8] + b'\xff' * 8,
                        b'[]' + (2).to_bytes(8, 'big'),
                        b'{}' + (2).to_bytes(8, 'big'),
                        b'{"config": 1, "parts": [{"tree": 1}]}'
                        + (37).to_bytes(8, 'big')):
            with self.assertRaises(exception.ImageInvalid):
                courier.Index.read(self.file(content))

    def test_position_of_the_file_stays(self):
        fd = self.file(b'abc' + courier.Index('{}', ()).encode())
        os.lseek(fd, 1, os.SEEK_SET)
        courier.Index.read(fd)
        self.assertEqual(1, os.lseek(fd, 0, os.SEEK_CUR))


class Glance:
    """As the API shows it to an administrator: everybody's, newest first."""

    def __init__(self):
        self.images = []

    def add(self, owner, **fields):
        """An image of a server that moves; its id."""
        number = str(len(self.images))
        self.images.insert(0, {
            'id': number, 'name': 'nova-container-transfer-u',
            'os_hidden': 'true', 'status': 'active', 'owner': owner,
            **fields})
        return number

    def get_all(self, context, filters):
        return [image for image in self.images
                if all(image[name] == value
                       for name, value in filters.items())]

    def delete(self, context, image_id):
        self.images = [image for image in self.images
                       if image['id'] != image_id]


class CourierTest(base.TestCase):
    """Any tenant may give an image of his the name of a server's archive."""

    def setUp(self):
        super().setUp()
        self.glance = Glance()
        self.session = mock.Mock()
        self.session.get_project_id.return_value = 'service'
        for where, name, fake in (
                (courier.glance, 'API', lambda: self.glance),
                (courier, 'service_context', mock.Mock()),
                (courier.service_auth, 'get_service_auth_session',
                 lambda group, auth: self.session),
                (courier.layer_images, 'download',
                 lambda context, image_id, file: file.write(image_id))):
            patch = mock.patch.object(where, name, fake)
            patch.start()
            self.addCleanup(patch.stop)
        self.courier = courier.Courier()
        self.server = mock.Mock(uuid='u')

    def fetched(self):
        file = io.StringIO()
        self.courier.fetch(self.server, file)
        return file.getvalue()

    def test_fetches_what_a_host_has_sent(self):
        sent = self.glance.add('service')
        self.glance.add('tenant')
        self.assertEqual(sent, self.fetched())

    def test_nothing_was_sent_but_by_a_tenant(self):
        self.glance.add('tenant')
        self.assertFalse(self.courier.waiting(self.server))
        with self.assertRaisesRegex(exception.TransferFailed, 'not in Gla'):
            self.fetched()

    def test_removes_only_what_a_host_has_sent(self):
        theirs = self.glance.add('tenant')
        self.glance.add('service', status='queued')
        self.courier.remove(self.server.uuid)
        self.assertEqual([theirs],
                         [image['id'] for image in self.glance.images])

    def test_user_of_no_project(self):
        self.session.get_project_id.return_value = None
        self.glance.add(None)
        with self.assertRaisesRegex(exception.OperatorError, 'project'):
            self.fetched()

    def test_keystone_is_away(self):
        self.session.get_project_id.side_effect = (
            keystone_exception.ConnectFailure('no route'))
        with self.assertRaisesRegex(exception.TransferFailed, 'Keystone'):
            self.courier.remove(self.server.uuid)
        self.courier.forget(self.server.uuid)
