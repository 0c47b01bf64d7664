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

"""What a process has open: proc_pid_fd(5), proc_pid_map_files(5).

A file stays open without a descriptor while it is mapped, or while it is in a
socket's queue (SCM_RIGHTS, unix(7)); a thread may have descriptors of its own
(clone(2) without CLONE_FILES).
"""

from collections.abc import Iterator
import os
import re

_QUEUED = re.compile(r'^scm_fds:\s*[1-9]', re.M)


def of(pid: int) -> Iterator[str]:
    """Links in /proc to the files that a process has open."""
    for task in _listed(f'/proc/{pid}/task'):
        yield from _entries(f'/proc/{pid}/task/{task}/fd')
    yield from _entries(f'/proc/{pid}/map_files')


def queued(link: str) -> bool:
    """Whether one of these is a socket with descriptors in its queue."""
    directory, _, name = link.rpartition('/')
    try:
        if not os.readlink(link).startswith('socket:'):
            return False
        with open(f'{directory}info/{name}') as file:
            return _QUEUED.search(file.read()) is not None
    except (FileNotFoundError, ProcessLookupError):
        return False


def _entries(directory: str) -> Iterator[str]:
    for name in _listed(directory):
        yield f'{directory}/{name}'


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, ProcessLookupError):
        return []
