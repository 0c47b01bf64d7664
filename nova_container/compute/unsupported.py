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

"""Operations of Nova's that the driver does not do yet.

Nova's base class raises a NotImplementedError without a word for most of
them; a user who reads the server's fault or event shall see which it was.
"""

_OPERATIONS = {
    'check_can_live_migrate_source': 'live migration',
    'get_mks_console': 'a graphical console',
    'get_spice_console': 'a graphical console',
    'live_migration': 'live migration',
    'mount_share': 'mounting a share',
    'pre_live_migration': 'live migration',
    'umount_share': 'unmounting a share',
}

# What never will be: a compute service does not control its own host.
_NEVER = {
    'host_power_action':
        'powering the host is not for a compute service to decide; use its '
        'management controller',
}


def _refusal(name: str, what: str):
    def method(self, *args, **kwargs):
        raise NotImplementedError(what)

    method.__name__ = name
    # By which a traceback calls it.
    method.__code__ = method.__code__.replace(co_name=name)
    method.__doc__ = f'Refused: {what}.'
    return method


UnsupportedMixin = type('UnsupportedMixin', (), {
    '__doc__': 'Every operation that is not supported, or not yet.',
    **{name: _refusal(name, f'{what} is not supported yet by the container '
                            f'driver ({name})')
       for name, what in _OPERATIONS.items()},
    **{name: _refusal(name, what) for name, what in _NEVER.items()}})
