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

"""What an archive holds, told without unpacking it."""

import dataclasses
import posixpath

from nova_container.layer import tar

# Of docker save and of OCI layouts.
_IMAGE = frozenset((b'manifest.json', b'index.json', b'oci-layout',
                    b'repositories'))
# Every root file system has one of them, whatever else is merged into /usr.
_SYSTEM = frozenset((b'etc', b'usr', b'bin'))
# /sbin may be a link to either.
_INIT = frozenset((b'sbin/init', b'usr/sbin/init', b'usr/bin/init'))


@dataclasses.dataclass
class Survey:
    """What the names in an archive tell.

    :ivar image: it is an archive of an image, of docker save or OCI
    :ivar system: it has the directories of a root file system
    :ivar init: it has an ``/sbin/init``
    """

    image: bool = False
    system: bool = False
    init: bool = False


def survey(reader: tar.Reader) -> Survey:
    """Read the archive to its end.

    :raises ImageInvalid: it is malformed
    """
    found = Survey()
    for member in reader:
        name = posixpath.normpath(member.name).lstrip(b'/')
        found.image |= name in _IMAGE
        found.system |= name.partition(b'/')[0] in _SYSTEM
        found.init |= name in _INIT
    return found
