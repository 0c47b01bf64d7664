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

"""Volumes and where a container has them."""

import dataclasses

from heat_plugin.container import schema


@dataclasses.dataclass(frozen=True)
class Mount:
    """A volume and where it is mounted."""

    volume: str
    path: str | None
    read_only: bool


def mounts(props) -> list[Mount]:
    """Those of the property ``volumes``, without ones that are not there yet.
    """
    keys = schema.Described
    return [Mount(volume[keys.VOLUME], volume[keys.MOUNT_PATH],
                  bool(volume[keys.READ_ONLY]))
            for volume in props[keys.VOLUMES] or () if volume[keys.VOLUME]]
