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

::

    <state_path>/images/<image id>.json    record: the image is complete here
    <state_path>/images/<server id>.json   what a server was made of: its image
                                           may change or go
    <state_path>/spool/<image id>.*.part   an archive on its way in or out

``ensure`` makes an image usable. It may be killed at any instruction: a
record is written last and at once, a layer appears under its digest complete,
and ``recover`` removes the rest at the next start.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import concurrent.futures
import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import re
import secrets
import threading

from oslo_concurrency import lockutils
from oslo_log import log as logging

from nova_container import exception
from nova_container.image import archive
from nova_container.image import rootfs
from nova_container.oci import digest
from nova_container.oci import image_config
from nova_container.oci import platform
from nova_container.privileged import layer as privileged_layer

LOG = logging.getLogger(__name__)

_IMAGE_ID = re.compile(r'^[A-Za-z0-9][A-Za-z0-9_-]{0,127}\Z')
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
    """A layer on this host; ``size`` is in bytes on disk."""

    diff_id: digest.Digest
    size: int
    opaque_root: bool


class _Spool:
    """The file that ``fetch`` writes to.

    :param expected: how many bytes should come, if known
    """

    def __init__(self, fd: int, expected: int | None):
        self._fd = fd
        self._expected = expected
        self.size = 0

    def write(self, data: bytes) -> int:
        """Append all of ``data``."""
        view = memoryview(data)
        self.size += len(view)
        if self._expected is not None and self.size > self._expected:
            raise exception.ImageInvalid(
                f'more than the {self._expected} bytes announced came in')
        while view:
            view = view[os.write(self._fd, view):]
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""

    def fileno(self) -> int:
        return self._fd


class ImageStore:
    """Images and layers below one state directory.

    :param state_path: ``[container] state_path``
    :param host: what images must be for
    """

    def __init__(self, state_path: str, host: platform.Platform | None = None):
        self._spool = os.path.join(state_path, 'spool')
        self._records = os.path.join(state_path, 'images')
        self._layers = os.path.join(state_path, 'layers', 'sha256')
        self._host = host or platform.Platform.of_machine(os.uname().machine)
        # Layers that images on their way in count on, under the lock.
        self._claims: collections.Counter[str] = collections.Counter()
        self._claims_lock = threading.Lock()
        # Waiting for the disk would double the time of a boot.
        self._syncer = concurrent.futures.ThreadPoolExecutor(
            1, thread_name_prefix='layer-sync')

    def recover(self, in_use: Iterable[str] | None = None) -> None:
        """Remove what an interrupted fetch left; once per service start.

        :param in_use: diffIDs that containers need; with it, layers that
            neither they nor an image needs are removed, too
        """
        for entry in os.scandir(self._spool):
            with open(entry.path, 'rb') as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                os.unlink(entry.path)
        for entry in os.scandir(self._records):
            if not entry.name.endswith('.json'):
                os.unlink(entry.path)
        for diff_id in privileged_layer.recover():
            LOG.warning('Layer %s was not yet on the disk when the host went '
                        'down; it will be fetched again', diff_id)
        if in_use is not None:
            needed = self.used_layers().union(in_use)
            for layer in self.layers():
                if layer.diff_id not in needed:
                    privileged_layer.remove(layer.diff_id)

    def close(self) -> None:
        """Wait for what goes on in the background; the store ends here."""
        self._syncer.shutdown()

    def ensure(self, image_id: str, fetch: Callable[[_Spool], None],
               size: int | None = None,
               max_bytes: int | None = None) -> Image:
        """The image, fetched and unpacked if it is not here yet.

        :param image_id: Glance's
        :param fetch: writes the archive to the file it is given; not called
            if the image is here. What it raises is passed on
        :param size: of the archive in bytes, if known
        :param max_bytes: limit of what the layers may use on disk
        :raises ImageInvalid: not an image, or a damaged one
        :raises ImageArchitecture: not for this host
        :raises ImageTooBig: larger than ``max_bytes``
        :raises NoSpace: the file system is full
        """
        if not _IMAGE_ID.match(image_id):
            raise exception.ImageInvalid(
                f'image id {image_id!r} is not valid')
        # Boots of one image wait for the first.
        with lockutils.lock(f'nova-container-image-{image_id}'):
            with _about(image_id, max_bytes):
                image = self.get(image_id)
                if image is None:
                    with self._fetched(image_id, fetch, size) as (name, fd):
                        image = self._admit(image_id, name, fd, max_bytes)
                elif max_bytes is not None and image.size > max_bytes:
                    raise exception.ImageTooBig(f'{image.size} bytes')
                return image

    def get(self, image_id: str) -> Image | None:
        """The image, if it is complete on this host."""
        try:
            with open(self._record(image_id)) as file:
                record = json.load(file)
        except FileNotFoundError:
            return None
        config = image_config.ImageConfig.from_json(record['config'].encode())
        layers = []
        for diff_id in config.diff_ids:
            layer = self.layer(diff_id)
            if layer is None:
                return None
            layers.append(layer)
        return self._image(image_id, config, layers)

    def layer(self, diff_id: digest.Digest) -> Layer | None:
        """The layer, if it is on this host."""
        try:
            with open(os.path.join(self._layers, diff_id.hex,
                                   'layer.json'), 'rb') as file:
                found = json.load(file)
        except FileNotFoundError:
            return None
        return Layer(diff_id, found['bytes'], found['opaque_root'])

    def layers(self) -> list[Layer]:
        """All layers on this host."""
        found = (self.layer(digest.Digest('sha256:' + name))
                 for name in os.listdir(self._layers))
        return [layer for layer in found if layer is not None]

    def raw_config(self, image_id: str) -> bytes:
        """The configuration of an image that is here, as it came.

        :raises FileNotFoundError: it is not here
        """
        with open(self._record(image_id)) as file:
            return json.load(file)['config'].encode()

    def adopt(self, image_id: str, raw_config: bytes) -> Image | None:
        """Record an image whose layers are all here, under a new id.

        :returns: None if one of them is not here
        """
        config = image_config.ImageConfig.from_json(raw_config)
        if None not in map(self.layer, config.diff_ids):
            self._write_record(image_id, raw_config, config)
        return self.get(image_id)

    def remove(self, image_id: str) -> None:
        """Forget an image; its layers stay. Succeeds if it is unknown."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._record(image_id))

    def used_layers(self) -> set[str]:
        """diffIDs that an image on this host, or on its way in, needs."""
        with self._claims_lock:
            used = set(self._claims)
        for name in os.listdir(self._records):
            if name.endswith('.json'):
                with contextlib.suppress(FileNotFoundError), \
                        open(os.path.join(self._records, name)) as file:
                    used.update(json.load(file)['diff_ids'])
        return used

    def _record(self, image_id: str) -> str:
        return os.path.join(self._records, image_id + '.json')

    @contextlib.contextmanager
    def _fetched(self, image_id: str, fetch: Callable[[_Spool], None],
                 size: int | None) -> Iterator[tuple[str, int]]:
        """Name and descriptor of the fetched archive, removed afterwards."""
        if size is not None:
            disk = os.statvfs(self._spool)
            if size > disk.f_bavail * disk.f_frsize:
                raise exception.NoSpace(
                    f'{self._spool} has no room for an archive of {size} '
                    'bytes; make room on this host')
        with self.spool(image_id) as (name, fd):
            spool = _Spool(fd, size)
            try:
                fetch(spool)
            except OSError as e:
                if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise exception.NoSpace(
                    f'{self._spool} is full after {spool.size} bytes; make '
                    'room on this host')
            if size is not None and spool.size < size:
                raise exception.ImageIncomplete(
                    f'only {spool.size} of {size} bytes came from Glance')
            yield name, fd

    @contextlib.contextmanager
    def spool(self, owner: str) -> Iterator[tuple[str, int]]:
        """Name and descriptor of a new spool file, removed afterwards.

        :param owner: what its name begins with
        """
        name = f'{owner}.{secrets.token_hex(4)}.part'
        path = os.path.join(self._spool, name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                     0o600)
        try:
            # So that recover leaves it.
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield name, fd
        finally:
            os.unlink(path)
            os.close(fd)

    def unpack(self, spool: str, blob: archive.LayerBlob) -> None:
        """Unpack one layer of a spool file, unless it is here."""
        with lockutils.lock(f'nova-container-layer-{blob.diff_id}'):
            if self.layer(blob.diff_id) is None:
                privileged_layer.unpack(
                    spool, blob.diff_id, blob.offset, blob.size,
                    blob.compression, _UNLIMITED, blob.blob_digest or '')
        self._syncer.submit(_sync, (blob.diff_id,))

    def _admit(self, image_id: str, spool: str, fd: int,
               max_bytes: int | None) -> Image:
        """Unpack what is missing, and write the record."""
        found = archive.read(fd, self._host)
        if isinstance(found, archive.RootFileSystem):
            found = rootfs.image(found, privileged_layer.survey(
                spool, found.size, found.compression,
                _UNLIMITED if max_bytes is None else max_bytes), self._host)
        # Equal layers are one.
        blobs = {blob.diff_id: blob for blob in found.layers}
        with contextlib.ExitStack() as undo:
            self._claim(blobs)
            made: list[digest.Digest] = []
            undo.callback(self._discard, made)
            undo.callback(self._release, blobs)
            on_disk = self._unpack(spool, tuple(blobs.values()), made,
                                   max_bytes)
            self._write_record(image_id, found.raw_config, found.config)
            undo.pop_all()
            self._release(blobs)
        if made:
            self._syncer.submit(_sync, tuple(made))
        return self._image(image_id, found.config,
                           [on_disk[diff_id]
                            for diff_id in found.config.diff_ids])

    def _unpack(self, spool: str, blobs: tuple[archive.LayerBlob, ...],
                made: list[digest.Digest],
                max_bytes: int | None) -> dict[digest.Digest, Layer]:
        """Unpack the layers that are missing and verify the others.

        :param made: receives the diffIDs of layers unpacked, as they appear
        """
        limit = _UNLIMITED if max_bytes is None else max_bytes
        on_disk: dict[digest.Digest, Layer] = {}

        def one(blob: archive.LayerBlob) -> None:
            where = (spool, blob.diff_id, blob.offset, blob.size,
                     blob.compression)
            with lockutils.lock(f'nova-container-layer-{blob.diff_id}'):
                layer = self.layer(blob.diff_id)
                if layer is None:
                    left = limit - sum(item.size for item
                                       in list(on_disk.values()))
                    try:
                        privileged_layer.unpack(*where, max(left, 0),
                                                blob.blob_digest or '')
                    except exception.ImageTooBig:
                        raise exception.ImageTooBig(
                            f'more than {limit} bytes')
                    made.append(blob.diff_id)
                    layer = self.layer(blob.diff_id)
                else:
                    # Naming a layer is not having it.
                    privileged_layer.verify(*where, blob.blob_digest or '')
                assert layer is not None
                on_disk[blob.diff_id] = layer

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

    def _write_record(self, image_id: str, raw_config: bytes,
                      config: image_config.ImageConfig) -> None:
        path = self._record(image_id)
        record = {'config': raw_config.decode(),
                  'diff_ids': list(config.diff_ids)}
        try:
            with open(path + '.new', 'w') as file:
                json.dump(record, file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(path + '.new', path)
        except OSError as e:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + '.new')
            if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise exception.NoSpace(
                f'{self._records} is full; make room on this host')

    def _claim(self, diff_ids: Iterable[str]) -> None:
        with self._claims_lock:
            self._claims += collections.Counter(list(diff_ids))

    def _release(self, diff_ids: Iterable[str]) -> None:
        with self._claims_lock:
            self._claims -= collections.Counter(list(diff_ids))

    def _discard(self, made: list[digest.Digest]) -> None:
        """Remove layers of an image that did not make it."""
        for diff_id in made:
            with lockutils.lock(f'nova-container-layer-{diff_id}'):
                if diff_id in self.used_layers():
                    continue
                try:
                    privileged_layer.remove(diff_id)
                except Exception:
                    # Why the image did not make it matters more.
                    LOG.exception('Layer %s could not be removed', diff_id)


def _sync(diff_ids: tuple[digest.Digest, ...]) -> None:
    try:
        privileged_layer.sync(diff_ids)
    except Exception:
        # They are synced by the kernel in time; until then a crash of the
        # host costs no more than fetching them again.
        LOG.exception('Layers could not be synced to the disk')


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
