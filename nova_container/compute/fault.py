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

"""Our errors as Nova's, which become the server's fault.

What the tenant caused ends the build; what the host lacks lets Nova try the
next one.
"""

import contextlib

from nova import exception as nova_exception

from nova_container import exception


def _translate(error: exception.ContainerError, instance):
    if isinstance(error, exception.ImageTooBig):
        return nova_exception.FlavorDiskTooSmall(error.message)
    if isinstance(error, (exception.ImageInvalid,
                          exception.ImageArchitecture)):
        return nova_exception.ImageUnacceptable(
            image_id=instance.image_ref, reason=error.message)
    if isinstance(error, exception.UserError):
        return nova_exception.InvalidInput(reason=error.message)
    if isinstance(error, exception.ContainerNotFound):
        return nova_exception.InstanceNotFound(instance_id=instance.uuid)
    if isinstance(error, exception.OperatorError):
        return nova_exception.ComputeResourcesUnavailable(
            reason=error.message)
    if isinstance(error, exception.NetworkFailed):
        return nova_exception.VirtualInterfacePlugException(error.message)
    if isinstance(error, exception.StateConflict):
        return nova_exception.InstancePowerOnFailure(reason=error.message)
    return nova_exception.NovaException(error.message)


@contextlib.contextmanager
def translated(instance):
    """Raise our errors as those that Nova's manager knows."""
    try:
        yield
    except exception.ContainerError as e:
        raise _translate(e, instance) from e
