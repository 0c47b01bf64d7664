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

"""Layers on their way to or from Glance, several at once, each with a bar."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import concurrent.futures
import contextlib
import hashlib
import io
import os
import pathlib
import sys

from rich import console
from rich import progress

from nova_container import exception
from nova_container.image import thin
from nova_container.oci import digest
from nova_container.oci import manifest
from nova_container.osc import glance

PARALLEL = 3


class Bars:
    """A bar for each layer on a terminal, a line for each elsewhere."""

    def __init__(self) -> None:
        self._terminal = console.Console(stderr=True)
        self._bars = progress.Progress(
            progress.TextColumn('{task.description}'), progress.BarColumn(),
            progress.DownloadColumn(), progress.TransferSpeedColumn(),
            progress.TextColumn('{task.fields[state]}'),
            console=self._terminal, disable=not self._terminal.is_terminal)

    def __enter__(self) -> 'Bars':
        self._bars.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._bars.stop()

    def say(self, blob: digest.Digest, size: int, state: str) -> None:
        """A layer that does not travel, and why."""
        if self._bars.disable:
            print(f'{blob.short}: {state}', file=sys.stderr)
        else:
            self._bars.add_task(blob.short, total=size, completed=size,
                                state=state)

    @contextlib.contextmanager
    def layer(self, blob: digest.Digest, size: int,
              done: str) -> Iterator[Callable[[int], None]]:
        """A layer under way; yields what is told of each piece."""
        bar = self._bars.add_task(blob.short, total=size, state='')
        yield lambda count: self._bars.advance(bar, count)
        if self._bars.disable:
            print(f'{blob.short}: {done}', file=sys.stderr)
        else:
            self._bars.update(bar, state=done)


class Data:
    """Bytes in memory, to be uploaded."""

    def __init__(self, data: bytes):
        self._file = io.BytesIO(data)
        self._size = len(data)

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


class _Upload:
    """A file that is read once, from its start to its end."""

    def __init__(self, path: pathlib.Path, advance: Callable[[int], None]):
        self._file = open(path, 'rb')
        self._size = os.fstat(self._file.fileno()).st_size
        self._advance = advance

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._advance(len(data))
        return data

    def close(self) -> None:
        self._file.close()


def _each(action: Callable[[manifest.Descriptor], None],
          layers: Iterable[manifest.Descriptor], parallel: int) -> None:
    """Do it for every layer; the first error ends it."""
    # The largest first, lest it is waited for alone in the end.
    order = sorted(layers, key=lambda layer: layer.size, reverse=True)
    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        jobs = [pool.submit(action, layer) for layer in order]
        try:
            done, _ = concurrent.futures.wait(
                jobs, return_when=concurrent.futures.FIRST_EXCEPTION)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    for job in done:
        job.result()


def upload(store: glance.Glance, bars: Bars,
           layers: dict[manifest.Descriptor, glance.Fields],
           path: Callable[[digest.Digest], pathlib.Path],
           parallel: int = PARALLEL) -> None:
    """Upload layers.

    :param layers: with the fields of the images to be made of them
    :param path: tells where the blob of a layer is
    """
    def one(layer: manifest.Descriptor) -> None:
        with bars.layer(layer.digest, layer.size, 'uploaded') as advance, \
                contextlib.closing(_Upload(path(layer.digest), advance)) as it:
            store.create(layers[layer], it)

    _each(one, layers, parallel)


def download(store: glance.Glance, bars: Bars,
             layers: dict[manifest.Descriptor, list[thin.LayerImage]],
             path: Callable[[digest.Digest], pathlib.Path],
             parallel: int = PARALLEL) -> None:
    """Download layers, and check each against its digest.

    :param layers: with the images that may hold them, the best first
    :param path: tells where to write the blob of a layer
    :raises ImageInvalid: Glance has other bytes than the digest says
    """
    def one(layer: manifest.Descriptor) -> None:
        for image in layers[layer]:
            found = hashlib.sha256()
            with bars.layer(layer.digest, layer.size, 'downloaded') \
                    as advance, open(path(layer.digest), 'wb') as file:
                for piece in store.data(image.id):
                    found.update(piece)
                    file.write(piece)
                    advance(len(piece))
            if f'sha256:{found.hexdigest()}' == layer.digest:
                return
        raise exception.ImageInvalid(
            f'layer {layer.digest}: what Glance has is of another digest; '
            'push the image again')

    _each(one, layers, parallel)
