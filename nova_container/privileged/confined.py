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

"""Running a job of ``sandbox``: what reads or writes a tenant's trees.

This process never touches their content. See also ``spool_file``: archives
are the service user's files, by name.
"""

from collections.abc import Iterator
import contextlib
import errno
import json
import os
import pathlib
import re
import stat
import subprocess
import sys
import typing

from nova_container import exception
from nova_container.privileged import place
from nova_container.privileged import userns
from nova_container.spec import idmap

_SPOOL_NAME = re.compile(r'^[A-Za-z0-9][A-Za-z0-9._-]{0,200}\Z')

_SANDBOX = pathlib.Path(__file__).with_name('sandbox.py')


@contextlib.contextmanager
def spool_file(name: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A file of the spool directory, which is the service user's.

    :raises ContainerError: it is not a plain file of that user's
    """
    if not isinstance(name, str) or not _SPOOL_NAME.match(name):
        raise exception.ContainerError(
            f'layer: {name!r} is not the name of a spool file')
    fd = os.open(place.state('spool'),
                 os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        owner = os.fstat(fd).st_uid
        # O_NONBLOCK: the service user may have put a fifo there.
        spool = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK
                        | os.O_CLOEXEC, dir_fd=fd)
    finally:
        os.close(fd)
    try:
        status = os.fstat(spool)
        if (not stat.S_ISREG(status.st_mode) or status.st_nlink != 1
                or status.st_uid != owner):
            raise exception.ContainerError(
                f'layer: spool file {name} is not a plain file')
        yield spool
    finally:
        os.close(spool)


@contextlib.contextmanager
def spool_written() -> Iterator[None]:
    """What is written to a spool file meanwhile may not fit.

    :raises NoSpace: so it is
    """
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise exception.NoSpace(
            f'{place.state("spool")} is full; make room on this host')


def run(what: str, ids: idmap.IdMap, directory: str, stdin: int,
        descriptors: tuple[int, ...] = (),
        **job: typing.Any) -> dict[str, typing.Any]:
    """Run a job in a directory whose files belong to ``ids``; its result.

    :param what: begins messages
    :param stdin: descriptor of the archive to read
    :param descriptors: others that the job uses
    :param job: as ``sandbox`` has it
    """
    namespace = userns.create(ids)
    try:
        done = subprocess.run(
            [sys.executable, '-I', '-B', str(_SANDBOX),
             json.dumps({'userns': namespace, **job})],
            stdin=stdin, capture_output=True, cwd=directory,
            pass_fds=(namespace, *descriptors), env=place.ENV)
    finally:
        os.close(namespace)
    if done.returncode != 0:
        words = done.stderr.decode(errors='replace').strip()[-2000:]
        raise exception.ContainerError(
            f'{what}: the sandbox ended with {done.returncode}: {words}')
    result = json.loads(done.stdout)
    if 'error' in result:
        kind = getattr(exception, result['error'])
        raise kind(f'{what}: {result["message"]}')
    return result
