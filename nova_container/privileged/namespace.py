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

"""Run a few steps inside another mount or network namespace.

setns(2) and unshare(2) act on the calling thread, so each call gets a thread
of its own, which ends with it. Child processes started from there stay inside
(clone(2) copies the caller's namespaces).

The mounts of all containers live in one mount namespace, pinned at
``<run_path>/ns/mnt``: no other daemon that makes itself a mount namespace
keeps copies of them, and they survive our own restart. Mounts of the host
still arrive there (its propagation is slave).

A program that is to stay in a container's mounts gets a namespace with those
alone (``with_tree``): the OCI runtime copies the namespace it is in and reads
its list of mounts more than once, so starting a container would take the
longer the more of them run.
"""

import collections.abc
import fcntl
import os
import subprocess
import threading
import typing

from nova_container import exception
from nova_container.privileged import linux
from nova_container.privileged import place

T = typing.TypeVar('T')


def _in_thread(enter: collections.abc.Callable[[], None],
               steps: collections.abc.Callable[..., T],
               *args: typing.Any) -> T:
    outcome: list[typing.Any] = [None, None]

    def body() -> None:
        try:
            enter()
            outcome[0] = steps(*args)
        except BaseException as e:
            outcome[1] = e

    thread = threading.Thread(target=body, name='namespace')
    thread.start()
    thread.join()
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def is_mount_point(path: str) -> bool:
    """Also for a bind mount within one file system."""
    return os.path.realpath(path) in {
        line.split()[4] for line in open('/proc/self/mountinfo')}


def ensure_mount_namespace() -> str:
    """Path of the pinned mount namespace, made if it is not there."""
    directory = place.run('ns')
    pin = os.path.join(directory, 'mnt')
    os.makedirs(directory, mode=0o711, exist_ok=True)
    lock = os.open(place.run('ns.lock'), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
                   0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A namespace can only be pinned on a mount that does not propagate.
        if not is_mount_point(directory):
            linux.mount(directory, directory, flags=linux.MS_BIND)
            linux.mount('none', directory, flags=linux.MS_PRIVATE)
        if not is_mount_point(pin):
            os.close(os.open(pin, os.O_CREAT | os.O_CLOEXEC, 0o600))
            _in_thread(lambda: None, _pin_new, pin)
    finally:
        os.close(lock)
    return pin


def _pin_new(pin: str) -> None:
    """Pin a new mount namespace, in a thread that may change its affinity.

    A namespace can be pinned only in one with a lower id, and since Linux 6.18
    each processor gives out ids from a batch of its own. The processor where
    ours was made gives a higher one.
    """
    allowed = os.sched_getaffinity(0)
    for processors in (allowed, *({number} for number in sorted(allowed))):
        os.sched_setaffinity(0, processors)
        done = subprocess.run(
            ['unshare', f'--mount={pin}', '--propagation', 'slave', 'true'],
            capture_output=True, text=True, env=place.ENV)
        if done.returncode == 0:
            return
    raise exception.HostUnsupported(
        f'making the mount namespace {pin} failed: {done.stderr.strip()}')


def drop_mount_namespace() -> None:
    """Unpin it; the kernel unmounts everything in it with its last process."""
    directory = place.run('ns')
    for path in (os.path.join(directory, 'mnt'), directory):
        if os.path.exists(path) and is_mount_point(path):
            linux.umount(path)


def with_mounts(steps: collections.abc.Callable[..., T],
                *args: typing.Any) -> T:
    """``steps(*args)`` in the mount namespace of the containers."""
    fd = os.open(ensure_mount_namespace(), os.O_RDONLY | os.O_CLOEXEC)

    def enter() -> None:
        # A thread may change its mount namespace once it no longer shares
        # its root and working directory with the others.
        linux.unshare(linux.CLONE_FS)
        linux.setns(fd, linux.CLONE_NEWNS)

    try:
        return _in_thread(enter, steps, *args)
    finally:
        os.close(fd)


def with_mounts_of(process_fd: int, steps: collections.abc.Callable[..., T],
                   *args: typing.Any) -> T:
    """``steps(*args)`` where a container's processes see the file system.

    Its root is the container's: no symbolic link leads out of it.

    :param process_fd: descriptor of its /proc/<pid>/ns/mnt
    """
    def enter() -> None:
        linux.unshare(linux.CLONE_FS)
        linux.setns(process_fd, linux.CLONE_NEWNS)

    return _in_thread(enter, steps, *args)


def with_tree(path: str, steps: collections.abc.Callable[..., T],
              *args: typing.Any) -> T:
    """``steps(*args)`` in a mount namespace of their own, like the host's.

    To be called in the mount namespace of the containers.

    :param path: a mount point; of the mounts of containers there are only
        this one and those below it
    """
    tree = linux.open_tree(path, linux.AT_RECURSIVE)

    def enter() -> None:
        # Not thread-self: the first thread is in the namespace of the host.
        host = os.open('/proc/self/ns/mnt', os.O_RDONLY | os.O_CLOEXEC)
        try:
            linux.unshare(linux.CLONE_FS)
            linux.setns(host, linux.CLONE_NEWNS)
        finally:
            os.close(host)
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount('none', '/', flags=linux.MS_REC | linux.MS_SLAVE)
        linux.move_mount(tree, path)

    try:
        return _in_thread(enter, steps, *args)
    finally:
        os.close(tree)


def with_network(netns_fd: int, steps: collections.abc.Callable[..., T],
                 *args: typing.Any) -> T:
    """``steps(*args)`` in a network namespace.

    :raises NetworkFailed: the namespace is the caller's own, where the steps
        would change the host's interfaces
    """
    own = os.stat('/proc/thread-self/ns/net')
    if os.path.samestat(os.fstat(netns_fd), own):
        raise exception.NetworkFailed(
            'the network namespace to configure is the host\'s own')
    return _in_thread(lambda: linux.setns(netns_fd, linux.CLONE_NEWNET),
                      steps, *args)
