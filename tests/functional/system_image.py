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

"""Debian systems, built from packages once and kept."""

import contextlib
import fcntl
import os
import pathlib
import subprocess

from tests import archives

_CACHE = pathlib.Path('/var/cache/nova-container-tests')
_SYSTEM = ('systemd', 'systemd-sysv', 'dbus')
_CLOUD_INIT = (*_SYSTEM, 'cloud-init', 'iproute2', 'openssh-server',
               'passwd')
_ENGINE = ('conmon', 'crun', 'podman', 'runc')


def release() -> str:
    """The suite of Debian to take: this machine's, if it runs Debian."""
    with open('/etc/os-release') as file:
        release = dict(line.rstrip().split('=', 1) for line in file
                       if '=' in line)
    if release.get('ID', '').strip('"') == 'debian':
        return release['VERSION_CODENAME'].strip('"')
    return 'stable'


def _kept(name: str, packages: tuple[str, ...], suite: str) -> pathlib.Path:
    """A root file system as an uncompressed tar."""
    path = _CACHE / f'{name}-{suite}.tar'
    _CACHE.mkdir(parents=True, exist_ok=True)
    with open(_CACHE / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_suffix('.new.tar')
            with contextlib.suppress(FileNotFoundError):
                unfinished.unlink()
            subprocess.run(
                ['mmdebstrap', '--quiet', '--variant=minbase',
                 '--aptopt=APT::Install-Recommends "false"',
                 f'--include={",".join(packages)}', '--dpkgopt=path-exclude='
                 '/usr/share/{doc,locale,man}/*', suite, str(unfinished)],
                check=True, capture_output=True, text=True,
                env={**os.environ, 'LC_ALL': 'C.UTF-8'})
            unfinished.rename(path)
    return path


def _layer(name: str, packages: tuple[str, ...]) -> bytes:
    return _kept(name, packages, release()).read_bytes()


def build(suite: str, nested: bool) -> tuple[pathlib.Path, ...]:
    """The files of a system, for another host.

    :param nested: that of one with podman, too
    """
    kept = [_kept('systemd', _SYSTEM, suite)]
    if nested:
        kept.append(_kept('podman', _ENGINE, suite))
    return tuple(kept)


def layer(suite: str | None = None) -> bytes:
    """A system with systemd as an uncompressed tar.

    :param suite: of Debian; this machine's if it is not given
    """
    return _kept('systemd', _SYSTEM, suite or release()).read_bytes()


def cloud_layer() -> bytes:
    """The same with cloud-init."""
    return _layer('cloud-init', _CLOUD_INIT)


def archive(suite: str | None = None) -> bytes:
    """A ``docker save`` archive of one layer."""
    return archives.docker_archive(layer(suite))


def engine_archive(inner: bytes) -> bytes:
    """A system with podman and runc instead, and an archive at ``/inner``."""
    return archives.docker_archive(
        _layer('podman', _ENGINE),
        archives.tar(archives.entry('inner', inner)))
