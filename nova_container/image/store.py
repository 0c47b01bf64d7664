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

"""The images of this host: each fetched once, each layer unpacked once.

``ensure`` makes an image usable. It may be killed at any instruction: a
record is written last and at once, a layer appears under its digest complete,
and ``recover`` removes the rest at the next start.

Who fetches holds a shared lock on the directory of the records, and what is
removed is removed under an exclusive one, also by another process of ours.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import json
import os
import threading
import time
from typing import Protocol

from oslo_concurrency import lockutils
from oslo_log import log as logging

from nova_container import exception
from nova_container.image import archive
from nova_container.image import record
from nova_container.image import rootfs
from nova_container.image import spool
from nova_container.image import thin
from nova_container.image import trust as image_trust
from nova_container.oci import digest
from nova_container.oci import image_config
from nova_container.oci import platform
from nova_container.privileged import layer as privileged_layer

LOG = logging.getLogger(__name__)

# The store has a method of the module's name.
_Record = record.Record

_PARALLEL = 2
_UNLIMITED = 1 << 60


@dataclasses.dataclass(frozen=True)
class Image:
    """An image whose layers are all on this host.

    :param layers: the lowest first, each once, hidden ones left out
    :param size: bytes that its layers use on disk
    """

    id: str
    config: image_config.ImageConfig
    layers: tuple[digest.Digest, ...]
    size: int


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer on this host.

    :param size: bytes on disk
    :param unpacked: when, in seconds since the epoch
    """

    diff_id: digest.Digest
    size: int
    opaque_root: bool
    unpacked: float


class LayerSource(Protocol):
    """Where layers are that are not in their archive: Glance, for one user."""

    def find(self, layers: Sequence[archive.LayerBlob]
             ) -> Mapping[digest.Digest, Sequence[thin.LayerImage]]:
        """Images that may hold the layers and that the user may read, by
        blob digest, the best first.
        """

    def fetch(self, image: thin.LayerImage, file: spool.File) -> None:
        """Write the data of one of them.

        :raises ImageForbidden: it cannot be read any more
        """


class ImageStore:
    """Images and layers below one state directory.

    :param state_path: ``[container] state_path``
    :param host: what images must be for
    """

    def __init__(self, state_path: str, host: platform.Platform | None = None):
        self.spool = spool.Spool(os.path.join(state_path, 'spool'))
        self._records = record.Images(os.path.join(state_path, 'images'))
        self._blobs = record.Blobs(os.path.join(state_path, 'blobs'))
        self._layers = os.path.join(state_path, 'layers', 'sha256')
        self._host = host or platform.Platform.of_machine(os.uname().machine)
        # Layers that images on their way in count on, under the lock.
        self._claims: collections.Counter[str] = collections.Counter()
        self._claims_lock = threading.Lock()
        self._closing = threading.Event()
        # Waiting for the disk would double the time of a boot.
        self._syncer = concurrent.futures.ThreadPoolExecutor(
            1, thread_name_prefix='layer-sync')

    def recover(self) -> None:
        """Remove what an interrupted fetch left; once per service start.

        Layers that are complete stay, for the next attempt.
        """
        self.spool.recover()
        self._records.recover()
        for diff_id in privileged_layer.recover():
            LOG.warning('Layer %s was not yet on the disk when the host went '
                        'down; it will be fetched again', diff_id)
        for layer in self.layers():
            if not os.path.exists(os.path.join(
                    self._layers, layer.diff_id.hex, 'tree')):
                self._syncer.submit(self._seal, layer.diff_id)

    def close(self) -> None:
        """Wait for what must not be left undone; the store ends here."""
        self._closing.set()
        self._syncer.shutdown()

    def ensure(self, image_id: str, fetch: Callable[[spool.File], None],
               size: int | None = None, max_bytes: int | None = None,
               source: LayerSource | None = None,
               trust: image_trust.Trust | None = None) -> Image:
        """The image, fetched and unpacked if it is not here yet.

        :param image_id: Glance's
        :param fetch: writes the archive to the file it is given; not called
            if the image is here. What it raises is passed on
        :param size: of the archive in bytes, if known
        :param max_bytes: limit of what the layers may use on disk
        :param source: of layers that are not in the archive. It is asked for
            them whether they are here or not
        :param trust: what ``fetch`` checks the signature of the archive
            against. An image that is here without such a check is fetched
            again, and its layers are compared with the archive
        :raises ImageInvalid: not an image, or a damaged one
        :raises ImageForbidden: the user may not read one of its layers
        :raises ImageArchitecture: not for this host
        :raises ImageTooBig: larger than ``max_bytes``
        :raises NoSpace: the file system is full
        """
        # Boots of one image wait for the first.
        with lockutils.lock(f'nova-container-image-{image_id}'), \
                _about(image_id, max_bytes), self._lock(fcntl.LOCK_SH):
            image = self.get(image_id)
            if image is None or not self._trusted(image_id, trust):
                with self.spool.file(image_id, size) as file:
                    fetch(file)
                    _complete(file, size)
                    return self._admit(image_id, file, max_bytes, source,
                                       trust)
            if max_bytes is not None and image.size > max_bytes:
                raise exception.ImageTooBig(f'{image.size} bytes')
            self._permit(image_id, source)
            self._records.touch(image_id)
            return image

    def _trusted(self, image_id: str,
                 trust: image_trust.Trust | None) -> bool:
        if trust is None:
            return True
        known = self._records.load(image_id)
        return trust.met_by(known.trust if known else None)

    def _permit(self, image_id: str, source: LayerSource | None) -> None:
        """See that the user may read the layers of an image that is here."""
        known = self._records.load(image_id)
        outside = known.outside if known else ()
        found = _find(source, outside)
        for blob in dict.fromkeys(outside):
            if not self._proven(blob, found[_blob(blob)]):
                self._obtain(blob, found[_blob(blob)], source, _UNLIMITED)

    @contextlib.contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        """
        :raises BlockingIOError: LOCK_NB was asked for, and it is held
        """
        fd = os.open(self._records.path,
                     os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, kind)
            yield
        finally:
            os.close(fd)

    def get(self, image_id: str) -> Image | None:
        """The image, if it is complete on this host."""
        known = self._records.load(image_id)
        if known is None:
            return None
        found = [layer for blob in known.layers
                 if (layer := self.layer(blob.diff_id)) is not None]
        if len(found) < len(known.layers):
            return None
        return self._image(image_id, known.config, found)

    def record(self, image_id: str) -> record.Record | None:
        """What the image is made of, whether its layers are here or not."""
        return self._records.load(image_id)

    def records(self) -> list[str]:
        """All images that have a record."""
        return self._records.ids()

    def layer(self, diff_id: digest.Digest) -> Layer | None:
        """The layer, if it is on this host."""
        try:
            with open(os.path.join(self._layers, diff_id.hex,
                                   'layer.json'), 'rb') as file:
                found = json.load(file)
                unpacked = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None
        return Layer(diff_id, found['bytes'], found['opaque_root'], unpacked)

    def layers(self) -> list[Layer]:
        """All layers on this host."""
        found = (self.layer(digest.Digest('sha256:' + name))
                 for name in os.listdir(self._layers))
        return [layer for layer in found if layer is not None]

    def adopt(self, image_id: str, known: _Record) -> Image | None:
        """Record an image whose layers are all here, under a new id.

        :returns: None if one of them is not here
        """
        if None not in (self.layer(blob.diff_id) for blob in known.layers):
            self._records.save(image_id, known)
        return self.get(image_id)

    def remove(self, image_id: str) -> None:
        """Forget an image; its layers stay. Succeeds if it is unknown."""
        self._records.remove(image_id)

    def unpack(self, spool_name: str, blob: archive.LayerBlob,
               offset: int) -> None:
        """Unpack one layer of a spool file, unless it is here."""
        with _layer_lock(blob.diff_id):
            if self._take(spool_name, blob, offset, _UNLIMITED):
                self._syncer.submit(self._sync, (blob.diff_id,))

    def touch(self, image_id: str) -> None:
        """Note that the image is of use."""
        self._records.touch(image_id)

    def note_digests(self, image_id: str,
                     blobs: Mapping[digest.Digest, digest.Digest]) -> None:
        """Note blob digests of layers, by diffID, whose format has none."""
        known = self._records.load(image_id)
        if known is not None:
            self._records.save(image_id, dataclasses.replace(
                known, layers=tuple(
                    dataclasses.replace(layer, blob_digest=layer.blob_digest
                                        or blobs.get(layer.diff_id))
                    for layer in known.layers)))

    def users(self) -> dict[digest.Digest, list[str]]:
        """Ids of the images that need each layer."""
        found: dict[digest.Digest, list[str]] = {}
        for image_id, diff_id in self._records.layers():
            if image_id not in found.setdefault(diff_id, []):
                found[diff_id].append(image_id)
        return found

    def images_of(self, uses: Iterable[Sequence[str]]) -> set[str]:
        """Ids of the images that containers are made of.

        :param uses: the layers of each container
        """
        wanted = {tuple(layers) for layers in uses}
        return {image_id for image_id in self._records.ids()
                if (image := self.get(image_id)) is not None
                and tuple(map(str, image.layers)) in wanted}

    def used_layers(self) -> set[str]:
        """diffIDs that an image on this host, or on its way in, needs."""
        with self._claims_lock:
            used = set(self._claims)
        used.update(diff_id for _image, diff_id in self._records.layers())
        return used

    def _admit(self, image_id: str, file: spool.File, max_bytes: int | None,
               source: LayerSource | None,
               trust: image_trust.Trust | None) -> Image:
        """Unpack what is missing, and write the record."""
        found = archive.read(file.fileno(), self._host)
        if isinstance(found, archive.RootFileSystem):
            found = rootfs.image(found, privileged_layer.survey(
                file.name, found.size, found.compression,
                _UNLIMITED if max_bytes is None else max_bytes), self._host)
        # Equal layers are one.
        blobs = {blob.diff_id: blob for blob in found.layers}
        with contextlib.ExitStack() as undo:
            self._claim(blobs)
            made: list[digest.Digest] = []
            undo.callback(self._discard, made)
            undo.callback(self._release, blobs)
            on_disk = self._unpack(file.name, tuple(blobs.values()), made,
                                   max_bytes, source)
            self._records.save(image_id, record.Record(found.raw_config,
                                                       found.layers, trust))
            undo.pop_all()
            self._release(blobs)
        if made:
            self._syncer.submit(self._sync, tuple(made))
        return self._image(image_id, found.config,
                           [on_disk[diff_id]
                            for diff_id in found.config.diff_ids])

    def _unpack(self, spool_name: str, blobs: tuple[archive.LayerBlob, ...],
                made: list[digest.Digest], max_bytes: int | None,
                source: LayerSource | None) -> dict[digest.Digest, Layer]:
        """Unpack the layers that are missing and verify the others.

        :param made: receives the diffIDs of layers unpacked from the archive,
            as they appear
        """
        limit = _UNLIMITED if max_bytes is None else max_bytes
        on_disk: dict[digest.Digest, Layer] = {}
        elsewhere = _find(source, [blob for blob in blobs
                                   if blob.offset is None])

        def one(blob: archive.LayerBlob) -> None:
            left = max(limit - sum(item.size for item
                                   in list(on_disk.values())), 0)
            try:
                if blob.offset is None:
                    on_disk[blob.diff_id] = self._obtain(
                        blob, elsewhere[_blob(blob)], source, left)
                    return
                with _layer_lock(blob.diff_id):
                    if self._take(spool_name, blob, blob.offset, left):
                        made.append(blob.diff_id)
                    on_disk[blob.diff_id] = self._require(blob.diff_id)
            except exception.ImageTooBig:
                raise exception.ImageTooBig(f'more than {limit} bytes')

        # The largest first, lest it is waited for alone in the end.
        order = sorted(blobs, key=lambda blob: blob.size, reverse=True)
        with concurrent.futures.ThreadPoolExecutor(_PARALLEL) as pool:
            jobs = [pool.submit(one, blob) for blob in order]
            done, _rest = concurrent.futures.wait(
                jobs, return_when=concurrent.futures.FIRST_EXCEPTION)
            for job in jobs:
                job.cancel()
        for job in done:
            job.result()
        total = sum(layer.size for layer in on_disk.values())
        if total > limit:
            raise exception.ImageTooBig(f'{total} bytes')
        return on_disk

    def _take(self, spool_name: str, blob: archive.LayerBlob, offset: int,
              limit: int) -> bool:
        """Unpack a layer, or verify it if it is here; whether it was new.

        To be called under the layer's lock.
        """
        where = (spool_name, blob.diff_id, offset, blob.size,
                 blob.compression)
        if self.layer(blob.diff_id) is None:
            privileged_layer.unpack(*where, limit, blob.blob_digest or '')
            return True
        # Naming a layer is not having it.
        privileged_layer.verify(*where, blob.blob_digest or '')
        return False

    def _require(self, diff_id: digest.Digest) -> Layer:
        layer = self.layer(diff_id)
        if layer is None:
            raise exception.ContainerError(
                f'layer {diff_id.short}: it was removed from this host '
                'meanwhile; try again')
        return layer

    def _proven(self, blob: archive.LayerBlob,
                candidates: Sequence[thin.LayerImage]) -> bool:
        """Whether one of the images, all of which the user may read, holds
        what was unpacked here, by what Glance has computed of its data.

        What the user says of it, a name or a property, proves nothing.
        """
        known = self._blobs.load(_blob(blob))
        return known is not None and known.diff_id == blob.diff_id and any(
            image.size == known.size and image.hash_value is not None
            and known.hashes.get(image.hash_algo or '') == image.hash_value
            for image in candidates)

    def _obtain(self, blob: archive.LayerBlob,
                candidates: Sequence[thin.LayerImage],
                source: LayerSource | None, limit: int) -> Layer:
        """Have a layer on this host that is not in its archive.

        It stays whatever becomes of the image, for the next attempt.
        """
        with _layer_lock(blob.diff_id):
            layer = self.layer(blob.diff_id)
            if layer is not None and self._proven(blob, candidates):
                return layer
            problem: exception.ContainerError | None = None
            for image in candidates:
                try:
                    if self._fetch(blob, image, source, limit):
                        self._syncer.submit(self._sync, (blob.diff_id,))
                    return self._require(blob.diff_id)
                except (exception.ImageInvalid,
                        exception.ImageForbidden) as e:
                    problem = e
        if problem is not None:
            raise problem
        raise exception.ImageForbidden(
            f'layer {_blob(blob).short} ({blob.size} bytes) is neither in '
            'the archive nor a layer image that this project may read; its '
            'owner has to share the layer images, too, or upload them again')

    def _fetch(self, blob: archive.LayerBlob, image: thin.LayerImage,
               source: LayerSource | None, limit: int) -> bool:
        assert source is not None
        if blob.size > privileged_layer.stream_limit(limit):
            raise exception.ImageTooBig(f'more than {limit} bytes')
        with self.spool.file(f'layer-{_blob(blob).short}', blob.size,
                             image.hash_algo) as file:
            source.fetch(image, file)
            _complete(file, blob.size)
            new = self._take(file.name, blob, 0, limit)
            hashes = {}
            if image.hash_algo and file.hash_value:
                hashes[image.hash_algo] = file.hash_value
            self._blobs.save(_blob(blob), record.Blob(
                blob.diff_id, blob.size, hashes))
            return new

    def expire(self, in_use: Iterable[str], layers_in_use: Iterable[str],
               age: float, until: float = float('inf')) -> None:
        """Remove images that nothing has used for a while, and layers that
        no image needs any more.

        :param in_use: ids of images of servers
        :param layers_in_use: diffIDs that containers need
        :param age: seconds without use after which an image goes; also
            since a layer was unpacked that no image needs
        :param until: monotonic time at which to leave the rest for later
        """
        oldest = time.time() - age
        used = set(in_use)
        for image_id in self._records.ids():
            if image_id in used:
                self._records.touch(image_id)
            elif self._records.last_used(image_id) <= oldest:
                self._unless_busy(self._expire_image, image_id, oldest)
        kept = set(layers_in_use)
        for layer in self.layers():
            if time.monotonic() > until:
                return
            if layer.diff_id not in kept and layer.unpacked <= oldest:
                self._unless_busy(self._expire_layer, layer)
        self._unless_busy(lambda: self._blobs.keep(
            layer.diff_id for layer in self.layers()))

    def _expire_image(self, image_id: str, oldest: float) -> None:
        if self._records.last_used(image_id) <= oldest:
            self._records.remove(image_id)
            LOG.info('Image %s has not been used for a while; removed it',
                     image_id)

    def _expire_layer(self, layer: Layer) -> None:
        if layer.diff_id not in self.used_layers():
            privileged_layer.remove(layer.diff_id)
            LOG.info('No image needs layer %s; removed it', layer.diff_id)

    def _unless_busy(self, step: Callable[..., None], *args: object) -> None:
        """Leave a step for the next time while an image is fetched."""
        with contextlib.suppress(BlockingIOError), \
                self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            step(*args)

    def _image(self, image_id: str, config: image_config.ImageConfig,
               layers: list[Layer]) -> Image:
        unique = {layer.diff_id: layer for layer in layers}
        # The topmost of equal layers hides the others, and a layer with an
        # opaque root all below it; overlayfs wants to know neither.
        visible: list[digest.Digest] = []
        for layer in reversed(layers):
            if layer.diff_id not in visible:
                visible.insert(0, layer.diff_id)
            if layer.opaque_root:
                break
        return Image(image_id, config, tuple(visible),
                     sum(layer.size for layer in unique.values()))

    def _claim(self, diff_ids: Iterable[str]) -> None:
        with self._claims_lock:
            self._claims += collections.Counter(list(diff_ids))

    def _release(self, diff_ids: Iterable[str]) -> None:
        with self._claims_lock:
            self._claims -= collections.Counter(list(diff_ids))

    def _sync(self, diff_ids: tuple[digest.Digest, ...]) -> None:
        try:
            privileged_layer.sync(diff_ids)
        except Exception:
            # They are synced by the kernel in time; until then a crash of the
            # host costs no more than fetching them again.
            LOG.exception('Layers could not be synced to the disk')
        for diff_id in diff_ids:
            self._seal(diff_id)

    def _seal(self, diff_id: digest.Digest) -> None:
        if self._closing.is_set():
            return
        try:
            privileged_layer.seal(diff_id)
        except Exception:
            # Whoever removes a layer does not wait for this.
            if self.layer(diff_id) is not None:
                LOG.exception('Damage of layer %s will not be found', diff_id)

    def _discard(self, made: list[digest.Digest]) -> None:
        """Remove layers of an image that did not make it."""
        for diff_id in made:
            with _layer_lock(diff_id):
                if diff_id in self.used_layers():
                    continue
                try:
                    privileged_layer.remove(diff_id)
                except Exception:
                    # Why the image did not make it matters more.
                    LOG.exception('Layer %s could not be removed', diff_id)


def _layer_lock(diff_id: digest.Digest
                ) -> contextlib.AbstractContextManager[object]:
    return lockutils.lock(f'nova-container-layer-{diff_id}')


def _blob(blob: archive.LayerBlob) -> digest.Digest:
    """The blob digest of a layer outside its archive, which it always has."""
    assert blob.blob_digest is not None
    return blob.blob_digest


def _find(source: LayerSource | None, outside: Sequence[archive.LayerBlob]
          ) -> Mapping[digest.Digest, Sequence[thin.LayerImage]]:
    found: dict[digest.Digest, Sequence[thin.LayerImage]] = {
        _blob(blob): () for blob in outside}
    if source is not None and outside:
        found.update(source.find(outside))
    return found


def _complete(file: spool.File, size: int | None) -> None:
    """
    :raises ImageIncomplete: it is shorter than announced
    """
    if size is not None and file.size < size:
        raise exception.ImageIncomplete(
            f'only {file.size} of {size} bytes came from Glance')


@contextlib.contextmanager
def _about(image_id: str, max_bytes: int | None) -> Iterator[None]:
    """Name the image in errors."""
    try:
        yield
    except exception.ImageTooBig as e:
        raise exception.ImageTooBig(
            f"image {image_id} needs {e} unpacked, the flavor's disk allows "
            f'{max_bytes} bytes; choose a larger flavor')
    except (exception.UserError, exception.NoSpace,
            exception.ImageIncomplete) as e:
        raise type(e)(f'image {image_id}: {e}')
