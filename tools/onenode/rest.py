# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Reading from the OpenStack APIs with nothing but Python itself."""

import json
import typing as ty
import urllib.request

from onenode import configuration
from onenode import credentials
from onenode import plan


def _request(url: str, token: ty.Optional[str],
             body: ty.Optional[dict[str, ty.Any]]
             ) -> tuple[ty.Any, ty.Any]:
    headers = {'Content-Type': 'application/json'}
    if token:
        headers['X-Auth-Token'] = token
    request = urllib.request.Request(
        url, headers=headers,
        data=json.dumps(body).encode() if body else None)
    # Our addresses are on this machine: never through a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as reply:
            return json.load(reply), reply.headers
    except OSError as error:
        raise plan.Failure(f'{url} does not answer: {error}')


class Session:
    """Reads as the administrator.

    :raises Failure: keystone does not answer or does not accept us.
    """

    def __init__(self, layout: plan.Layout) -> None:
        auth = credentials.of(layout, 'admin')
        domain = {'name': 'Default'}
        _, headers = _request(auth['auth_url'] + '/auth/tokens', None, {
            'auth': {
                'identity': {'methods': ['password'], 'password': {'user': {
                    'name': auth['username'], 'domain': domain,
                    'password': auth['password']}}},
                'scope': {'project': {'name': auth['project_name'],
                                      'domain': domain}}}})
        self._token = headers['X-Subject-Token']

    def get(self, service: str, path: str) -> ty.Any:
        """GET a path of a service.

        :raises Failure: it does not answer, or not with success.
        """
        return _request(configuration.url(service, path), self._token,
                        None)[0]


def answers(url: str) -> bool:
    """Whether a web server answers well, without a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=3) as reply:
            return reply.status == 200
    except OSError:
        return False
