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

"""Whether this machine can run a suite that needs root and its kernel."""

import collections.abc as cabc
import os
import pathlib
import shlex
import subprocess
import tempfile

from suites import suite


def _complaint(*command: str) -> str:
    """What a command said when it failed; empty if it did not fail."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return f'{command[0]} is not installed'
    if ended.returncode == 0:
        return ''
    return (ended.stderr.strip().splitlines() or ['no message'])[-1]


def _root() -> str:
    return '' if os.geteuid() == 0 else 'needs root'


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
    _user_namespaces, _network_namespaces, _overlay, _cgroups)


def obstacle(wanted: suite.Suite) -> str:
    """Why this machine cannot run the suite, empty if it can."""
    if not wanted.host:
        return _root() if wanted.root else ''
    return _root() or '; '.join(filter(None, (ask() for ask in _CHECKS)))
