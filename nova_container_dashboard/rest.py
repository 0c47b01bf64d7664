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

"""What the page asks for again and again."""

import time

from django.views import generic
from openstack_dashboard.api import _nova
from openstack_dashboard.api.rest import urls
from openstack_dashboard.api.rest import utils

from nova_container_dashboard import container


@urls.register
class Usage(generic.View):
    """Counters of a container now."""

    url_regex = r'nova-container/(?P<server>[0-9a-f-]{36})/usage/$'

    @utils.ajax()
    def get(self, request, server):
        """See ``container.usage``; ``time`` is in seconds."""
        _response, found = _nova.novaclient(request).servers.diagnostics(
            server)
        return {'time': time.time(), **container.usage(found)}
