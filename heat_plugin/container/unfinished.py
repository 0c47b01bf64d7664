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

"""What was begun with a container and has not succeeded."""

import dataclasses
import json
import typing as ty

from heat.engine import resource

from heat_plugin.container import mount

# The section of the resource's data.
KEY = 'unfinished'


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """What creation and updates that have not succeeded were about.

    :param names: properties that they changed
    :param volumes: that they may have attached
    :param metadata: keys that they may have set
    """

    names: frozenset[str] = frozenset()
    volumes: tuple[mount.Mount, ...] = ()
    metadata: frozenset[str] = frozenset()

    @classmethod
    def of(cls, container: resource.Resource) -> ty.Self:
        """What is kept in a container's data."""
        kept = json.loads(container.data().get(KEY, '{}'))
        return cls(frozenset(kept.get('names', ())),
                   tuple(mount.Mount(*fields)
                         for fields in kept.get('volumes', ())),
                   frozenset(kept.get('metadata', ())))

    def keep(self, container: resource.Resource) -> None:
        """Keep it in a container's data until all has succeeded."""
        container.data_set(KEY, json.dumps({
            'names': sorted(self.names),
            'volumes': [dataclasses.astuple(volume)
                        for volume in dict.fromkeys(self.volumes)],
            'metadata': sorted(self.metadata)}))
