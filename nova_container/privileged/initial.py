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

"""The small init that reaps orphans in an application container.

It is bound into the container, read-only, from the host: it has to be linked
statically, since the image has libraries of its own or none.
"""

import os

from nova_container import exception
from nova_container.privileged import place

# catatonit (Debian; podman's own; openSUSE), tini (Debian), docker's tini.
_PROGRAMS = (
    '/usr/bin/catatonit', '/usr/libexec/podman/catatonit',
    '/usr/libexec/catatonit/catatonit', '/usr/bin/tini-static',
    '/usr/bin/docker-init', '/usr/libexec/docker/docker-init',
)


def program() -> str:
    """Its path on the host ([container] init).

    :raises HostUnsupported: there is none
    """
    wish = place.CONF.container.init
    if wish == 'auto':
        found = [path for path in _PROGRAMS if os.access(path, os.X_OK)]
        if not found:
            raise exception.HostUnsupported(
                'container:init needs a small init on the host: install the '
                'package catatonit or tini, or set [container] init to the '
                'path of one')
        return os.path.realpath(found[0])
    if not os.path.isabs(wish) or not os.access(wish, os.X_OK):
        raise exception.HostUnsupported(
            f'[container] init = {wish} is not the absolute path of a '
            'program on this host')
    return os.path.realpath(wish)
