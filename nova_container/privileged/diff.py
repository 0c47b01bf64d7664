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
from nova_container.oci import digest
from nova_container.privileged import confined
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import freezer
from nova_container.privileged import layer
from nova_container.privileged import namespace
from nova_container.privileged import place
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


@context.entrypoint
def apply(container_id: str, spool: str, diff_id: str, offset: int, size: int,
          compression: str, max_bytes: int) -> None:
    """Fill the empty writable layer of a container that does not run.

    After an error, or when it was killed, the container is to be undefined.
    Parameters and errors as for ``layer.unpack``.

    :raises StateConflict: it runs, or its writable layer is not empty
    """
    job = layer.check_place(offset, size, compression)
    limit = layer.check_limit(max_bytes)
    checked = digest.Digest(diff_id)

    def steps(archive: int) -> None:
        ids = _ids(container_id)
        with disk.upper(container_id, ids.outside) as path:
            if os.listdir(path):
                raise exception.StateConflict(
                    f'container {container_id}: its writable layer is not '
                    'empty')
            layer.unpack_tree(checked, archive, path, ids, limit, **job)

    with definition.locked(container_id), \
            confined.spool_file(spool) as archive:
        if os.path.exists(place.container_run(container_id)):
            raise exception.StateConflict(
                f'container {container_id} runs; halt it first')
        namespace.with_mounts(steps, archive)
