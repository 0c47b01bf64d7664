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

"""The command ``openstack container diff``."""

from collections.abc import Iterator
import contextlib

from cliff import columns
from openstack import utils
from osc_lib.command import command

from nova_container import exception
from nova_container.image import thin
from nova_container.layer import changes
from nova_container.osc import told

_TIMEOUT = 300


class Path(columns.FormattableColumn):
    """A path in a container: safe to people, as it is to programs."""

    def human_readable(self) -> str:
        return changes.shown(self._value)


class DiffServer(command.Lister):
    """Show what a server has changed in its root file system.

    A is added, C changed, D deleted; as "docker diff" has it. The host
    writes the list into an image of the server's project, which is deleted
    as soon as it is read.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('server', metavar='<server>', help='Name or id')
        return parser

    def take_action(self, parsed_args):
        connection = self.app.client_manager.sdk_connection
        store = self.app.client_manager.container_image
        with told.errors():
            server = connection.compute.find_server(parsed_args.server)
            if server is None:
                raise exception.UserError(
                    f'no server is named {parsed_args.server!r}')
            _check(connection, server)
            with _list_of(connection, store, server) as image_id:
                lines = b''.join(store.data(image_id)).splitlines()
                return ('Kind', 'Path'), [
                    (kind, Path(path)) for kind, path in
                    map(changes.parse, lines)]


def _check(connection, server) -> None:
    """:raises UserError: no list can be had of the server"""
    if not server.image or not server.image.id:
        raise exception.UserError(
            f'server {server.id} has its root file system on a volume, of '
            'which Nova makes no image; see its changes with a snapshot of '
            'the volume')
    image = connection.image.find_image(server.image.id)
    if image is not None and image.container_format != thin.CONTAINER_FORMAT:
        raise exception.UserError(f'server {server.id} is not a container')


@contextlib.contextmanager
def _list_of(connection, store, server) -> Iterator[str]:
    """The image that the host has filled; deleted afterwards."""
    image_id = server.create_image(
        connection.compute, f'changes of {server.name}'[:255],
        {thin.CHANGES_OF: server.id})
    try:
        for _ in utils.iterate_timeout(
                _TIMEOUT, f'server {server.id}: its host has not written the '
                f'list of its changes in {_TIMEOUT} s; try again', wait=0.5):
            image = connection.image.find_image(image_id)
            if image is None or image.status not in (
                    'queued', 'saving', 'importing', 'active'):
                raise exception.UserError(
                    f'server {server.id}: its host could not write the list '
                    'of its changes; only the log of nova-compute there says '
                    'why: ask the operator')
            if image.status == 'active':
                break
        if image.properties.get(thin.PROPERTY) != thin.CHANGES:
            raise exception.UserError(f'server {server.id} is not a container')
        yield image_id
    finally:
        store.delete(image_id)
