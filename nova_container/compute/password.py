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

"""Set a password inside a running container."""

from nova import exception as nova_exception

from nova_container import exception
from nova_container.runtime import engine
from nova_container.spec import command

_COMMAND = 'chpasswd'
_USER = 'root'
_TIMEOUT = 30


def set_admin(instance, password: str) -> None:
    """Give the administrator of a container a new password.

    The image's own ``chpasswd`` does it, as root, and reads the password from
    its input: no shell and no command line ever has it. Who the administrator
    is, an image says with the property ``os_admin_user``.

    :param instance: nova.objects.Instance
    :raises InvalidInput: the password cannot be told to chpasswd(8)
    :raises SetAdminPasswdNotSupported: the image has no such command
    :raises InstancePasswordSetFailed: it failed
    :raises StateConflict: the container does not run
    """
    user = instance.image_meta.properties.get('os_admin_user') or _USER
    if not password or set(password) & set('\n\r\0') or (
            set(user) & set(':\n\r\0')):
        raise nova_exception.InvalidInput(
            reason='a password must not be empty nor contain a line break')
    try:
        done = engine.execute(
            instance.uuid, command.Command((_COMMAND,), cwd='/', user='0:0'),
            timeout=_TIMEOUT, data=f'{user}:{password}\n'.encode())
    except exception.ProcessInvalid:
        raise nova_exception.SetAdminPasswdNotSupported()
    if done.exit_code != 0:
        words = (done.stderr or done.stdout).decode(errors='replace').strip()
        raise nova_exception.InstancePasswordSetFailed(
            instance=instance.uuid,
            reason=words[:120] or f'{_COMMAND}: exit code {done.exit_code}')
