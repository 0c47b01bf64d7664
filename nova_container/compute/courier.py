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

"""What a container has written, on its way to another host by way of Glance.

Compute hosts need not trust each other, nor reach each other: the disks of a
container become a hidden image that belongs to the service's project, so that
no tenant sees, reads or removes it. It is found by the server's id alone, so a
host that was restarted half way can go on or clean up. Whoever gives an image
of his own that name gets nowhere: what belongs to others is not looked at.

::

    part part ... index length      as an archive; each part is a compressed
                                    tar of one tree, or one layer
"""

import contextlib
import dataclasses
import json
import os
import struct
import typing

import glanceclient.exc
from keystoneauth1 import exceptions as keystone_exception
from nova import context as nova_context
from nova import exception as nova_exception
from nova.image import glance
from nova import service_auth
from oslo_config import cfg
from oslo_log import log

from nova_container.compute import layer_images
from nova_container.compute import upload
from nova_container import exception

CONF = cfg.CONF
LOG = log.getLogger(__name__)

_GROUP = 'service_user'
_LENGTH = struct.Struct('>Q')
_INDEX_MAX = 4 << 20

PROPERTY = 'container_transfer'


@dataclasses.dataclass(frozen=True)
class Part:
    """One blob of the archive.

    :param tree: the directory it fills; '' for a layer
    :param diff_id: digest of its tar
    :param offset: where it starts, bytes
    :param size: as stored, bytes
    """

    tree: str
    diff_id: str
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Index:
    """What is in the archive, and what it is made for.

    :param config: the configuration of the image that the container is made
        of; those of its layers that are no part of the archive are to be had
        from that image
    """

    config: str
    parts: tuple[Part, ...]

    def encode(self) -> bytes:
        """As the end of the archive."""
        text = json.dumps(dataclasses.asdict(self)).encode()
        return text + _LENGTH.pack(len(text))

    @classmethod
    def read(cls, fd: int) -> 'Index':
        """The index of an archive.

        :raises ImageInvalid: it has none
        """
        size = os.fstat(fd).st_size
        try:
            (length,) = _LENGTH.unpack(
                os.pread(fd, _LENGTH.size, size - _LENGTH.size))
            if length > min(size, _INDEX_MAX):
                raise ValueError(f'an index of {length} bytes')
            found = json.loads(os.pread(fd, length,
                                        size - _LENGTH.size - length))
            return cls(config=found['config'],
                       parts=tuple(Part(**part) for part in found['parts']))
        except (OSError, ValueError, KeyError, TypeError, struct.error) as e:
            raise exception.ImageInvalid(
                f'the transfer archive has no index: {e}')


def _name(instance_uuid: str) -> str:
    return f'nova-container-transfer-{instance_uuid}'


def service_context() -> nova_context.RequestContext:
    """The service's own user, as Nova's Glance client takes it.

    :raises OperatorError: nova.conf does not name one
    """
    if not CONF[_GROUP].auth_type:
        raise exception.OperatorError(
            f'moving a container needs the section [{_GROUP}] of nova.conf, '
            'with which this host stores it in Glance')
    return nova_context.RequestContext(
        user_auth_plugin=service_auth.get_service_auth_plugin(_GROUP),
        is_admin=True)


def service_project() -> str:
    """Id of the project that the service's own user works in.

    :raises OperatorError: nova.conf does not name one
    """
    auth = service_context().user_auth_plugin
    project = service_auth.get_service_auth_session(
        _GROUP, auth).get_project_id(auth)
    if not project:
        raise exception.OperatorError(
            f'moving a container needs a project in the section [{_GROUP}] of '
            'nova.conf, the same on every host')
    return project


def authorized(context) -> nova_context.RequestContext:
    """A context that Glance knows: at the start of the service Nova's own
    has no token, and then it is the service's user's turn.
    """
    if context.auth_token or context.user_auth_plugin:
        return context
    return service_context()


class Courier:
    """Sends and fetches transfer archives as the service's own user."""

    def __init__(self):
        self._glance = glance.API()

    @contextlib.contextmanager
    def _speaking(self, what: str):
        try:
            yield
        except exception.ContainerError:
            raise
        except (nova_exception.NovaException, glanceclient.exc.ClientException,
                keystone_exception.ClientException, OSError) as e:
            raise exception.TransferFailed(
                f'{what} failed: {e}; see that Glance and Keystone run')

    def send(self, instance, file) -> None:
        """Upload an archive.

        :param file: open for reading, at its start
        :raises TransferFailed: Glance did not take it
        """
        with self._speaking(f'storing server {instance.uuid} in Glance'):
            self.remove(instance.uuid)
            data = upload.Counted(file)
            upload.require_whole(self._glance.create(service_context(), {
                'name': _name(instance.uuid), 'container_format': 'docker',
                'disk_format': 'raw', 'is_public': False, 'os_hidden': True,
                'properties': {PROPERTY: instance.uuid}}, data=data), data)

    def _images(self, server: str) -> list[dict]:
        owner = service_project()
        found = self._glance.get_all(service_context(), filters={
            'name': _name(server), 'os_hidden': 'true',
            'owner': owner})
        return [image for image in found if image.get('owner') == owner]

    def waiting(self, instance) -> bool:
        """Whether an archive of a server is there to be fetched."""
        with self._speaking(f'asking Glance for server {instance.uuid}'):
            return any(image['status'] == 'active'
                       for image in self._images(instance.uuid))

    def fetch(self, instance, file: typing.BinaryIO) -> None:
        """Download the archive of a server.

        :param file: open for writing
        :raises TransferFailed: it is not there, or Glance broke off
        """
        with self._speaking(f'fetching server {instance.uuid} from Glance'):
            found = [image for image in self._images(instance.uuid)
                     if image['status'] == 'active']
            if not found:
                raise exception.TransferFailed(
                    f'server {instance.uuid} is not in Glance: it was not '
                    'sent, or was fetched already, or the other host has '
                    f'another project in [{_GROUP}]')
            layer_images.download(service_context(), found[0]['id'], file)

    def remove(self, server: str) -> None:
        """Remove what there is of a server; succeeds if there is nothing.

        :param server: UUID
        """
        with self._speaking(f'removing server {server} from Glance'):
            for image in self._images(server):
                with contextlib.suppress(nova_exception.ImageNotFound):
                    self._glance.delete(service_context(), image['id'])

    def forget(self, server: str) -> None:
        """As ``remove``, where nothing hangs on it: a warning if it fails."""
        try:
            self.remove(server)
        except exception.ContainerError as e:
            LOG.warning('%s', e)
