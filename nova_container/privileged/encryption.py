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

"""LUKS: what a volume holds, readable as another block device.

cryptsetup(8) makes a dm-crypt device of it, ``/dev/mapper/nova-container-ID``.
"""

import os
import subprocess

from nova_container import exception
from nova_container.privileged import place
from nova_container.spec import volume

# "LUKS1 On-Disk Format Specification", figure 1; LUKS2 has the same.
_MAGIC = b'LUKS\xba\xbe'

_WRONG_KEY = 2
_NO_DEVICE = 4


def _name(volume_id: str) -> str:
    return f'nova-container-{volume.check_id(volume_id)}'


def path(volume_id: str) -> str:
    """The block device, once there is one."""
    return f'/dev/mapper/{_name(volume_id)}'


def program() -> str:
    """Path of cryptsetup(8).

    :raises HostUnsupported: it is not installed
    """
    return place.program(place.CONF.container.cryptsetup, 'cryptsetup',
                         'cryptsetup-bin')


def _cryptsetup(*args: str, key: str = '', code: int = 0) -> None:
    done = subprocess.run(
        [program(), '--batch-mode', *args], input=key, text=True,
        capture_output=True, errors='replace', env=place.ENV)
    if done.returncode == _WRONG_KEY:
        raise exception.StateConflict('its key does not open it')
    if done.returncode not in (0, code):
        raise exception.StateConflict(
            f'cryptsetup {args[0]} failed: {done.stderr.strip()}')


def unlock(volume_id: str, device: str, key: str, read_only: bool) -> str:
    """Have what is on a device readable; the path of that.

    :raises StateConflict: the key is wrong, or the kernel cannot
    :raises InvalidSpec: it holds no LUKS header
    """
    with open(device, 'rb') as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise exception.InvalidSpec(
                f'volume {volume_id} has no LUKS header, and this driver '
                'makes none')
    if not os.path.exists(path(volume_id)):
        _cryptsetup('open', '--type', 'luks', '--key-file', '-',
                    *(('--readonly',) if read_only else ()), device,
                    _name(volume_id), key=key)
    return path(volume_id)


def lock(volume_id: str) -> None:
    """Take the device away; again is as good as once."""
    if os.path.lexists(path(volume_id)):
        _cryptsetup('close', _name(volume_id), code=_NO_DEVICE)
