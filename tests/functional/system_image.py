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

"""A Debian system with systemd, built from packages once and kept."""

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import subprocess

from tests import archives

_CACHE = pathlib.Path('/var/cache/nova-container-tests')
_PACKAGES = 'systemd,systemd-sysv,dbus'


def _suite() -> str:
    with open('/etc/os-release') as file:
        release = dict(line.rstrip().split('=', 1) for line in file
                       if '=' in line)
    if release.get('ID', '').strip('"') == 'debian':
        return release['VERSION_CODENAME'].strip('"')
    return 'stable'


def layer() -> bytes:
    """The root file system as an uncompressed tar."""
    suite = _suite()
    path = _CACHE / f'systemd-{suite}.tar'
    _CACHE.mkdir(parents=True, exist_ok=True)
    with open(_CACHE / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_suffix('.new.tar')
            with contextlib.suppress(FileNotFoundError):
                unfinished.unlink()
            subprocess.run(
                ['mmdebstrap', '--quiet', '--variant=minbase',
                 f'--include={_PACKAGES}', '--dpkgopt=path-exclude='
                 '/usr/share/{doc,locale,man}/*', suite, str(unfinished)],
                check=True, capture_output=True, text=True,
                env={**os.environ, 'LC_ALL': 'C.UTF-8'})
            unfinished.rename(path)
    return path.read_bytes()


def archive() -> bytes:
    """A ``docker save`` archive of one layer."""
    return archives.docker_archive(layer())


def runtime_archive() -> bytes:
    """The same with this host's runc and its libraries on top."""
    program = shutil.which('runc')
    said = subprocess.run(['ldd', program], check=True, capture_output=True,
                          text=True).stdout
    libraries = re.findall(r'=> (/\S+/(libseccomp\S+)) ', said)
    return archives.docker_archive(layer(), archives.tar(
        archives.entry('usr/bin/runc', pathlib.Path(program).read_bytes(),
                       mode=0o755),
        *(archives.entry(f'usr/lib/{name}', pathlib.Path(path).read_bytes(),
                         mode=0o755) for path, name in libraries)))
