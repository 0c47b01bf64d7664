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

"""The writable layer of a container, out as a layer and in again, as root."""

import os
import typing

from nova_container import exception
from nova_container.privileged import confined
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import freezer
from nova_container.privileged import layer
from nova_container.privileged import namespace
from nova_container.spec import idmap


def _ids(container_id: str) -> idmap.IdMap:
    return idmap.IdMap(0, container.host_ids(container_id)[0])


@context.entrypoint
def write(container_id: str, spool: str,
          compression: str) -> dict[str, typing.Any]:
    """Write the writable layer of a container to a spool file.

    What runs is held still meanwhile.

    :param spool: name of an empty file in the spool directory
    :param compression: one of ``manifest.COMPRESSIONS``
    :returns: ``diff_id``, ``blob_digest``, ``size`` in bytes as stored,
        ``stream`` in bytes of the tar, ``entries``, and how many were
        ``dropped``: sockets, and names a layer cannot have
    :raises ContainerNotFound: it is not defined
    :raises ImageInvalid: a layer cannot hold one of its files
    :raises NoSpace: the file system of the spool directory is full
    """
    layer.check_compression(compression)

    def steps(output: int) -> dict[str, typing.Any]:
        ids = _ids(container_id)
        with disk.upper(container_id, ids.outside) as path, \
                freezer.held(container_id):
            return layer.pack_tree(f'container {container_id}', ids, path,
                                   output, compression)

    with definition.locked(container_id), \
            confined.spool_file(spool, os.O_WRONLY) as output:
        if os.fstat(output).st_size:
            raise exception.ContainerError(
                f'container {container_id}: spool file {spool} is not empty')
        return namespace.with_mounts(steps, output)
