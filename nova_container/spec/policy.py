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

"""What becomes of a container that runs: the part of its spec that is no
secret, for the service that watches it.
"""

import dataclasses
from typing import Self

from nova_container.spec import container
from nova_container.spec import health as health_
from nova_container.spec import restart as restart_


@dataclasses.dataclass(frozen=True)
class Policy:
    """See ContainerSpec."""

    kind: str = container.APPLICATION
    terminal: bool = False
    stop_timeout: float | None = None
    restart: restart_.RestartPolicy = restart_.RestartPolicy()
    health: health_.Healthcheck | None = None

    @classmethod
    def of(cls, spec: container.ContainerSpec) -> Self:
        return cls(spec.kind, spec.process.terminal,
                   spec.process.stop_timeout, spec.restart, spec.health)
