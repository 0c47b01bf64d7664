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

"""Cinder's volumes: Nova's words for them, and os-brick's connections.

A connection is recorded in ``<state_path>/connections`` before it is made, and
with it the servers that want it: a volume that several have (multiattach) goes
with the last of them, and what a killed service left connected is found and
taken away at the next start.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import time

from nova import block_device as nova_block_device
import nova.conf
from nova import utils as nova_utils
from nova.virt import block_device as driver_block_device
from os_brick.initiator import connector
from oslo_concurrency import lockutils
from oslo_log import log

from nova_container.compute import boot_volume
from nova_container.compute import encryption
from nova_container.compute import wishes
from nova_container import exception
from nova_container.privileged import definition
from nova_container.privileged import place
from nova_container.runtime import volume
from nova_container.spec import volume as volume_spec

CONF = nova.conf.CONF
LOG = log.getLogger(__name__)

# Seconds until a volume that Cinder has extended must be seen as larger.
_EXTEND_TIMEOUT = 30
_EXTEND_PAUSE = 0.2


def _lock(volume_id: str):
    return lockutils.lock(f'nova-container-volume-{volume_id}')


def _share(connection_info: dict) -> str | None:
    """os-brick's name for the share of a volume; None if it is on none."""
    if connection_info['driver_volume_type'] != 'nfs':
        return None
    return hashlib.md5(connection_info['data']['export'].encode(),
                       usedforsecurity=False).hexdigest()


def _of_share(connection_info: dict):
    """While a share is mounted or unmounted nobody else does either."""
    share = _share(connection_info)
    return (contextlib.nullcontext() if share is None
            else lockutils.lock(f'nova-container-share-{share}'))


def _brick(connection_info: dict):
    return connector.InitiatorConnector.factory(
        connection_info['driver_volume_type'].upper(),
        nova_utils.get_root_helper(), do_local_attach=True,
        conn=connection_info, nfs_mount_point_base=place.state('mnt'))


def _properties(connection_info: dict) -> dict:
    """What os-brick is to know of a connection.

    Its own encryptors need a link to each encrypted volume, and we do not.
    """
    return {**connection_info['data'], 'encrypted': False}


def properties() -> dict:
    """What Cinder has to know of this host to let it have a volume."""
    return {**connector.get_connector_properties(
        nova_utils.get_root_helper(), CONF.my_block_storage_ip,
        multipath=False, enforce_multipath=False, host=CONF.host),
        'do_local_attach': True}


def volume_id(connection_info: dict) -> str:
    """The id of the volume that a connection is to.

    :raises InvalidSpec: it says none
    """
    return volume_spec.check_id(
        driver_block_device.get_volume_id(connection_info))


def _check(connection_info: dict) -> None:
    """
    :raises InvalidSpec: a container cannot have such a volume
    """
    data = connection_info['data']
    name = volume_id(connection_info)
    if data.get('format', 'raw') != 'raw':
        raise exception.InvalidSpec(
            f'volume {name} is stored as {data["format"]}, since it has '
            'snapshots; delete them, or make a new volume of one')


def _read_only(connection_info: dict) -> bool:
    return connection_info['data'].get('access_mode') == 'ro'


class _Record:
    """A connection, and the servers that want it."""

    def __init__(self, name: str):
        self._path = place.state('connections',
                                 f'{volume_spec.check_id(name)}.json')
        try:
            with open(self._path) as file:
                content = json.load(file)
        except FileNotFoundError:
            content = {}
        self.connection: dict | None = content.get('connection')
        self.servers: set[str] = set(content.get('servers', ()))
        # Bytes, where a server boots from it.
        self.archive: int | None = content.get('archive')

    def save(self) -> None:
        if not self.servers:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            return
        # It may hold a secret of the storage.
        definition.write(self._path, json.dumps(
            {'connection': self.connection,
             'servers': sorted(self.servers),
             'archive': self.archive}), 0o600, os.getuid(),
            os.getgid())


def _names() -> list[str]:
    return [name.removesuffix('.json')
            for name in os.listdir(place.state('connections'))
            if name.endswith('.json')]


def connect(context, server: str, connection_info: dict) -> None:
    """Have a volume as a device on this host, for one server more.

    Again is as good as once.

    :raises InvalidSpec: a container cannot have such a volume
    """
    _check(connection_info)
    name = volume_id(connection_info)
    with _lock(name), contextlib.ExitStack() as undo:
        record = _Record(name)
        record.connection = connection_info
        if server not in record.servers:
            record.servers.add(server)
            undo.callback(_let_go, name, server)
        record.save()
        with _of_share(connection_info):
            device = _brick(connection_info).connect_volume(
                _properties(connection_info))
            volume.connect(name, os.path.abspath(device['path']),
                           _read_only(connection_info))
        if (encryption.is_encrypted(connection_info)
                and not volume.is_unlocked(name)):
            volume.unlock(name, encryption.key(context, name,
                                               connection_info))
        undo.pop_all()


def disconnect(server: str, name: str) -> None:
    """A server no longer wants a volume; with the last one it goes.

    :raises StateConflict: it is still in use
    """
    with _lock(name):
        _let_go(name, server)


def _let_go(name: str, server: str) -> None:
    record = _Record(name)
    if record.servers == {server} and record.connection is not None:
        with _of_share(record.connection):
            volume.disconnect(name)
            _brick(record.connection).disconnect_volume(
                _properties(record.connection), None)
            if (share := _share(record.connection)) is not None:
                volume.unmount_share(share)
    record.servers.discard(server)
    record.save()


def attachment(instance, connection_info: dict, device: str,
               tag: str | None = None) -> volume_spec.Attachment:
    """How a server is to have a volume.

    :param device: ``/dev/vdb``
    :raises InvalidSpec: what its metadata says of the volume makes no sense
    """
    name = volume_id(connection_info)
    short = nova_block_device.strip_dev(device)
    path, read_only = None, _read_only(connection_info)
    for mount in wishes.parse(wishes.said(instance)).mounts:
        if mount.volume in (name, short, tag):
            path, read_only = mount.path, read_only or mount.read_only
    if path is not None and connection_info.get('multiattach'):
        raise exception.InvalidSpec(
            f'volume {name} may be attached to several servers, whose '
            f'kernels would destroy its file system: not mounted at {path}')
    return volume_spec.Attachment(volume=name, device=short, path=path,
                                  read_only=read_only)


def mappings(block_device_info: dict | None) -> list[dict]:
    """Nova's block device mappings that are volumes."""
    return (block_device_info or {}).get('block_device_mapping') or []


def root(block_device_info: dict | None) -> dict | None:
    """The mapping of the volume that a server boots from, if it does."""
    return next((mapping for mapping in mappings(block_device_info)
                 if mapping.get('boot_index') == 0), None)


@dataclasses.dataclass(frozen=True)
class Connected:
    """The volumes of a server, as its container is to have them.

    :param boot: it boots from this one
    """

    attachments: tuple[volume_spec.Attachment, ...] = ()
    boot: boot_volume.Archive | None = None


def connect_all(context, instance, block_device_info: dict | None
                ) -> Connected:
    """Connect every volume of a server, for its container to have.

    :raises InvalidSpec: a container cannot have one of them
    """
    wanted = []
    boot = None
    with contextlib.ExitStack() as undo:
        for mapping in mappings(block_device_info):
            connection_info = mapping['connection_info']
            if mapping is root(block_device_info):
                boot = _connect_boot(context, instance, connection_info)
                undo.callback(disconnect, instance.uuid, boot.volume)
                continue
            stored = getattr(mapping, '_bdm_obj', None)
            wanted.append(attachment(
                instance, connection_info, mapping['mount_device'],
                stored.tag if stored is not None else None))
            connect(context, instance.uuid, connection_info)
            undo.callback(disconnect, instance.uuid,
                          volume_id(connection_info))
        volume_spec.check_distinct(tuple(wanted))
        undo.pop_all()
    return Connected(tuple(wanted), boot)


def _connect_boot(context, instance, connection_info: dict
                  ) -> boot_volume.Archive:
    name = volume_id(connection_info)
    if connection_info.get('multiattach'):
        raise exception.InvalidSpec(
            f'volume {name} may be attached to several servers, whose kernels '
            'would destroy its file system: no server boots from it')
    if encryption.is_encrypted(connection_info):
        raise exception.InvalidSpec(
            f'volume {name} is encrypted: no server boots from it')
    # Where the file system begins, that stays for as long as it is used.
    size = _Record(name).archive
    archive = (boot_volume.find(context, name) if size is None
               else boot_volume.Archive(name, size))
    connect(context, instance.uuid, connection_info)
    with _lock(name):
        record = _Record(name)
        record.archive = archive.size
        record.save()
    return archive


def clear_boot(context, instance, block_device_info: dict | None) -> None:
    """Forget all that is on the volume that a halted server boots from.

    What its writable layer was would else be found behind another image.

    :raises StateConflict: the volume is in use
    """
    mapping = root(block_device_info)
    if mapping is not None:
        # A server that is stopped may have come without its connections.
        connect(context, instance.uuid, mapping['connection_info'])
        volume.clear(volume_id(mapping['connection_info']))


def disconnect_all(context, instance, block_device_info: dict | None = None
                   ) -> None:
    """Disconnect every volume that a server has on this host.

    What cannot be disconnected is kept for the next start of the service.
    """
    for name in _names():
        if instance.uuid not in _Record(name).servers:
            continue
        try:
            disconnect(instance.uuid, name)
        except Exception:
            LOG.exception('Disconnecting volume %s failed; it is tried again '
                          'when the service starts', name, instance=instance)


def attach(context, instance, connection_info: dict, device: str,
           tag: str | None = None) -> None:
    """Connect a volume and give it to a container, running or not."""
    wanted = attachment(instance, connection_info, device, tag)
    with contextlib.ExitStack() as undo:
        connect(context, instance.uuid, connection_info)
        undo.callback(disconnect, instance.uuid, wanted.volume)
        volume.attach(instance.uuid, wanted)
        undo.pop_all()


def detach(instance, connection_info: dict) -> None:
    """Take a volume from a container and disconnect it."""
    forget(instance, volume_id(connection_info))


def forget(instance, name: str) -> None:
    """Take a volume from a container and disconnect it, by its id."""
    with contextlib.suppress(exception.ContainerNotFound):
        volume.detach(instance.uuid, name)
    disconnect(instance.uuid, name)


def swap(context, instance, old: dict, new: dict, keeps_id: bool) -> None:
    """Put another volume in the place of one, with the same content.

    The container is without it while it is copied.

    :param keeps_id: Cinder is about to give the new one the id of the old
        one, as it does when it moves a volume to another back end
    :raises StateConflict: a process in the container uses it
    """
    before, target = _attached(instance, old), volume_id(new)
    with contextlib.ExitStack() as undo:
        connect(context, instance.uuid, new)
        undo.callback(disconnect, instance.uuid, target)
        volume.detach(instance.uuid, before.volume)
        undo.callback(volume.attach, instance.uuid, before)
        volume.copy(before.volume, target)
        disconnect(instance.uuid, before.volume)
        undo.callback(connect, context, instance.uuid, old)
        if keeps_id:
            disconnect(instance.uuid, target)
            target = before.volume
            connect(context, instance.uuid, {**new, 'serial': target})
            undo.callback(disconnect, instance.uuid, target)
        volume.attach(instance.uuid,
                      dataclasses.replace(before, volume=target))
        undo.pop_all()


def _attached(instance, connection_info: dict) -> volume_spec.Attachment:
    name = volume_id(connection_info)
    for each in volume.of(instance.uuid):
        if each.volume == name:
            return each
    if _Record(name).archive is not None:
        raise exception.InvalidSpec(
            f'the server boots from volume {name}, which therefore stays on '
            'its back end; move it once no server has it')
    raise exception.StateConflict(f'volume {name} is not attached')


def extend(connection_info: dict, wanted: int) -> None:
    """Have a volume's device as large as Cinder has made the volume.

    :param wanted: bytes
    :raises StateConflict: this host does not see the new size
    :raises InvalidSpec: it is encrypted
    """
    name = volume_id(connection_info)
    if encryption.is_encrypted(connection_info):
        raise exception.InvalidSpec(
            f'volume {name} is encrypted: its container sees the new size '
            'once it is detached and attached again')
    # NFS has no such thing, and for RBD os-brick reads what only the kernel's
    # own rbd has; then asking the device is enough.
    with contextlib.suppress(NotImplementedError, OSError):
        _brick(connection_info).extend_volume(connection_info['data'])
    deadline = time.monotonic() + _EXTEND_TIMEOUT
    while (size := volume.take_size(name)) < wanted:
        if time.monotonic() > deadline:
            raise exception.StateConflict(
                f'volume {name} was extended to {wanted} bytes, and this '
                f'host still sees {size}')
        time.sleep(_EXTEND_PAUSE)


def recover() -> None:
    """Disconnect what no container on this host has."""
    attached = volume.attached()
    for name in _names():
        for server in _Record(name).servers - set(attached.get(name, ())):
            try:
                disconnect(server, name)
            except Exception:
                LOG.exception('Volume %s was left connected for server %s, '
                              'and disconnecting it failed', name, server)
