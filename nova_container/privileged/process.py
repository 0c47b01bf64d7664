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

"""Processes named by id and start time, so that a reused id is never meant."""

import collections.abc
import contextlib
import dataclasses
import errno
import os
import select
import signal
import time

# States of a task that does nothing any more.
_ENDED = (b'Z', b'X')


@dataclasses.dataclass(frozen=True)
class Process:
    """A process of the host.

    :param pid: its id
    :param started: clock ticks since boot, proc(5) /proc/pid/stat field 22
    """

    pid: int
    started: int


def _fields(path: str) -> list[bytes] | None:
    """Fields 3 and on of a file stat of proc(5); None if it is gone."""
    try:
        with open(path, 'rb', buffering=0) as file:
            # The command's name may hold spaces and brackets.
            return file.read().rpartition(b')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _stat(pid: int) -> list[bytes] | None:
    """Fields of /proc/pid/stat; None for none and for a zombie.

    A process whose first thread alone has ended looks like one, and runs.
    """
    fields = _fields(f'/proc/{pid}/stat')
    if fields and fields[0] in _ENDED and int(fields[17]) <= 1:
        return None
    return fields


def directory(pid: int) -> str:
    """Where proc(5) has the namespaces of a process.

    One whose first thread has ended has them below its other threads alone.
    """
    fields = _fields(f'/proc/{pid}/stat')
    if fields and fields[0] in _ENDED:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in os.listdir(f'/proc/{pid}/task'):
                path = f'/proc/{pid}/task/{thread}'
                fields = _fields(f'{path}/stat')
                if fields and fields[0] not in _ENDED:
                    return path
    return f'/proc/{pid}'


def identify(pid: int) -> Process | None:
    """The process that has ``pid`` now; None for none and for a zombie."""
    fields = _stat(pid)
    return Process(pid, int(fields[19])) if fields else None


def session(process: Process) -> int | None:
    """Session id of this very process; None when it is gone."""
    fields = _stat(process.pid)
    if fields is None or int(fields[19]) != process.started:
        return None
    return int(fields[3])


def alive(process: Process) -> bool:
    """Whether this very process still runs."""
    return identify(process.pid) == process


def open_pidfd(process: Process) -> int | None:
    """pidfd_open(2) of this very process; None when it is gone."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError as e:
        # Linux before 6.16 says EINVAL of one that is just being reaped.
        if e.errno not in (errno.ESRCH, errno.EINVAL):
            raise
        return None
    if not alive(process):
        os.close(fd)
        return None
    return fd


def send_signal(process: Process, number: int) -> bool:
    """Signal it; False when it is gone."""
    fd = open_pidfd(process)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def end_all(find: collections.abc.Callable[[], set[Process]],
            timeout: float) -> None:
    """SIGKILL what ``find`` finds, until it finds nothing.

    :param timeout: seconds, after which what is left is left
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and (rest := find()):
        for each in rest:
            send_signal(each, signal.SIGKILL)
        for each in rest:
            wait(each, max(deadline - time.monotonic(), 0))


def wait(process: Process, timeout: float) -> bool:
    """Wait for its end; False when ``timeout`` seconds were not enough."""
    fd = open_pidfd(process)
    if fd is None:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(fd)
