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

"""Images in Glance, of which only the parts that count are fetched."""

import io
import typing as ty

from django.core import cache
from openstack_dashboard.api import glance

from nova_container_dashboard import layers

_BUFFER = 16 << 10
_DAY = 24 * 3600


def layers_of(request: ty.Any, image: ty.Any) -> list[layers.Layer]:
    """The layers of an image that the user may read.

    :raises Unreadable: they cannot be told
    """
    # Its data never changes, but another user may not be allowed to read it.
    key = f'nova-container-layers-{request.user.id}-{image.id}'
    found = cache.cache.get(key)
    if found is None:
        client = glance.glanceclient(request).http_client

        def fetch(offset: int, size: int) -> bytes:
            response, body = client.get(
                f'/v2/images/{image.id}/file',
                headers={'Range': f'bytes={offset}-{offset + size - 1}'})
            if response.status_code != 206:
                response.close()
                raise layers.Unreadable(
                    'Glance does not serve parts of images')
            return b''.join(body)

        file = io.BufferedReader(layers.Ranges(fetch, image.size), _BUFFER)
        found = layers.read(ty.cast(ty.BinaryIO, file))
        cache.cache.set(key, found, _DAY)
    return found
