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

"""Control groups of containers and of their monitors, versions 1 and 2.

Limits are the OCI runtime's business. Ours are the monitors' own group, so
that a restart of nova-compute's service does not take them down, and the
parents, which no one else removes.
"""

import contextlib
import errno
import functools
import os
import re
import threading

from nova_container.privileged import place
from nova_container.privileged import systemd

ROOT = '/sys/fs/cgroup'

_PREPARING = threading.Lock()


def hierarchies() -> list[str]:
    """Mount points of the cgroup file systems, one on a cgroup v2 host."""
    found = []
    for line in open('/proc/self/mountinfo'):
        fields = line.split(' - ')
        if fields[1].split()[0] in ('cgroup', 'cgroup2'):
            found.append(fields[0].split()[4])
    return found


@functools.cache
def unified() -> bool:
    """Whether the host has cgroup v2 alone."""
    return os.path.exists(os.path.join(ROOT, 'cgroup.controllers'))


def adopt_monitor(pid: int) -> None:
    """Move a monitor out of the control group of the service.

    Into one group of ours always, by which ``monitors`` finds it. Where it is
    in the root group, which nothing limits or ends, it stays: each move waits
    for the whole kernel.
    """
    if systemd.manages():
        systemd.adopt_monitor(pid)
        return
    groups = _groups(pid)
    for number, root in enumerate(hierarchies()):
        if number and groups.get(_controller(root)) == '/':
            continue
        group = root + place.cgroup(systemd.MONITORS)
        os.makedirs(group, exist_ok=True)
        if os.path.basename(root) == 'cpuset':
            _inherit_cpuset(root, group)
        with open(os.path.join(group, 'cgroup.procs'), 'w') as procs:
            procs.write(str(pid))


def prepare_moves() -> None:
    """Tell the kernel that processes will be moved; returns at once.

    A move waits until every processor has passed a quiescent state of RCU, 8
    to 17 ms, unless another move has just done so (percpu-rwsem in the
    kernel). So one that changes nothing is made while there is other work.
    """
    if _PREPARING.acquire(blocking=False):
        try:
            threading.Thread(target=_move_nowhere, name='cgroup',
                             daemon=True).start()
        except RuntimeError:
            # As many threads as there may be; the move that counts waits.
            _PREPARING.release()


def _move_nowhere() -> None:
    pid = os.getpid()
    # Whatever is wrong, the move that counts will tell.
    with contextlib.suppress(OSError, LookupError):
        try:
            root = hierarchies()[0]
            group = _groups(pid)[_controller(root)]
            with open(f'{root}{group}/cgroup.procs', 'w') as procs:
                procs.write(str(pid))
        finally:
            _PREPARING.release()


def _controller(root: str) -> str:
    """What ``_groups`` calls the hierarchy that is mounted there."""
    name = os.path.basename(root)
    return '' if unified() or name == 'unified' else name


def _groups(pid: int) -> dict[str, str]:
    """A process's groups by controllers, '' for those of version 2."""
    found = {}
    with open(f'/proc/{pid}/cgroup') as lines:
        for line in lines:
            _, controllers, group = line.rstrip('\n').split(':', 2)
            found[controllers.removeprefix('name=')] = group
    return found


def _inherit_cpuset(root: str, group: str) -> None:
    """A new v1 cpuset is empty, and takes no process until it is filled."""
    path = root
    for part in os.path.relpath(group, root).split('/'):
        parent, path = path, os.path.join(path, part)
        for name in ('cpuset.cpus', 'cpuset.mems'):
            with open(os.path.join(path, name)) as own:
                filled = own.read().strip()
            if not filled:
                with open(os.path.join(parent, name)) as theirs:
                    value = theirs.read()
                with open(os.path.join(path, name), 'w') as own:
                    own.write(value)


def members(container_id: str) -> set[int]:
    """Process ids in a container's groups."""
    return _pids(place.lasting_cgroup(container_id))


def monitors() -> set[int]:
    """Process ids of the monitors."""
    return _pids(place.cgroup(systemd.MONITORS))


# Kernel documentation, cgroup-v2.rst, "Model of Delegation".
_DELEGATED = ('', 'cgroup.procs', 'cgroup.threads', 'cgroup.subtree_control')

# Bytes, with the zero at the end and with the slash in front; and names of
# files in a group, generously.
_PATH_MAX = 4096
_NAME_MAX = 256
_FILE_MAX = 64

# Each takes memory of the host, and time to remove.
_DESCENDANTS_MAX = 10000


def delegate(container_id: str, owner: int) -> None:
    """Let a container divide its own group; its limits stay out of reach.

    No group in it is too deep for a path: the OCI runtime removes them by
    path, and so does this module.

    :param owner: host id of the container's root
    """
    root = ROOT if unified() else ROOT + '/unified'
    group = root + place.cgroup(container_id)
    depth = (_PATH_MAX - len(group) - _FILE_MAX) // _NAME_MAX
    for name, most in (('cgroup.max.depth', depth),
                       ('cgroup.max.descendants', _DESCENDANTS_MAX)):
        with open(os.path.join(group, name), 'w') as file:
            file.write(str(most))
    for name in _DELEGATED:
        os.chown(os.path.join(group, name), owner, owner)


def has_v2() -> bool:
    """Whether there is a version 2 hierarchy, alone or beside version 1."""
    return any(os.path.exists(f'{root}/cgroup.procs')
               and os.path.exists(f'{root}/cgroup.subtree_control')
               for root in (ROOT, ROOT + '/unified'))


def _pids(group: str) -> set[int]:
    pids: set[int] = set()
    for root in hierarchies():
        for directory, _, files in os.walk(root + group):
            if 'cgroup.procs' in files:
                pids.update(_own_pids(os.path.join(directory,
                                                   'cgroup.procs')))
    return pids - {0}


def _own_pids(path: str) -> list[int]:
    try:
        return [int(pid) for pid in (read(path) or '').split()]
    except OSError as e:
        # A threaded group: its processes are those of one above it.
        if e.errno != errno.EOPNOTSUPP:
            raise
        return []


def frozen(container_id: str) -> bool:
    """Whether all processes of a container are held still."""
    group = place.cgroup(container_id)
    if unified():
        path, word = f'{ROOT}{group}/cgroup.freeze', '1'
    else:
        path, word = f'{ROOT}/freezer{group}/freezer.state', 'FROZEN'
    return (read(path) or '').strip() == word


def oom_kills(container_id: str) -> int:
    """How many processes the kernel has ended for want of memory.

    Since the last start; 0 for a container that is halted.
    """
    if unified():
        # Counts what is and was below, too.
        files = [f'{ROOT}{place.lasting_cgroup(container_id)}/memory.events']
    else:
        files = [f'{directory}/memory.oom_control' for directory, _, _
                 in os.walk(f'{ROOT}/memory{place.cgroup(container_id)}')]
    count = 0
    for path in files:
        content = read(path)
        for killed in re.findall(r'^oom_kill (\d+)$', content or '', re.M):
            count += int(killed)
    return count


def reclaim(container_id: str) -> None:
    """Have the kernel take from a container what memory it can do without.

    Caches go; what only the container has, goes to swap, as far as the host
    has it and the container may use it. cgroup-v2.rst (memory.reclaim),
    cgroup-v1/memory.rst (memory.force_empty).
    """
    group = place.cgroup(container_id)
    if unified():
        path = f'{ROOT}{group}/memory.reclaim'
        amount = read(f'{ROOT}{group}/memory.current')
    else:
        path, amount = f'{ROOT}/memory{group}/memory.force_empty', '0'
    try:
        if amount is not None:
            write(path, amount)
    except OSError as e:
        # It could not take all of that (EAGAIN, EBUSY), or is too old.
        if e.errno not in (errno.EAGAIN, errno.EBUSY, errno.EACCES):
            raise


# The latter between open and what follows.
_GONE = (errno.ENOENT, errno.ENODEV)


def read(path: str) -> str | None:
    """A file of a control group; None when the group is gone."""
    try:
        with open(path) as file:
            return file.read()
    except OSError as e:
        if e.errno not in _GONE:
            raise
        return None


def write(path: str, content: str) -> None:
    """Change a file of a control group, unless the group is gone."""
    try:
        with open(path, 'w') as file:
            file.write(content)
    except OSError as e:
        if e.errno not in _GONE:
            raise


def remove(container_id: str) -> None:
    """Remove what the OCI runtime left of a container's groups.

    :raises OSError: EBUSY while there is a process in one
    """
    if systemd.manages():
        systemd.remove(container_id)
    for root in hierarchies():
        _remove_tree(root + place.lasting_cgroup(container_id))


def remove_all() -> None:
    """Remove the parents too, once no container and monitor is left."""
    if systemd.manages():
        systemd.remove_all()
    for root in hierarchies():
        _remove_tree(root + place.cgroup())


def _remove_tree(path: str) -> None:
    for directory, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(directory)
        except OSError as e:
            if e.errno != errno.ENOENT:
                raise
