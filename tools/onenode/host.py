# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Whether this machine can run containers, tried where trying is cheap."""

import collections.abc as cabc
import os
import pathlib
import re
import shlex
import subprocess
import tempfile

# Overlay file systems over id-mapped layers.
_KERNEL_MIN = (5, 19)


def _complaint(*command: str) -> str:
    """What a command said when it failed; empty if it did not fail."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return f'{command[0]} is not installed'
    if ended.returncode == 0:
        return ''
    return (ended.stderr.strip().splitlines() or ['no message'])[-1]


def _kernel() -> str:
    release = os.uname().release
    match = re.match(r'(\d+)\.(\d+)', release)
    if match and (int(match[1]), int(match[2])) >= _KERNEL_MIN:
        return ''
    return f'needs Linux 5.19 or later: this is {release}'


def _user_namespaces() -> str:
    said = _complaint('unshare', '--user', '--map-root-user', 'true')
    return said and f'needs user namespaces: {said}'


def _network_namespaces() -> str:
    said = _complaint('unshare', '--net', 'true')
    return said and f'needs network namespaces: {said}'


def _overlay() -> str:
    # /var is where layers are kept, and a tmpfs could say yes for it.
    with tempfile.TemporaryDirectory(dir='/var/tmp') as directory:
        top = pathlib.Path(directory)
        for name in ('lower', 'upper', 'work', 'merged'):
            (top / name).mkdir()
        mount = (f'mount -t overlay overlay -o lowerdir={top}/lower,'
                 f'upperdir={top}/upper,workdir={top}/work '
                 + shlex.quote(f'{top}/merged'))
        said = _complaint('unshare', '--mount', 'sh', '-c', mount)
    return said and f'needs overlay mounts in /var: {said}'


def _cgroups() -> str:
    for controllers in ('/sys/fs/cgroup/cgroup.controllers',
                        '/sys/fs/cgroup/memory'):
        if os.path.exists(controllers):
            break
    else:
        return 'needs control groups mounted at /sys/fs/cgroup'
    if not os.access(controllers.removesuffix('/cgroup.controllers'),
                     os.W_OK):
        return 'needs control groups it may write to: /sys/fs/cgroup'
    return ''


_CHECKS: tuple[cabc.Callable[[], str], ...] = (
    _kernel, _user_namespaces, _network_namespaces, _overlay, _cgroups)


def obstacle() -> str:
    """Why it cannot, all that was found; empty if it can. Needs root."""
    return '; '.join(filter(None, (ask() for ask in _CHECKS)))
