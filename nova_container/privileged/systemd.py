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

"""systemd as the one that makes control groups.

Where systemd runs on cgroup v2 alone, the tree is its own ("single writer",
systemd.io/CGROUP_DELEGATION): a container then is a scope, made by the OCI
runtime, and all monitors share a scope whose inside is delegated to us. It is
systemd that names slices and scopes, and that removes them: a scope with its
last process. What the kernel has counted would go at once, so each container's
scope has a slice of its own within ours, which stays until we stop it.
"""

import errno
import functools
import os
import subprocess
import time

from oslo_config import cfg

from nova_container import exception
from nova_container.privileged import process

CONF = cfg.CONF

MONITORS = 'monitors'

_ROOT = '/sys/fs/cgroup'
_PROGRAMS = '/usr/sbin:/usr/bin:/sbin:/bin'
_TIMEOUT = 30

# Until a process is looked for that came late and is to be killed.
_PATIENCE = 3


def runs() -> bool:
    """Whether systemd is the host's init: sd_booted(3)."""
    return os.path.isdir('/run/systemd/system')


@functools.cache
def _of_choice() -> bool:
    return runs() and os.path.exists(f'{_ROOT}/cgroup.controllers')


def manages() -> bool:
    """Whether control groups are systemd's ([container] cgroup_manager)."""
    wish = CONF.container.cgroup_manager
    return _of_choice() if wish == 'auto' else wish == 'systemd'


def require() -> None:
    """
    :raises HostUnsupported: the option asks for what is not there
    """
    if manages() and not _of_choice():
        raise exception.HostUnsupported(
            '[container] cgroup_manager = systemd needs systemd as init and '
            'cgroup v2 alone; set it to auto or cgroupfs')


def _stem() -> str:
    """A dash would mean a slice within one: systemd.slice(5)."""
    return CONF.container.cgroup_parent.replace('-', '_')


def _slice() -> str:
    return f'{_stem()}.slice'


def slice_of(container_id: str) -> str:
    """Name of a container's slice, by its dash one within ours."""
    return f'{_stem()}-{container_id.replace("-", "")}.slice'


def path(*parts: str) -> str:
    """A control group below the root: our slice, or a scope in it.

    :param parts: a container's id, or MONITORS; our slice without
    """
    slices = (slice_of(part) for part in parts if part != MONITORS)
    scopes = (f'{CONF.container.cgroup_parent}-{part}.scope'
              for part in parts)
    return '/' + '/'.join((_slice(), *slices, *scopes))


def oci_path(container_id: str) -> str:
    """``linux.cgroupsPath`` of config.json: slice, prefix and name."""
    return (f'{slice_of(container_id)}:{CONF.container.cgroup_parent}:'
            f'{container_id}')


def adopt_monitor(pid: int) -> None:
    """Move a monitor to the scope of the monitors, which it begins if it is
    the first.

    One that has ended is not moved.

    :raises HostUnsupported: systemd does not do it
    """
    procs = f'{_ROOT}{path(MONITORS)}/cgroup.procs'
    deadline = time.monotonic() + _TIMEOUT
    while process.identify(pid) is not None:
        try:
            with open(procs, 'w') as file:
                file.write(str(pid))
            return
        # Not there, or going because the last monitor has just ended.
        except OSError as e:
            refused = str(e)
        said = _begin_scope(pid)
        if time.monotonic() > deadline:
            raise exception.HostUnsupported(
                f'moving the monitor {pid} to {path(MONITORS)} failed: '
                f'{said or refused}')


def _begin_scope(pid: int) -> str:
    """Ask for the scope of the monitors; what was said against it.

    org.freedesktop.systemd1(5), StartTransientUnit. It is told that there is
    one already when another monitor was faster.
    """
    name = os.path.basename(path(MONITORS))
    done = subprocess.run(
        ['busctl', '--quiet', 'call', 'org.freedesktop.systemd1',
         '/org/freedesktop/systemd1', 'org.freedesktop.systemd1.Manager',
         'StartTransientUnit', 'ssa(sv)a(sa(sv))', name, 'fail', '5',
         'Description', 's', 'Monitors of containers',
         'Slice', 's', _slice(), 'Delegate', 'b', 'true',
         # A monitor may be gone before systemd has moved it.
         'CollectMode', 's', 'inactive-or-failed',
         'PIDs', 'au', '1', str(pid), '0'],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={'PATH': _PROGRAMS, 'LC_ALL': 'C.UTF-8'}, timeout=_TIMEOUT)
    return done.stderr.strip()


def remove(container_id: str) -> None:
    """End what is left of a container's slice and scope.

    :raises OSError: EBUSY while a process is in it; systemd has only asked it
        to end
    """
    try:
        _systemctl('stop', slice_of(container_id), _PATIENCE)
    except subprocess.TimeoutExpired:
        raise OSError(errno.EBUSY, f'{slice_of(container_id)} does not stop')


def remove_all() -> None:
    """End what is left in our slice, and the slice."""
    for action in ('stop', 'reset-failed'):
        _systemctl(action, _slice())


def _systemctl(action: str, unit: str, timeout: float = _TIMEOUT) -> None:
    """That there is no such unit (any more) is no failure."""
    subprocess.run(['systemctl', '--quiet', action, unit],
                   capture_output=True, stdin=subprocess.DEVNULL,
                   env={'PATH': _PROGRAMS}, timeout=timeout)
