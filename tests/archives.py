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

"""Image archives made by hand, good and hostile, in a few lines."""

from collections.abc import Sequence
import gzip
import hashlib
import io
import json
import os
import tarfile

import zstandard

MACHINES = {'x86_64': 'amd64', 'aarch64': 'arm64'}
ARCHITECTURE = MACHINES.get(os.uname().machine, os.uname().machine)

_OCI = 'application/vnd.oci.image.'


def entry(name: str, data: bytes = b'', kind: bytes = tarfile.REGTYPE,
          **fields) -> tuple[tarfile.TarInfo, bytes]:
    """A tar member; ``fields`` are attributes of TarInfo."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, **fields) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str, **fields) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.SYMTYPE, linkname=target, **fields)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.LNKTYPE, linkname=target)


def tar(*entries: tuple[tarfile.TarInfo, bytes],
        form: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed archive of the entries, in order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w', format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def files(content: dict[str, bytes]) -> bytes:
    """An archive of plain files."""
    return tar(*(entry(name, data) for name, data in content.items()))


def digest(data: bytes) -> str:
    return 'sha256:' + hashlib.sha256(data).hexdigest()


def config(layers: Sequence[bytes], architecture: str = ARCHITECTURE,
           **fields) -> bytes:
    """An image config for uncompressed layers."""
    return json.dumps({
        'architecture': architecture, 'os': 'linux',
        'config': {'Cmd': ['/bin/sh']},
        'rootfs': {'type': 'layers',
                   'diff_ids': [digest(layer) for layer in layers]},
    } | fields).encode()


def docker_archive(*layers: bytes, raw_config: bytes | None = None,
                   **extra: bytes) -> bytes:
    """What docker save wrote before version 25."""
    raw_config = raw_config or config(layers)
    name = digest(raw_config)[7:] + '.json'
    paths = [f'{index:064x}/layer.tar' for index in range(len(layers))]
    return files({name: raw_config, **dict(zip(paths, layers)), **extra,
                  'manifest.json': json.dumps([{
                      'Config': name, 'RepoTags': ['test:latest'],
                      'Layers': paths}]).encode()})


def compress(data: bytes, compression: str) -> bytes:
    match compression:
        case 'gzip':
            return gzip.compress(data, 1, mtime=0)
        case 'zstd':
            return zstandard.ZstdCompressor().compress(data)
    return data


class OciArchive:
    """An OCI image layout, blob by blob."""

    def __init__(self):
        self.content: dict[str, bytes] = {
            'oci-layout': b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(self, data: bytes, media_type: str, **fields) -> dict:
        """Add a blob; returns its descriptor."""
        self.content[f'blobs/sha256/{digest(data)[7:]}'] = data
        return {'mediaType': media_type, 'digest': digest(data),
                'size': len(data), **fields}

    def image(self, *layers: bytes, compression: str = 'none',
              raw_config: bytes | None = None, **fields) -> dict:
        """Add an image; returns the descriptor of its manifest."""
        return self.packed_image(
            [compress(layer, compression) for layer in layers], compression,
            raw_config or config(layers), **fields)

    def packed_image(self, blobs: Sequence[bytes], compression: str,
                     raw_config: bytes, **fields) -> dict:
        """The same of layers that are compressed already."""
        suffix = '' if compression == 'none' else '+' + compression
        return self.blob(json.dumps({
            'schemaVersion': 2,
            'config': self.blob(raw_config, _OCI + 'config.v1+json'),
            'layers': [self.blob(blob, f'{_OCI}layer.v1.tar{suffix}')
                       for blob in blobs],
        }).encode(), _OCI + 'manifest.v1+json', **fields)

    def index(self, *manifests: dict) -> dict:
        """Add a nested index; returns its descriptor."""
        return self.blob(_index(manifests), _OCI + 'index.v1+json')

    def save(self, *manifests: dict) -> bytes:
        """The archive."""
        return files(self.content | {'index.json': _index(manifests)})


def _index(manifests: Sequence[dict]) -> bytes:
    return json.dumps({'schemaVersion': 2,
                       'manifests': list(manifests)}).encode()


def oci_archive(*layers: bytes, compression: str = 'none') -> bytes:
    """An OCI archive of one image."""
    archive = OciArchive()
    return archive.save(archive.image(*layers, compression=compression))
