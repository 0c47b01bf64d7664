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

"""Errors of the runtime, free of any Nova import.

Every message names the operation, the object and what to do. An error crosses
the privsep channel as its class name and ``args``, so each class is built
from its message alone.
"""


class ContainerError(Exception):
    """Base of every error this project raises."""

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class UserError(ContainerError):
    """What the tenant asked for cannot be done; another host would not help.
    """


class OperatorError(ContainerError):
    """The host lacks a package, an option or a resource."""


class InvalidSpec(UserError):
    """A wish of the tenant has a wrong value."""


class ProcessInvalid(UserError):
    """The container's process cannot be started: command, user, directory."""


class ImageInvalid(UserError):
    """The image is not an archive we understand, or its content is wrong."""


class ImageForbidden(UserError):
    """Glance does not let the user read the image or one of its layers."""


class ImageUntrusted(UserError):
    """The image is not signed as it has to be."""


class ImageTooBig(UserError):
    """The unpacked image is larger than the flavor's root disk."""


class ImageArchitecture(UserError):
    """The image is for another architecture or operating system."""


class ImageIncomplete(ContainerError):
    """The image service sent less than it announced; worth another try."""


class NoSpace(OperatorError):
    """A file system of the host is full."""


class HostUnsupported(OperatorError):
    """The kernel or an installed package lacks what is needed."""


class ContainerNotFound(ContainerError):
    """No such container on this host."""


class ContainerExists(ContainerError):
    """A container by that id is already defined."""


class StateConflict(ContainerError):
    """The container is not in a state that allows the operation."""


class ServerBusy(StateConflict):
    """Nova is at work on the server; afterwards it is worth another try."""


class RuntimeFailed(ContainerError):
    """The OCI runtime or conmon refused; carries their own words."""


class TransferFailed(ContainerError):
    """A container's disks did not get to another host."""


class NetworkFailed(ContainerError):
    """An interface could not be made or configured."""
