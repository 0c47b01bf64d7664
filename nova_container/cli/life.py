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


"""``run``, ``start``, ``stop``, ``rm``: containers without a cloud.

They have no network but their own loopback.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import fcntl
import hashlib
import math
import os
import pathlib
import re
import shutil
import sys
import uuid

from nova_container.cli import logs
from nova_container.cli import owner
from nova_container.cli import process as process_
from nova_container.compute import process as intended
from nova_container import exception
from nova_container.image import store
from nova_container.privileged import host
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import container
from nova_container.spec import limits

_UNITS = {'': 1, 'b': 1, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30,
          't': 1 << 40}
_GRACE = 10
_UNKNOWN = 125


def lock_path() -> str:
    """Of the lock that every start of a local container shares."""
    return owner.CONF.container.run_path + '.lock'


@contextlib.contextmanager
def _local() -> Iterator[None]:
    """Enter the local containers; the directories are there afterwards.

    Only who is alone may remove what looks half made: another ``run`` may be
    at it.
    """
    owner.enter(owner.Owner.LOCAL)
    lock = os.open(lock_path(),
                   os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(lock, fcntl.LOCK_SH)
            host.setup(os.getuid(), os.getgid())
        else:
            engine.setup(os.getuid(), os.getgid())
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def _image(archive: pathlib.Path) -> store.Image:
    """The archive's image, unpacked once for each version of the file."""
    with open(archive, 'rb') as file:
        status = os.fstat(file.fileno())
        key = hashlib.sha256(repr((
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns,
            status.st_ctime_ns)).encode()).hexdigest()
        images = store.ImageStore(owner.CONF.container.state_path)
        try:
            return images.ensure(
                key, lambda spool: shutil.copyfileobj(file, spool, 1 << 20),
                size=status.st_size)
        finally:
            images.close()


def _bytes(text: str) -> int:
    match = re.fullmatch(r'(\d+)([bkmgt]?)b?', text.lower())
    if match is None:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a size such as 64m or 2g')
    return int(match[1]) * _UNITS[match[2]]


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a number such as 0.5 or 30')
    return value


def _limits(args: argparse.Namespace) -> limits.Limits:
    quota = args.cpus and int(args.cpus * limits.CPU_PERIOD)
    return limits.Limits(cpu_quota=quota, memory=args.memory,
                         pids=args.pids_limit)


def _run(args: argparse.Namespace) -> int:
    if args.tty and not args.detach and not sys.stdin.isatty():
        raise exception.InvalidSpec(
            '--tty: the input of this command is not a terminal')
    if args.detach and args.rm:
        raise exception.InvalidSpec(
            '--rm needs this command to wait for the end; leave out --detach')
    with contextlib.ExitStack() as starting:
        starting.enter_context(_local())
        wishes = {f'container:env:{name}': value
                  for name, value in process_.environment(args.env)}
        for word in ('user', 'workdir', 'entrypoint'):
            if getattr(args, word) is not None:
                wishes[f'container:{word}'] = getattr(args, word)
        image = _image(args.archive)
        kind = (container.APPLICATION if args.command_line
                else intended.kind({}, image.config))
        process = intended.process(wishes, image, kind)
        if args.command_line:
            head = image.config.entrypoint
            if args.entrypoint is not None:
                head = process.args
            process = dataclasses.replace(
                process, args=head + tuple(args.command_line))
        process = dataclasses.replace(process, terminal=args.tty)
        container_id = str(uuid.uuid4())
        spec = container.ContainerSpec(
            id=container_id, hostname=args.name or container_id[:13],
            process=process, limits=_limits(args), kind=kind,
            layers=tuple(str(layer) for layer in image.layers))
        with contextlib.ExitStack() as undo:
            undo.callback(engine.undefine, container_id)
            engine.define(spec)
            engine.create(container_id)

            def begin() -> None:
                engine.start(container_id)
                undo.pop_all()
                starting.close()

            if args.tty and not args.detach:
                return _wait(container_id, args.rm, begin)
            begin()
    if args.detach:
        print(container_id)
        return 0
    return _wait(container_id, args.rm)


def _wait(container_id: str, remove: bool,
          begin: Callable[[], None] | None = None) -> int:
    """Show what the container writes until it ends; its exit code.

    :param begin: starts it, once its terminal is connected to ours
    """
    with contextlib.ExitStack() as end:
        if remove:
            end.callback(engine.undefine, container_id)
        try:
            if begin is not None:
                process_.attach(container_id, begin)
            else:
                logs.Follower(container_id, from_start=True).run()
        except BaseException:
            engine.stop(container_id, _GRACE)
            raise
        current = state.read(container_id)
        if current.status is not state.Status.STOPPED:
            # The operator has detached.
            end.pop_all()
            return 0
        code = current.exit_code
        engine.halt(container_id)
    return _UNKNOWN if code is None else code


def _start(args: argparse.Namespace) -> None:
    with _local():
        for name in args.container:
            container_id = owner.find(name, owner.Owner.LOCAL)
            with contextlib.ExitStack() as undo:
                engine.require(container_id, state.Status.STOPPED)
                engine.halt(container_id)
                undo.callback(engine.halt, container_id)
                engine.create(container_id)
                engine.start(container_id)
                undo.pop_all()
            print(name)


def _stop(args: argparse.Namespace) -> None:
    for name in args.container:
        engine.stop(owner.find(name, owner.Owner.LOCAL), args.time)
        print(name)


def _rm(args: argparse.Namespace) -> None:
    for name in args.container:
        container_id = owner.find(name, owner.Owner.LOCAL)
        if not args.force:
            engine.require(container_id, state.Status.STOPPED)
        engine.undefine(container_id)
        print(name)


def add_commands(command) -> None:
    """Add the group to the parser."""
    run = command(
        'run', _run, 'Run an image archive ("docker save" or OCI) without a '
        'cloud, and return what the process returned.',
        'nova-container run --rm --memory 64m busybox.tar /bin/date')
    run.add_argument('-d', '--detach', action='store_true',
                     help='print the id, and do not wait for the end')
    run.add_argument('-t', '--tty', action='store_true',
                     help='in a terminal, with input')
    run.add_argument('--rm', action='store_true',
                     help='remove the container when it has ended')
    run.add_argument('--name', help='also its host name')
    run.add_argument('-e', '--env', action='append', default=[],
                     metavar='NAME=VALUE', help='environment variable')
    run.add_argument('-w', '--workdir', metavar='DIR',
                     help='directory that the process starts in')
    run.add_argument('-u', '--user', metavar='USER[:GROUP]')
    run.add_argument('--entrypoint', metavar='COMMAND',
                     help='instead of the image\'s entrypoint')
    run.add_argument('-m', '--memory', type=_bytes, metavar='SIZE',
                     help='limit, such as 64m')
    run.add_argument('--cpus', type=_number, metavar='NUMBER',
                     help='limit, such as 0.5')
    run.add_argument('--pids-limit', type=int, metavar='NUMBER',
                     default=4096, help='default: 4096')
    run.add_argument('archive', type=pathlib.Path, metavar='ARCHIVE')
    run.add_argument('command_line', nargs=argparse.REMAINDER,
                     metavar='COMMAND', help='instead of the image\'s own')

    start = command('start', _start, 'Start containers again.',
                    'nova-container start web')
    stop = command('stop', _stop, 'Stop containers: the stop signal first, '
                   'SIGKILL after a while.',
                   'nova-container stop --time 30 web')
    stop.add_argument('-t', '--time', type=_number, default=_GRACE,
                      metavar='SECONDS', help=f'until SIGKILL (default: '
                      f'{_GRACE})')
    rm = command('rm', _rm, 'Remove containers with their files.',
                 'nova-container rm --force web')
    rm.add_argument('-f', '--force', action='store_true',
                    help='also those that run')
    for parser in (start, stop, rm):
        parser.add_argument('container', nargs='+', metavar='CONTAINER')
