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

"""Resize, cold migration, confirm and revert.

The disks travel through Glance (``courier``), or wait in a spool file where
both hosts are one. The container at the old place is set aside, whole, until
the user confirms; to revert is to put it back. What goes wrong on the old host
leaves the server as it was. What goes wrong on the new one leaves the archive
in Glance, and a hard reboot goes on with it.
"""

import collections.abc
import contextlib
import dataclasses
import json
import os

from nova import exception as nova_exception
from oslo_config import cfg
from oslo_log import log

from nova_container.compute import boot_volume
from nova_container.compute import courier
from nova_container.compute import fault
from nova_container.compute import flavor as flavors
from nova_container.compute import images
from nova_container.compute import volumes
from nova_container import exception
from nova_container.image import store
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import container

CONF = cfg.CONF
LOG = log.getLogger(__name__)

_COMPRESSION = 'zstd'

# The tree of the ephemeral disk.
_EPHEMERAL = 'mnt'

# What a new file system needs for itself, generously, as a part of the disk.
_OVERHEAD = 0.1
# An empty directory.
_NOTHING = 8192


def _needed(instance, trees: collections.abc.Iterable[str]) -> int:
    used = engine.used(instance.uuid)
    return sum(used.get(tree, 0) for tree in trees)


def require_room(instance, flavor, image: store.Image | None,
                 volume_backed: bool) -> None:
    """Refuse a flavor whose disks do not take what is there.

    :param instance: nova.objects.Instance
    :param flavor: the new one
    :param image: what the container is made of
    :param volume_backed: its root disk is a volume
    :raises ResizeError: a disk of the flavor is too small
    """
    # A resize that failed may have left larger ones than the flavor's.
    old, new = engine.disks(instance.uuid), flavors.disks(flavor)
    if volume_backed:
        new = dataclasses.replace(new, root=None)
    if new.root is not None and (old.root is None or new.root < old.root):
        if image is not None and image.size > new.root:
            raise nova_exception.ResizeError(
                reason=f'the image has {image.size} bytes, more than the root '
                       f'disk of the flavor ({new.root})')
        needed = _needed(instance, set(engine.TREES) - {_EPHEMERAL})
        if needed > new.root * (1 - _OVERHEAD):
            raise nova_exception.ResizeError(
                reason=f'{needed} bytes are written, too many for the root '
                       f'disk of the flavor ({new.root}); remove files first')
    if old.ephemeral is not None and (new.ephemeral or 0) < old.ephemeral:
        needed = _needed(instance, (_EPHEMERAL,))
        room = (new.ephemeral or 0) * (1 - _OVERHEAD)
        if needed > max(room, _NOTHING):
            raise nova_exception.ResizeError(
                reason=f'{needed} bytes are in /mnt, too many for the '
                       f'ephemeral disk of the flavor ({new.ephemeral or 0});'
                       ' remove files first')


def allow_smaller(instance, image_meta) -> None:
    """Have Nova's API take a flavor with a smaller disk for the server.

    It refuses one with less than a new server was given
    (nova.utils.get_system_metadata_from_image), whatever that has written.
    Here ``require_room`` looks. What the image itself asks for stays.

    :param instance: nova.objects.Instance; Nova saves it
    :param image_meta: nova.objects.ImageMeta
    """
    wish = image_meta.min_disk if 'min_disk' in image_meta else 0
    instance.system_metadata['image_min_disk'] = str(wish)


def pack(known: images.Images, instance, flavor, spool: str, fd: int,
         at_hand: bool) -> None:
    """Write the disks of a halted container to a spool file, with whatever
    layers cannot be had from its image any more.

    :param at_hand: whether all layers are where it goes
    """
    parts = []
    image, made_of = known.of(instance), known.record_of(instance)
    if image is None or made_of is None:
        raise exception.TransferFailed(
            f'server {instance.uuid}: the image that it was made of is not '
            'on this host any more')

    def add(tree: str, done: dict) -> None:
        if done:
            parts.append(courier.Part(tree, done['diff_id'], done['offset'],
                                      done['size']))

    for tree in engine.TREES:
        if tree != _EPHEMERAL or flavor.ephemeral_gb:
            add(tree, engine.pack(instance.uuid, tree, spool, _COMPRESSION))
    config = json.loads(made_of.raw_config)
    available = image.layers if at_hand else known.obtainable(instance)
    diff_ids = []
    for layer in image.layers:
        if layer not in available:
            done = engine.pack_layer(layer, spool, _COMPRESSION)
            add('', done)
            layer = done['diff_id']
        diff_ids.append(layer)
    config['rootfs']['diff_ids'] = diff_ids
    os.lseek(fd, 0, os.SEEK_END)
    with open(fd, 'wb', closefd=False) as file:
        file.write(courier.Index(json.dumps(config), tuple(parts)).encode())


def unpack(known: images.Images, context, instance, image_meta,
           boot: boot_volume.Archive | None, spool: str, fd: int,
           build: collections.abc.Callable[
               [store.Image], container.ContainerSpec]) -> None:
    """Define a container from a spool file that ``pack`` has written.

    :param boot: where that image is, unless in Glance
    :param build: its spec, for the image that it is made of
    :raises TransferFailed: a layer is not to be had
    """
    index = courier.Index.read(fd)
    for part in index.parts:
        if not part.tree:
            known.unpack_layer(spool, part.diff_id, part.offset, part.size,
                               _COMPRESSION)
    raw_config = index.config.encode()
    image = known.adopt(instance, raw_config)
    if image is None:
        known.ensure(courier.authorized(context), instance, image_meta,
                     boot=boot, moved=True)
        image = known.adopt(instance, raw_config)
    if image is None:
        raise exception.TransferFailed(
            f'server {instance.uuid}: image {instance.image_ref} does not '
            'have the layers any more of which the server was made')
    engine.receive(build(image), spool, [
        (part.tree, part.diff_id, part.offset, part.size, _COMPRESSION)
        for part in index.parts if part.tree])


@contextlib.contextmanager
def rolled_back(instance):
    """Whatever goes wrong, the server is as it was: Nova is to say so."""
    try:
        with fault.translated(instance):
            yield
    except Exception as e:
        raise nova_exception.InstanceFaultRollback(inner_exception=e) from e


class MovingMixin:
    """The part of the driver that Nova's resize and migration call."""

    def check_can_live_migrate_destination(
            self, context, instance, src_compute_info, dst_compute_info,
            block_migration=False, disk_over_commit=False):
        # Any other error ends as an internal one of the API's, and leaves the
        # server in ERROR.
        raise nova_exception.MigrationPreCheckError(
            reason='a container cannot move while it runs; use "openstack '
                   'server migrate" without --live-migration')

    def migrate_disk_and_power_off(self, context, instance, dest, flavor,
                                   network_info, block_device_info=None,
                                   timeout=0, retry_interval=0):
        with rolled_back(instance), self._decided(instance), \
                contextlib.ExitStack() as undo:
            require_room(instance, flavor, self._images.of(instance),
                         volumes.root(block_device_info) is not None)
            if state.read(instance.uuid).process is not None:
                undo.callback(self._start_again, context, instance,
                              network_info, block_device_info)
            self._halt(instance, network_info, timeout)
            same_host = dest == CONF.my_ip
            self._drop_kept(instance)
            with contextlib.ExitStack() as file:
                written = file.enter_context(
                    self._images.store.spool.file(instance.uuid))
                spool, fd = written.name, written.fileno()
                pack(self._images, instance, flavor, spool, fd, same_host)
                if same_host:
                    self._kept[instance.uuid] = file.pop_all(), spool, fd
                    undo.callback(self._drop_kept, instance)
                else:
                    undo.callback(self._courier.forget, instance.uuid)
                    os.lseek(fd, 0, os.SEEK_SET)
                    with open(fd, 'rb', closefd=False) as archive:
                        self._courier.send(instance, archive)
            volumes.disconnect_all(context, instance)
            engine.park(instance.uuid)
            undo.pop_all()
        return json.dumps({})

    def _drop_kept(self, instance):
        kept = self._kept.pop(instance.uuid, None)
        if kept is not None:
            whole, _, _ = kept
            whole.close()

    def finish_migration(self, context, migration, instance, disk_info,
                         network_info, image_meta, resize_instance,
                         allocations, block_device_info=None, power_on=True,
                         share_info=None):
        with fault.translated(instance), self._decided(instance):
            self._arrive(context, instance, network_info, image_meta,
                         block_device_info)
            if power_on:
                self._boot(instance, network_info)

    def _start_again(self, context, instance, network_info,
                     block_device_info):
        """With whatever it is to have on this host."""
        self._redefine(context, instance, network_info, block_device_info)
        self._boot(instance, network_info)

    def _arrive(self, context, instance, network_info, image_meta,
                block_device_info):
        """Make the container from what was sent, or kept in a spool file."""
        if state.exists(instance.uuid):
            # It had arrived when the service was killed.
            self._halt(instance, network_info)
            self._redefine(context, instance, network_info,
                           block_device_info)
            self._courier.forget(instance.uuid)
            return
        with contextlib.ExitStack() as file:
            kept = self._kept.pop(instance.uuid, None)
            if kept is not None:
                whole, spool, fd = kept
                file.enter_context(whole)
            else:
                written = file.enter_context(
                    self._images.store.spool.file(instance.uuid))
                spool, fd = written.name, written.fileno()
                if (state.parked(instance.uuid)
                        and not self._courier.waiting(instance)):
                    self._pack_again(instance, spool, fd)
                else:
                    with open(fd, 'wb', closefd=False) as archive:
                        self._courier.fetch(instance, archive)
            attachments = volumes.connect_all(context, instance,
                                              block_device_info)
            unpack(self._images, context, instance, image_meta,
                   attachments.boot, spool, fd,
                   lambda image: self._intent(instance, image, network_info,
                                              attachments))
        if kept is None:
            self._courier.forget(instance.uuid)

    def _pack_again(self, instance, spool, fd):
        """For a move on this host whose archive went with the service."""
        engine.unpark(instance.uuid)
        try:
            pack(self._images, instance, instance.flavor, spool, fd, True)
        finally:
            engine.park(instance.uuid)

    def _complete_arrival(self, context, instance, network_info,
                          block_device_info):
        """Go on with a move that was cut off, before its container starts."""
        if state.exists(instance.uuid):
            return
        if engine.unpark(instance.uuid):
            # What was sent is older than what it writes from now on.
            self._drop_kept(instance)
            self._courier.forget(instance.uuid)
        elif self._courier.waiting(instance):
            self._arrive(context, instance, network_info,
                         instance.image_meta, block_device_info)

    def confirm_migration(self, context, migration, instance, network_info):
        with fault.translated(instance), self._decided(instance):
            engine.discard(instance.uuid)
            if not state.exists(instance.uuid):
                self._images.forget(instance)
            self._courier.forget(instance.uuid)

    def finish_revert_migration(self, context, instance, network_info,
                                migration, block_device_info=None,
                                power_on=True, share_info=None):
        with fault.translated(instance), self._decided(instance):
            engine.unpark(instance.uuid)
            self._courier.forget(instance.uuid)
            if power_on and state.read(instance.uuid).process is None:
                self._halt(instance, network_info)
                self._start_again(context, instance, network_info,
                                  block_device_info)
