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

"""The files of the console log: the beginning, the previous one, the current.

conmon starts a new file when the current one is full and drops the old. A
hard link to the current file outlives that: once link and file differ, the
link is the *previous* file, and the first that becomes one gives the
beginning, which is kept for good::

    log         what conmon writes to
    log.link    the same file, or the one that conmon has just left
    log.1       the previous file
    log.head    the first bytes ever written

However fast a container writes, the beginning is not lost, and no more than
``[container] log_size`` is kept for long.
"""

import contextlib
import os

from nova_container import exception
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import place

READ_MAX = 16 << 20
HEAD_SIZE = 64 << 10

# A full file may be held three times: current, left just now, previous.
_FILES = 3


def file_size() -> int:
    """Bytes at which conmon starts a new file."""
    return place.CONF.container.log_size // _FILES


def keep(container_id: str) -> None:
    """Take up a file that conmon has left. The caller holds the lock."""
    current, link, previous, head = (
        place.container_state(container_id, name)
        for name in ('log', 'log.link', 'log.1', 'log.head'))
    with contextlib.suppress(FileNotFoundError):
        if os.path.lexists(link) and not os.path.samefile(link, current):
            if not os.path.exists(head):
                with open(link, 'rb') as file:
                    definition.write(head, file.read(HEAD_SIZE), 0o600)
            os.rename(link, previous)
    with contextlib.suppress(FileNotFoundError, FileExistsError):
        os.link(current, link)


@context.entrypoint
def keep_all() -> None:
    """Take up what conmon has left, for every container that runs."""
    for container_id in os.listdir(place.run('c')):
        with contextlib.suppress(exception.ContainerNotFound,
                                 BlockingIOError):
            with definition.locked(container_id, wait=False):
                keep(container_id)


def _check(limit: int) -> None:
    if type(limit) is not int or not 0 < limit <= READ_MAX:
        raise exception.InvalidSpec(
            f'log limit {limit} is not in 1..{READ_MAX}')


def _read(container_id: str, name: str, limit: int, tail: bool) -> bytes:
    path = place.container_state(container_id, name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return b''
    with open(fd, 'rb') as log:
        if tail:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - limit))
        return log.read(limit)


@context.entrypoint
def read_tail(container_id: str, limit: int) -> bytes:
    """The last ``limit`` bytes of the log, in conmon's format."""
    _check(limit)
    text = _read(container_id, 'log', limit, tail=True)
    if len(text) < limit:
        text = _read(container_id, _left(container_id), limit - len(text),
                     tail=True) + text
    return text


def _left(container_id: str) -> str:
    """Which file conmon has left last."""
    with contextlib.suppress(FileNotFoundError):
        if not os.path.samefile(
                place.container_state(container_id, 'log.link'),
                place.container_state(container_id, 'log')):
            return 'log.link'
    return 'log.1'


@context.entrypoint
def read_head(container_id: str, limit: int) -> bytes:
    """The first ``limit`` bytes of the log, in conmon's format; HEAD_SIZE at
    most once the first file is full.
    """
    _check(limit)
    for name in ('log.head', 'log.link', 'log'):
        text = _read(container_id, name, limit, tail=False)
        if text:
            return text
    return b''
