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

"""An image made of a tar of a root file system.

As ``docker import`` would make it: one layer, and a config that says as much
as is known. Whatever has an init is a system to boot.
"""

from collections.abc import Mapping
import json
from typing import Any

from nova_container import exception
from nova_container.image import archive
from nova_container.oci import digest
from nova_container.oci import image_config
from nova_container.oci import platform

INIT = '/sbin/init'


def image(tar: archive.RootFileSystem, found: Mapping[str, Any],
          host: platform.Platform) -> archive.Archive:
    """The image that the tar is.

    :param found: what ``privileged.layer.survey`` says of it
    :param host: what it is taken to be for: the tar does not tell
    :raises ImageInvalid: it is something else
    """
    if found['image']:
        raise exception.ImageInvalid(
            f'the archive as a whole is compressed with {tar.compression}; '
            'upload it uncompressed (its layers may be compressed)')
    if not found['system']:
        raise exception.ImageInvalid(
            'it is neither an archive of docker save, an OCI archive nor the '
            'tar of a root file system: it holds no manifest.json, '
            'index.json, etc, usr or bin')
    raw_config = json.dumps({
        'os': host.os,
        'architecture': host.architecture,
        'variant': host.variant,
        'config': {'Cmd': [INIT]} if found['init'] else {},
        'rootfs': {'type': 'layers', 'diff_ids': [found['diff_id']]},
    }).encode()
    return archive.Archive(
        image_config.ImageConfig.from_json(raw_config), raw_config,
        (archive.LayerBlob(digest.Digest(found['diff_id']), 0, tar.size,
                           tar.compression),))
