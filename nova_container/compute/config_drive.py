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

"""The config drive: what the metadata service says, as files; and files that
a user has Nova write into the server.

cloud-init looks for them at ``/config-drive`` in a container; nothing has to
be mounted there.
"""

import base64

from nova.api.metadata import base as instance_metadata
from nova.virt import configdrive

from nova_container.compute import user_data
from nova_container.spec import file


def injected(files) -> tuple[file.File, ...]:
    """Files for the root file system.

    :param files: Nova's pairs of path and content
    :raises InvalidSpec: a path is not a plain one
    """
    return tuple(
        file.File((path.lstrip('/'),), base64.b64encode(
            content.encode() if isinstance(content, str) else content
        ).decode()) for path, content in files or ())


def files(instance, network_info, injected=(),
          admin_password: str | None = None) -> tuple[file.File, ...]:
    """The files of a server's config drive; none if it has no such drive.

    :param instance: nova.objects.Instance
    :param injected: pairs of path and content
    :raises InvalidSpec: its user data is not Base64
    """
    if not configdrive.required_by(instance):
        return ()
    # Nova itself would not say what is wrong.
    user_data.text(instance.user_data)
    more = {'admin_pass': admin_password} if admin_password else {}
    metadata = instance_metadata.InstanceMetadata(
        instance, content=injected, extra_md=more, network_info=network_info)
    # Most of the versions of the format say the same.
    paths: dict[bytes, list[str]] = {}
    for path, content in metadata.metadata_for_config_drive():
        if isinstance(content, str):
            content = content.encode()
        paths.setdefault(content, []).append(path)
    return tuple(
        file.File(tuple(names), base64.b64encode(content).decode())
        for content, names in paths.items())
