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

"""Glance as a store of layers, through the session of the client."""

from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import re
import typing

from openstack import exceptions

from nova_container import exception
from nova_container.image import thin
from nova_container.oci import digest
from nova_container.oci import manifest

_ID = re.compile(r'^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z')
_PAGE = 200

Fields = dict[str, typing.Any]


class Sized(typing.Protocol):
    """What is uploaded: its length is known before."""

    def __len__(self) -> int:
        """Bytes."""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, none at the end."""


class Glance:
    """The few requests that are needed (Image API version 2).

    :param connection: of openstacksdk
    """

    def __init__(self, connection):
        self._api = connection.image
        self.project = connection.current_project_id

    def _request(self, method: str, path: str, **options):
        response = self._api.request(path, method, raise_exc=False, **options)
        exceptions.raise_from_response(response)
        return response

    def images(self, **filters: str) -> Iterator[Fields]:
        """All images that fit the filters and that the user may see."""
        params = {'limit': str(_PAGE), **filters}
        while True:
            page = self._request('GET', '/images', params=params).json()
            yield from page['images']
            if not page.get('next'):
                return
            params['marker'] = page['images'][-1]['id']

    def find(self, name: str) -> Fields:
        """The image of that id or name.

        :raises UserError: there is none, or more than one
        """
        if _ID.match(name):
            try:
                return self._request('GET', f'/images/{name}').json()
            except exceptions.NotFoundException:
                pass
        quoted = name.replace('\\', '\\\\').replace('"', '\\"')
        found = list(self.images(name=f'in:"{quoted}"'))
        if len(found) != 1:
            raise exception.UserError(
                f'no image is named {name!r}' if not found else
                f'{len(found)} images are named {name!r}; say an id: '
                + ', '.join(image['id'] for image in found))
        return found[0]

    def create(self, fields: Fields, data: Sized) -> Fields:
        """A new image with its data; nothing stays if that fails."""
        image = self._request('POST', '/images', json=fields).json()
        try:
            self._request(
                'PUT', f'/images/{image["id"]}/file', data=data,
                headers={'Content-Type': 'application/octet-stream'})
            made = self._request('GET', f'/images/{image["id"]}').json()
            if made['status'] != 'active' or made['size'] != len(data):
                raise exception.ImageIncomplete(
                    f'image {image["id"]} is {made["status"]} with '
                    f'{made["size"]} bytes of {len(data)}; try again')
        except BaseException:
            self.delete(image['id'])
            raise
        return made

    def delete(self, image_id: str) -> None:
        """Delete an image; succeeds if it is not there."""
        try:
            self._request('DELETE', f'/images/{image_id}')
        except exceptions.NotFoundException:
            pass

    def update(self, image_id: str, **fields: str) -> None:
        """Replace fields of an image."""
        self._request(
            'PATCH', f'/images/{image_id}', json=[
                {'op': 'replace', 'path': f'/{name}', 'value': value}
                for name, value in fields.items()],
            headers={'Content-Type':
                     'application/openstack-images-v2.1-json-patch'})

    def share(self, image_id: str, project: str) -> None:
        """Let another project use a shared image; succeeds if it may."""
        try:
            self._request('POST', f'/images/{image_id}/members',
                          json={'member': project})
        except exceptions.ConflictException:
            pass

    def data(self, image_id: str) -> Generator[bytes, None, None]:
        """The data of an image, in pieces; closed, no more of it comes."""
        response = self._request('GET', f'/images/{image_id}/file',
                                 stream=True)
        with response:
            yield from response.iter_content(1 << 18)

    def layers(self, wanted: Iterable[manifest.Descriptor],
               owner: str | None = None
               ) -> dict[digest.Digest, list[thin.LayerImage]]:
        """The images that hold layers, the best first; none if there is none.

        :param owner: project of the image that has the layers
        """
        sizes = {layer.digest: layer.size for layer in wanted}
        images = [thin.LayerImage.of(image)
                  for query in thin.queries(sizes)
                  for image in self.images(**query)]
        return {blob: thin.candidates(blob, size, images, self.project, owner)
                for blob, size in sizes.items()}

    def touch(self, layer: thin.LayerImage) -> bool:
        """Make a layer image young again; whether it is still there.

        Whatever is changed, Glance notes the time.
        """
        try:
            self.update(layer.id, name=layer.name)
        except exceptions.NotFoundException:
            return False
        except exceptions.HttpException as e:
            # Some may write images, but not change them.
            if e.status_code != 403:
                raise
        return True

    def own(self, **filters: str) -> Iterator[Fields]:
        """Container images of the user's own project, hidden ones and
        snapshots under way too.
        """
        for hidden in ('true', 'false'):
            for image in self.images(owner=self.project, os_hidden=hidden,
                                     **filters):
                if image.get('container_format') == thin.CONTAINER_FORMAT \
                        or _may_become_one(image):
                    yield image


def _may_become_one(image: Mapping[str, object]) -> bool:
    """Whether it is a snapshot to which Nova has given no format yet."""
    return (image.get('container_format') is None
            and image['status'] != 'active'
            and image.get('image_type') == 'snapshot'
            and image.get('img_hv_type', 'docker') == 'docker')
