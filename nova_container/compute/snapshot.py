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

"""A server's container becomes an image: its image and one layer more.

The thin form uploads the new layer, and those of the image below only where
the project does not have them as layer images yet. Deleting the image below
does not harm the new one: a layer that can be read no other way than by a
foreign share, or inside an archive, is uploaded as the project's own.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import datetime
import io

from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova import exception as nova_exception
from nova.image import glance
from oslo_log import log as logging

from nova_container.compute import changes
from nova_container.compute import images as images_
from nova_container.compute import layer_images
from nova_container.compute import upload
from nova_container import exception
from nova_container.image import archive
from nova_container.image import record
from nova_container.image import spool
from nova_container.image import thin
from nova_container.layer import stream
from nova_container.oci import digest
from nova_container.oci import image_config
from nova_container.oci import manifest
from nova_container.privileged import layer as privileged_layer
from nova_container.runtime import engine

LOG = logging.getLogger(__name__)

THIN, ARCHIVE = 'thin', 'archive'

_COMPRESSION = 'gzip'
_PIECE = 1 << 20


@dataclasses.dataclass(frozen=True)
class _Layer:
    diff_id: digest.Digest
    blob: manifest.Descriptor


def take(images: images_.Images, context, instance, image_id: str,
         update_task_state, form: str) -> None:
    """Snapshot a server; see nova.virt.driver.ComputeDriver.snapshot.

    :param form: THIN, or ARCHIVE for one that needs no other image
    :raises ContainerNotFound: the container is gone
    :raises StateConflict: what its image was is not known on this host
    :raises ImageTooBig: the server could not be unshelved from it
    """
    shelving = instance.task_state == task_states.SHELVING
    try:
        if changes.asked(images, context, instance, image_id):
            changes.upload(images, context, instance, image_id,
                           update_task_state)
        else:
            if shelving:
                images.require_shelvable(instance)
            _take(images, context, instance, image_id, update_task_state,
                  _Thin if form == THIN else _Archive)
    except Exception:
        # A user sees only that the image is gone again.
        LOG.exception('Snapshot %s failed', image_id, instance=instance)
        if shelving:
            # Nova takes away only those that a user has asked for.
            compute_utils.delete_image(context, instance, glance.API(),
                                       image_id)
        raise


def _take(images, context, instance, image_id, update_task_state, kind):
    below = images.record_of(instance)
    if below is None:
        raise exception.StateConflict(
            f'container {instance.uuid}: this host does not know image '
            f'{instance.image_ref} any more; rebuild the server')
    update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
    with contextlib.ExitStack() as files, contextlib.ExitStack() as undo:
        file = files.enter_context(
            images.store.spool.file(f'snapshot-{image_id}'))
        made = engine.diff(instance.uuid, file.name, _COMPRESSION)
        if made['dropped']:
            LOG.warning('%d sockets and files whose names begin with .wh. '
                        'are not in the snapshot', made['dropped'],
                        instance=instance)
        update_task_state(task_state=task_states.IMAGE_UPLOADING,
                          expected_state=task_states.IMAGE_PENDING_UPLOAD)
        snapshot = kind(images, context, instance, below, files, undo)
        layers = snapshot.below()
        layers.append(snapshot.add(_described(made), file))
        now = datetime.datetime.now(datetime.UTC).isoformat()
        config = image_config.committed(
            below.raw_config, [layer.diff_id for layer in layers], now,
            'openstack server image create',
            f'snapshot of server {instance.uuid}')
        blobs = [layer.blob for layer in layers]
        data = upload.Counted(snapshot.data(thin.build(config, blobs)))
        upload.require_whole(glance.API().update(
            context, image_id, {
                'container_format': thin.CONTAINER_FORMAT,
                'disk_format': thin.DISK_FORMAT,
                'properties': {
                    thin.PROPERTY: kind.form, 'image_location': 'snapshot',
                    'image_state': 'available',
                    'owner_id': instance.project_id}},
            data=data, purge_props=False), data)
        undo.pop_all()
        snapshot.finish()


def _described(made: dict) -> _Layer:
    """What ``diff.write`` and ``layer.pack`` say, as a layer."""
    return _Layer(
        digest.Digest(made['diff_id']),
        manifest.Descriptor(thin.media_type(_COMPRESSION),
                            digest.Digest(made['blob_digest']), made['size']))


class _Thin:
    """Layers as images of their own.

    :param undo: takes back what was uploaded
    """

    form = THIN

    def __init__(self, images: images_.Images, context, instance,
                 below: record.Record, files: contextlib.ExitStack,
                 undo: contextlib.ExitStack):
        self._images = images
        self._context = context
        self._instance = instance
        self._below = below
        self._undo = undo
        # Those that depend on nobody else's goodwill.
        self._own = layer_images.LayerImages(context)
        self._member = (instance.project_id
                        if instance.project_id != context.project_id else None)
        self._digests: dict[digest.Digest, digest.Digest] = {}

    def add(self, layer: _Layer, file, offset: int = 0) -> _Layer:
        """Upload a layer that lies in a spool file, unless it is there."""
        blob = archive.LayerBlob(layer.diff_id, None, layer.blob.size,
                                 _COMPRESSION, layer.blob.digest)
        if not self._own.find([blob])[layer.blob.digest]:
            data = stream.Slice(file.fileno(), offset, layer.blob.size)
            self._undo.callback(self._own.delete, self._own.upload(
                layer.blob, layer.diff_id, data, self._member))
        return layer

    def below(self) -> list[_Layer]:
        """The layers of the image below, each readable by the project."""
        done: dict[digest.Digest, _Layer] = {}
        unique = {layer.diff_id: layer for layer in self._below.layers}
        known = [layer for layer in unique.values() if layer.blob_digest]
        found = self._own.find(known)
        for layer in known:
            if found[layer.blob_digest]:
                done[layer.diff_id] = _referenced(layer)
        missing = [layer for layer in unique.values()
                   if layer.diff_id not in done]
        self._copy_shared(
            [layer for layer in missing if layer.offset is None], done)
        # One of no size came with the server, in no archive.
        self._split([layer for layer in missing if layer.offset is not None
                     and layer.size
                     and layer.compression in manifest.LAYER_TYPES.values()],
                    done)
        for layer in missing:
            if layer.diff_id not in done:
                done[layer.diff_id] = self._made_again(layer)
        return [done[layer.diff_id] for layer in self._below.layers]

    def _copy_shared(self, layers: list[archive.LayerBlob],
                     done: dict[digest.Digest, _Layer]) -> None:
        """Upload layers that another project shares as the project's own."""
        if not layers:
            return
        try:
            owner = glance.API().get(self._context,
                                     self._instance.image_ref)['owner']
        except nova_exception.ImageNotFound:
            return
        source = layer_images.LayerImages(self._context, lambda: owner)
        found = source.find(layers)
        for layer in layers:
            for image in found[layer.blob_digest]:
                with self._images.store.spool.file(
                        f'layer-{layer.diff_id.short}', layer.size) as file:
                    try:
                        source.fetch(image, file)
                        done[layer.diff_id] = self._stored(layer, file, 0)
                        break
                    except (exception.ImageForbidden,
                            exception.ImageInvalid):
                        continue

    def _split(self, layers: list[archive.LayerBlob],
               done: dict[digest.Digest, _Layer]) -> None:
        """Upload layers that are in the archive of the image below."""
        if not layers:
            return
        image_ref = self._instance.image_ref
        with self._images.store.spool.file(f'base-{image_ref}') as file:
            try:
                self._images.download(self._context, image_ref, file,
                                      self._instance.trusted_certs)
            except (exception.ImageForbidden, exception.ImageUntrusted) as e:
                LOG.info('Image %s is not to be had (%s); its layers are made '
                         'again from this host\'s', image_ref, e,
                         instance=self._instance)
                return
            for layer in layers:
                done[layer.diff_id] = self._stored(
                    layer, file, layer.offset or 0)

    def _stored(self, layer: archive.LayerBlob, file, offset: int) -> _Layer:
        """Upload a layer of the image below from a file that has it.

        :raises ImageInvalid: it is not what was unpacked here
        """
        data = stream.Slice(file.fileno(), offset, layer.size)
        while data.read(_PIECE):
            pass
        found = digest.Digest('sha256:' + data.hash.hexdigest())
        if layer.blob_digest not in (None, found):
            raise exception.ImageInvalid(
                f'layer {layer.diff_id.short}: its blob has the digest '
                f'{found.short}, not {layer.blob_digest.short}')
        self._digests[layer.diff_id] = found
        return self.add(_referenced(dataclasses.replace(
            layer, blob_digest=found)), file, offset)

    def _made_again(self, layer: archive.LayerBlob) -> _Layer:
        """Upload a layer as a new one of the same content."""
        with self._images.store.spool.file(
                f'layer-{layer.diff_id.short}') as file:
            made = privileged_layer.pack(layer.diff_id, file.name,
                                         _COMPRESSION)
            return self.add(_described(made), file)

    def data(self, document: bytes):
        """The image's data, file-like."""
        return io.BytesIO(document)

    def finish(self) -> None:
        """The image is there."""
        if self._digests:
            self._images.store.note_digests(self._instance.image_ref,
                                            self._digests)


def _referenced(layer: archive.LayerBlob) -> _Layer:
    assert layer.blob_digest is not None
    return _Layer(layer.diff_id, manifest.Descriptor(
        thin.media_type(layer.compression), layer.blob_digest, layer.size))


class _Archive:
    """All layers in one archive, those below made again from this host's.

    :param files: closes and removes spool files
    """

    form = ARCHIVE

    def __init__(self, images: images_.Images, context, instance,
                 below: record.Record, files: contextlib.ExitStack,
                 undo: contextlib.ExitStack):
        self._spool = images.store.spool
        self._below = below
        self._files = files
        self._parts: dict[digest.Digest, tuple[_Layer, spool.File]] = {}

    def below(self) -> list[_Layer]:
        """The layers of the image below, in spool files."""
        done: dict[digest.Digest, _Layer] = {}
        for layer in self._below.layers:
            if layer.diff_id not in done:
                file = self._files.enter_context(
                    self._spool.file(f'layer-{layer.diff_id.short}'))
                done[layer.diff_id] = self.add(_described(
                    privileged_layer.pack(layer.diff_id, file.name,
                                          _COMPRESSION)), file)
        return [done[layer.diff_id] for layer in self._below.layers]

    def add(self, layer: _Layer, file) -> _Layer:
        """Take up a layer that lies in a spool file."""
        self._parts[layer.blob.digest] = (layer, file)
        return layer

    def data(self, document: bytes):
        """The archive, file-like."""
        return _Pieces(self._pieces(document))

    def _pieces(self, document: bytes) -> Iterator[bytes]:
        for layer, file in self._parts.values():
            yield thin.blob_header(layer.blob)
            data = stream.Slice(file.fileno(), 0, layer.blob.size)
            while piece := data.read(_PIECE):
                yield piece
            yield bytes(-layer.blob.size % 512)
        yield document

    def finish(self) -> None:
        """Nothing is to be noted."""


class _Pieces(io.RawIOBase):
    """A file of pieces that are made while it is read."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces = pieces
        self._rest = b''

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._rest:
            try:
                self._rest = next(self._pieces)
            except StopIteration:
                return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
