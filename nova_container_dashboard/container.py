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

"""What the driver's words in server metadata mean, apart from Horizon."""

import dataclasses
import re
import typing as ty

_PREFIX = 'container:'
_ENV = f'{_PREFIX}env:'

# Names of environment variables whose values are not shown.
_SECRET = re.compile(r'PASS|SECRET|TOKEN|KEY|CREDENTIAL|AUTH', re.IGNORECASE)


def has_words(metadata: ty.Mapping[str, str]) -> bool:
    """Whether a server's metadata speaks of a container."""
    return any(key.startswith(_PREFIX) for key in metadata)


@dataclasses.dataclass(frozen=True)
class Variable:
    """An environment variable; ``value`` is None for a secret."""

    name: str
    value: str | None


@dataclasses.dataclass(frozen=True)
class Container:
    """What a server's metadata says about its container.

    None stands for what the image says itself, or for what is not known yet.
    """

    entrypoint: str | None = None
    command: str | None = None
    workdir: str | None = None
    user: str | None = None
    restart: str | None = None
    health: str | None = None
    exit_code: str | None = None
    exit_reason: str | None = None
    environment: tuple[Variable, ...] = ()

    @classmethod
    def of(cls, metadata: ty.Mapping[str, str]) -> 'Container':
        names = {field.name for field in dataclasses.fields(cls)}
        words = {key.removeprefix(_PREFIX): value
                 for key, value in metadata.items() if key.startswith(_PREFIX)}
        return cls(
            environment=tuple(
                Variable(name, None if _SECRET.search(name) else value)
                for name, value in sorted(
                    (key.removeprefix(_ENV), value)
                    for key, value in metadata.items()
                    if key.startswith(_ENV))),
            **{word: value for word, value in words.items()
               if word in names - {'environment'}})


def usage(diagnostics: ty.Mapping[str, ty.Any]) -> dict[str, int]:
    """The numbers that are drawn, from diagnostics before version 2.48.

    :returns: ``cpu`` in ns, ``memory`` and ``memory_limit`` in bytes (limit 0
        for none), ``received``, ``sent``, ``read`` and ``written`` in bytes,
        ``processes``
    """
    def total(suffix: str) -> int:
        return sum(value for name, value in diagnostics.items()
                   if name.endswith(suffix))

    return {'cpu': diagnostics.get('cpu0_time', 0),
            'memory': diagnostics.get('memory-actual', 0) * 1024,
            'memory_limit': diagnostics.get('memory', 0) * 1024,
            'received': total('_rx'), 'sent': total('_tx'),
            'read': diagnostics.get('root_read', 0),
            'written': diagnostics.get('root_write', 0),
            'processes': diagnostics.get('pids', 0)}
