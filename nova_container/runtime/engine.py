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

"""The life of a container, step by step, as an ordinary user asks for it.

::

    define -> create -> (plug) -> start -> stop -> halt -> undefine
              ^                                    |
              +------------------------------------+

Between create and start the process is held: interfaces are plugged then, so
no process ever runs without its network.
"""

import contextlib
import dataclasses
import errno
import typing

from oslo_log import log
from oslo_privsep import daemon

from nova_container import exception
from nova_container.privileged import changes as layer_changes
from nova_container.privileged import container
from nova_container.privileged import creation
from nova_container.privileged import defining
from nova_container.privileged import diff as layer_diff
from nova_container.privileged import disk
from nova_container.privileged import ending
from nova_container.privileged import execution
from nova_container.privileged import host
from nova_container.privileged import layer
from nova_container.privileged import link
from nova_container.privileged import process
from nova_container.privileged import quiescing
from nova_container.privileged import shell
from nova_container.privileged import transfer
from nova_container.runtime import state
from nova_container.spec import codec
from nova_container.spec import command
from nova_container.spec import container as container_spec
from nova_container.spec import disk as disk_spec
from nova_container.spec import limits
from nova_container.spec import network
from nova_container.spec import signals

LOG = log.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a command in a container ended.

    :param exit_code: 128+N for signal N; None when its time was up
    :param truncated: it wrote more than what is here
    """

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    truncated: bool


def _surely(call: typing.Callable[..., None], *args: typing.Any) -> None:
    """Make a call that is as good twice as once; again if the privileged
    helper, which is started anew then, has ended in the middle of it.
    """
    try:
        call(*args)
    except OSError as e:
        # oslo.privsep's own: what a call raises in the helper has a number.
        if e.errno not in (None, errno.EPIPE):
            raise
        LOG.warning('The privileged helper ended in the middle of a call '
                    '(%s); it is started anew, and the call made again', e)
        call(*args)


def define(spec: container_spec.ContainerSpec) -> None:
    """Make the container, or give a halted one a new spec."""
    defining.define(codec.encode(spec))


def disks(container_id: str) -> disk_spec.Disk:
    """The sizes of a container's disks.

    :raises ContainerNotFound: it is not defined
    """
    return codec.decode(disk_spec.Disk, defining.disks(container_id))


def rescue(spec: container_spec.ContainerSpec) -> None:
    """Have a halted container start another spec, on a disk of its own, with
    the container's root file system at ``creation.RESCUED``.
    """
    defining.rescue(codec.encode(spec))


def unrescue(container_id: str) -> None:
    """Have a halted container start its own spec again."""
    defining.unrescue(container_id)


def create(container_id: str, restarts: int = 0) -> None:
    """Mount the root file system, make the namespaces, hold the process.

    :param restarts: how many starts in a row its restart policy has caused
    :raises ProcessInvalid: the tenant's command, user or directory is wrong
    """
    creation.create(container_id, restarts)


def plug(container_id: str, interface: network.NetworkInterface) -> None:
    """Give a created or running container an interface, if it lacks it."""
    link.plug(container_id, codec.encode(interface))


def unplug(host_device: str) -> None:
    """Remove an interface by its end on the host, if it is there."""
    _surely(link.unplug, host_device)


def start(container_id: str) -> None:
    """Let the created process go."""
    container.start(container_id)


def stop(container_id: str, timeout: float) -> None:
    """Ask the process to end, then make it, then halt the container.

    :param timeout: seconds between the stop signal and SIGKILL, unless its
        spec has its own; 0 for none
    """
    current = state.read(container_id)
    own = state.policy(container_id).stop_timeout
    if timeout > 0 and own is not None:
        timeout = own
    if current.status in (state.Status.PAUSED, state.Status.SUSPENDED,
                          state.Status.HELD):
        # Who held it may have let it go, and it has ended since.
        with contextlib.suppress(exception.StateConflict):
            container.resume(container_id)
    if current.process is not None and timeout > 0:
        if container.terminate(container_id):
            process.wait(current.process, timeout)
    _surely(ending.halt, container_id)


def halt(container_id: str, restarts: int | None = None) -> None:
    """End the container at once; succeeds when it does not run.

    :param restarts: the start in a row that its restart policy causes next
    """
    _surely(ending.halt, container_id, restarts)


def diff(container_id: str, spool: str,
         compression: str) -> dict[str, typing.Any]:
    """Write the writable layer to a spool file; see ``privileged.diff``.

    What runs is held still only meanwhile.
    """
    return layer_diff.write(container_id, spool, compression)


def changes(container_id: str, spool: str) -> int:
    """Write the list of what it has changed to a spool file; see
    ``privileged.changes``.

    :returns: the size of the list in bytes
    """
    return layer_changes.write(container_id, spool)


# The directories that a container may have filled.
TREES = tuple(disk.TREES)


def used(container_id: str) -> dict[str, int]:
    """Bytes that each of TREES occupies on the container's disks."""
    return transfer.used(container_id)


def pack(container_id: str, tree: str, spool: str,
         compression: str) -> dict[str, typing.Any]:
    """Append one of TREES of a halted container, as it is, to a spool file;
    see ``privileged.transfer``.
    """
    return transfer.pack(container_id, tree, spool, compression)


def pack_layer(diff_id: str, spool: str,
               compression: str) -> dict[str, typing.Any]:
    """Append a layer to a spool file; see ``privileged.layer``."""
    return layer.pack(diff_id, spool, compression)


def receive(spec: container_spec.ContainerSpec, spool: str,
            parts: list[tuple[str, str, int, int, str]]) -> None:
    """Define a container with what ``pack`` has written, or not at all.

    :param parts: (tree, diffID, offset, size, compression)
    """
    transfer.receive(codec.encode(spec), spool, parts)


def park(container_id: str) -> None:
    """Set a halted container aside, for it has moved."""
    transfer.park(container_id)


def unpark(container_id: str) -> bool:
    """Put a container back that was set aside; False if there is none."""
    return transfer.unpark(container_id)


def discard(container_id: str) -> None:
    """Remove a container that was set aside, if there is one."""
    transfer.discard(container_id)


def update(container_id: str, wish: limits.Limits) -> None:
    """Give the container other limits, at once if it runs.

    The number of open files holds from the next start.

    :raises RuntimeFailed: the kernel refused one; all are as before
    """
    container.update(container_id, codec.encode(wish))
    if state.read(container_id).process is not None:
        link.shape(container_id)


def pause(container_id: str) -> None:
    """Freeze the container's processes."""
    container.pause(container_id)


def suspend(container_id: str) -> None:
    """Freeze the container's processes, and give their memory back as far as
    the kernel can.
    """
    container.suspend(container_id)


def resume(container_id: str) -> None:
    """Thaw the container's processes."""
    container.resume(container_id)


def quiesce(container_id: str) -> None:
    """Write all that a container's volumes have in memory, and hold its
    processes still until ``unquiesce``, or the next ``setup``.

    :raises StateConflict: it does not run, or is held still already
    :raises ContainerError: a volume did not take what was to be written
    """
    require(container_id, state.Status.RUNNING)
    quiescing.quiesce(container_id)


def unquiesce(container_id: str) -> bool:
    """Let the processes go; False if nothing held them."""
    return quiescing.unquiesce(container_id)


def send_signal(container_id: str, name: str) -> bool:
    """Send ``SIGHUP``, ``HUP`` or ``1`` to the first process.

    :returns: False when it has ended
    :raises ProcessInvalid: there is no such signal
    """
    return container.kill(container_id, signals.number(name))


def execute(container_id: str, wish: command.Command, timeout: float = 60,
            limit: int = 65536, data: bytes = b'') -> Execution:
    """Run a command in a running container to its end.

    :param data: its input
    :param timeout: seconds until the command is killed
    :param limit: bytes to keep of each output stream
    :raises StateConflict: the container does not run, or is full
    :raises ProcessInvalid: the command, its user or directory is wrong
    """
    require(container_id, state.Status.RUNNING)
    return Execution(**execution.run(container_id, codec.encode(wish),
                                     float(timeout), limit, data))


def execute_here(container_id: str, wish: command.Command,
                 terminal: bool) -> int:
    """Run a command on the caller's own input and output; for root only.

    :param terminal: in a pseudo-terminal that follows the caller's
    :returns: exit code, 128+N for signal N
    """
    require(container_id, state.Status.RUNNING)
    return execution.interactive(container_id, wish, terminal)


def open_shell(container_id: str) -> bool:
    """Start the shell of a running container's console, unless it runs.

    :returns: False if it ran
    :raises ProcessInvalid: the image has no shell
    :raises StateConflict: the container does not run
    """
    require(container_id, state.Status.RUNNING)
    return shell.open_shell(container_id)


def close_shell(container_id: str) -> None:
    """Hang up on the shell of a container's console, if it has one."""
    shell.close_shell(container_id)


def undefine(container_id: str) -> None:
    """Halt the container and remove it with all its files."""
    _surely(ending.undefine, container_id)


def layers_in_use() -> list[str]:
    """diffIDs of the layers that a container needs."""
    return host.layers_in_use()


def require(container_id: str, *wanted: state.Status) -> state.State:
    """The container's state, if it is one of ``wanted``.

    :raises StateConflict: it is another
    """
    current = state.read(container_id)
    if current.status not in wanted:
        raise exception.StateConflict(
            f'container {container_id} is {current.status.value}, not '
            + ' or '.join(status.value for status in wanted))
    return current


def setup(user: int, group: int) -> list[str]:
    """Make the directories, remove what a killed service left half done.

    :param user: numeric user of the service
    :param group: numeric group of the service
    :returns: ids of the containers that were removed or halted
    :raises HostUnsupported: no container could be started here
    """
    try:
        host.setup(user, group)
    except daemon.FailedToDropPrivileges as e:
        raise exception.HostUnsupported(
            f'starting the privileged helper failed: {e}; install '
            'etc/sudoers.d/nova-container, and '
            'etc/nova/rootwrap.d/nova-container.filters in a directory of '
            'filters_path in rootwrap.conf, both as files of root')
    execution.recover()
    shell.recover()
    return host.recover()
