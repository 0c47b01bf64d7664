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

"""The AppArmor profile that containers are confined by.

The profile is a file of this project, etc/apparmor.d/nova-container-default;
AppArmor's own service loads it at boot, the operator once after the
installation. Ours only looks whether it is there: who loads policy needs
CAP_MAC_ADMIN, with which he could take away every other program's.
"""

from nova_container import exception
from nova_container.privileged import place

PROFILE = 'nova-container-default'

_ENABLED = '/sys/module/apparmor/parameters/enabled'
_LOADED = '/sys/kernel/security/apparmor/profiles'


def enabled() -> bool:
    """Whether the kernel has AppArmor at work."""
    try:
        with open(_ENABLED) as file:
            return file.read().startswith('Y')
    except FileNotFoundError:
        return False


def loaded(name: str) -> bool:
    """Whether the kernel knows a profile of that name."""
    try:
        with open(_LOADED) as lines:
            return any(line.rpartition(' ')[0] == name for line in lines)
    except FileNotFoundError:
        return False


def profile() -> str | None:
    """Name of the profile for containers ([container] apparmor_profile).

    :raises HostUnsupported: the option names one that is not there
    """
    wish = place.CONF.container.apparmor_profile
    if wish == 'none':
        return None
    if wish == 'auto':
        return PROFILE if enabled() and loaded(PROFILE) else None
    if not enabled() or not loaded(wish):
        raise exception.HostUnsupported(
            f'[container] apparmor_profile = {wish}: the kernel has no such '
            'profile; load it with apparmor_parser --replace, or set the '
            'option to auto')
    return wish
