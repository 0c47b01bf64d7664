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

"""Everything that makes a container, in one value."""

import dataclasses
import re

from nova_container import exception
from nova_container.spec import disk as disk_
from nova_container.spec import file
from nova_container.spec import health as health_
from nova_container.spec import identifier
from nova_container.spec import limits as limits_
from nova_container.spec import network
from nova_container.spec import restart as restart_
from nova_container.spec import signals
from nova_container.spec import volume as volume_

_DIFF_ID = re.compile(r'^sha256:[0-9a-f]{64}$')
_HOSTNAME = re.compile(r'^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$')
_ENV_NAME = re.compile(r'^[^=\0]+$')

APPLICATION = 'application'
MACHINE = 'machine'

# Half of what execve(2) lets the kernel copy, so that the rest has room.
_ARGS_AND_ENV_MAX = 1 << 20
_LAYERS_MAX = 500
_STOP_TIMEOUT_MAX = 3600


def check_id(container_id: str) -> str:
    """``container_id`` itself, if it is a UUID in canonical form.

    :raises InvalidSpec: otherwise
    """
    return identifier.check_uuid('container', container_id)


@dataclasses.dataclass(frozen=True)
class Process:
    """The container's first process.

    :param args: command and arguments, at least one
    :param env: pairs of name and value, in order
    :param cwd: absolute directory inside the container
    :param user: ``user[:group]``, names or numbers, as in an image's config
    :param stop_signal: what asks it to end, ``SIGTERM`` or ``SIGRTMIN+3``
    :param stop_timeout: seconds until it is killed; None for what is usual
    :param terminal: a pseudo-terminal as standard input and output
    """

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = '/'
    user: str = ''
    stop_signal: str = 'SIGTERM'
    stop_timeout: float | None = None
    terminal: bool = False

    def __post_init__(self) -> None:
        if not self.args or not self.args[0]:
            raise exception.ProcessInvalid(
                'the container has no command: the image has neither '
                'Entrypoint nor Cmd; set the server property '
                'container:command')
        size = sum(len(a) for a in self.args)
        for name, value in self.env:
            if not _ENV_NAME.match(name) or '\0' in value:
                raise exception.ProcessInvalid(
                    f'environment variable name {name!r} is not valid')
            size += len(name) + len(value) + 2
        if any('\0' in text for text in (*self.args, self.cwd, self.user)):
            raise exception.ProcessInvalid(
                'command, directory and user must not contain a NUL byte')
        if size > _ARGS_AND_ENV_MAX:
            raise exception.ProcessInvalid(
                f'command and environment have {size} bytes, more than '
                f'{_ARGS_AND_ENV_MAX}')
        if not self.cwd.startswith('/'):
            raise exception.ProcessInvalid(
                f'working directory {self.cwd!r} is not absolute')
        signals.number(self.stop_signal)
        if self.stop_timeout is not None and not (
                0 <= self.stop_timeout <= _STOP_TIMEOUT_MAX):
            raise exception.InvalidSpec(
                f'stop_timeout {self.stop_timeout} is not in '
                f'0..{_STOP_TIMEOUT_MAX} seconds')


@dataclasses.dataclass(frozen=True)
class ContainerSpec:
    """What a container is, apart from its interfaces.

    Interfaces are plugged between create and start, and again at each start,
    so they are passed then.

    :param id: UUID; the Nova instance's
    :param layers: diffIDs, the lowest first
    :param addresses: the container's own, for /etc/hosts
    :param kind: APPLICATION: the process is the image's own, as it is; or
        MACHINE: it is an init such as systemd, which finds what it expects
    :param init: a small init as process 1, which reaps orphans and passes
        signals on to ``process``
    :param privileged: see ``oci.rights``
    :param nesting: a container runtime can work inside
    :param restart: whether the process is started again when it has ended
    :param health: how to find out whether it does its work
    :param config_drive: read-only below /config-drive, for its root alone
    :param authorized_keys: of root, as sshd(8) has them
    :param injected: written into the root file system before the first start
    """

    id: str
    hostname: str
    process: Process
    layers: tuple[str, ...]
    limits: limits_.Limits = limits_.Limits()
    disk: disk_.Disk = disk_.Disk()
    dns: network.Dns = network.Dns()
    addresses: tuple[str, ...] = ()
    kind: str = APPLICATION
    init: bool = False
    privileged: bool = False
    nesting: bool = False
    restart: restart_.RestartPolicy = restart_.RestartPolicy()
    health: health_.Healthcheck | None = None
    config_drive: tuple[file.File, ...] = ()
    authorized_keys: str = ''
    injected: tuple[file.File, ...] = ()
    volumes: tuple[volume_.Attachment, ...] = ()

    def __post_init__(self) -> None:
        check_id(self.id)
        if not _HOSTNAME.fullmatch(self.hostname):
            raise exception.InvalidSpec(
                f'hostname {self.hostname!r} is not valid')
        if not 1 <= len(self.layers) <= _LAYERS_MAX:
            raise exception.InvalidSpec(
                f'{len(self.layers)} layers are not in 1..{_LAYERS_MAX}')
        for layer in self.layers:
            if not _DIFF_ID.fullmatch(layer):
                raise exception.InvalidSpec(
                    f'layer {layer!r} is not a sha256 digest')
        if self.kind not in (APPLICATION, MACHINE):
            raise exception.InvalidSpec(
                f'container kind {self.kind!r} is neither {APPLICATION} nor '
                f'{MACHINE}')
        volume_.check_distinct(self.volumes)
        if self.disk.boot is not None and self.disk.boot.volume in (
                each.volume for each in self.volumes):
            raise exception.InvalidSpec(
                f'volume {self.disk.boot.volume} is attached, and it is '
                'booted from')
        if self.kind == MACHINE and self.init:
            raise exception.InvalidSpec(
                f'a {MACHINE} container has an init of its own; remove '
                'container:init')

    def volume_ids(self) -> tuple[str, ...]:
        """Of all volumes that it needs while it runs."""
        boot = () if self.disk.boot is None else (self.disk.boot.volume,)
        return (*boot, *(each.volume for each in self.volumes))
