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

from django.conf import settings
from django.core import cache
from openstack_dashboard.api import base
import requests

from nova_container_dashboard import layers

_BUFFER = 16 << 10
_DAY = 24 * 3600
_TIMEOUT = 30


def layers_of(request: ty.Any, image: ty.Any) -> list[layers.Layer]:
    """The layers of an image that the user may read.

    :raises Unreadable: they cannot be told
    """
    # Its data never changes, but another user may not be allowed to read it.
    key = f'nova-container-layers-{request.user.id}-{image.id}'
    found = cache.cache.get(key)
    if found is None:
        # glanceclient would quote the header.
        url = f'{base.url_for(request, "image")}/v2/images/{image.id}/file'
        verify = (not settings.OPENSTACK_SSL_NO_VERIFY
                  and (settings.OPENSTACK_SSL_CACERT or True))
        session = requests.Session()
        session.headers['X-Auth-Token'] = request.user.token.id

        def fetch(offset: int, size: int) -> bytes:
            with session.get(
                    url, stream=True, verify=verify, timeout=_TIMEOUT,
                    headers={'Range': f'bytes={offset}-{offset + size - 1}'}
            ) as response:
                if response.status_code != requests.codes.partial_content:
                    raise layers.Unreadable(
                        f'Glance answers {response.status_code} to a request '
                        'for a part of the image')
                return response.content

        file = io.BufferedReader(layers.Ranges(fetch, image.size), _BUFFER)
        found = layers.read(ty.cast(ty.BinaryIO, file))
        cache.cache.set(key, found, _DAY)
    return found
