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

"""What the container driver is told: a server's metadata and user data.

The words of doc/source/user/settings.rst, from the properties of a container
in a template. Plain values: Heat is not imported here.
"""

import collections.abc
import dataclasses
import json
import re
import shlex
import typing as ty

import yaml

PREFIX = 'container:'

# Nova's limit of a value in metadata, in characters.
VALUE_MAX = 255

# Of user data in Base64, by Nova's API.
USER_DATA_MAX = 65535 // 4 * 3

DURATION = r'([0-9]+(\.[0-9]+)?(ms|s|m|h)?)+'

_HEADER = '#container-config\n'
_VARIABLE = re.compile(r'[A-Za-z_][A-Za-z0-9_.-]*')


class InvalidProperty(ValueError):
    """A property has a value that makes no sense; says which and why."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def text(value: ty.Any) -> str:
    """A template's value as a process sees it.

    :raises ValueError: it is a list, a map or nothing
    """
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError(f'text or a number is expected, not {value!r}')


def command(value: ty.Any) -> list[str]:
    """A command: a list of words, or a line as for a shell.

    :raises ValueError: it is neither
    """
    if isinstance(value, str):
        return shlex.split(value)
    if isinstance(value, collections.abc.Sequence):
        return [text(word) for word in value]
    raise ValueError('a line or a list of words is expected')


def _check(value: ty.Any) -> str | list[str]:
    """The command of a health check, also in the forms of a Dockerfile's.

    :raises ValueError: it is of no such form
    """
    if isinstance(value, str):
        return value
    form, *rest = command(value) or ['']
    if form == 'NONE' and not rest:
        return 'none'
    if form == 'CMD-SHELL' and len(rest) == 1:
        return rest[0]
    if form == 'CMD' and rest:
        return rest
    if form in ('', 'NONE', 'CMD', 'CMD-SHELL'):
        raise ValueError('test: CMD with words, CMD-SHELL with one line or '
                         'NONE is expected')
    return [form, *rest]


# Stands in a command for what is known once another resource is there.
_UNKNOWN = 'unknown'


def _supposed(value: ty.Any) -> ty.Any:
    if isinstance(value, collections.abc.Sequence) and not isinstance(
            value, str):
        return [_UNKNOWN if word is None else word for word in value]
    return value


def supposed(properties: collections.abc.Mapping[str, ty.Any]
             ) -> dict[str, ty.Any]:
    """Properties to validate: their commands with no word left unknown."""
    check = properties.get('health_check') or {}
    return {**properties,
            **{name: _supposed(properties.get(name))
               for name in ('entrypoint', 'command')},
            'health_check': {**check, 'test': _supposed(check.get('test'))}}


_Writer = collections.abc.Callable[[ty.Any], str | list[str]]

# Property, word, and how its value is written.
_WORDS: tuple[tuple[str, str, _Writer], ...] = (
    ('entrypoint', 'entrypoint', command),
    ('command', 'command', command),
    ('working_dir', 'workdir', text),
    ('user', 'user', text),
    ('stop_signal', 'stop_signal', text),
    ('stop_grace_period', 'stop_timeout', text),
    ('init', 'init', text),
    ('tty', 'tty', text),
    ('restart_policy', 'restart', text),
)
_HEALTH: tuple[tuple[str, str, _Writer], ...] = (
    ('test', 'health_cmd', _check),
    ('interval', 'health_interval', text),
    ('timeout', 'health_timeout', text),
    ('start_period', 'health_start_period', text),
    ('start_interval', 'health_start_interval', text),
    ('retries', 'health_retries', text),
)

# Properties that only a new start of the container can take up.
PROPERTIES = frozenset(name for name, _, _ in _WORDS) | {
    'environment', 'health_check'}


@dataclasses.dataclass(frozen=True)
class Said:
    """What a server is told.

    :param user_data: for what metadata is too short for; None for none
    """

    metadata: dict[str, str]
    user_data: str | None = None


def _environment(value: collections.abc.Mapping[str, ty.Any]
                 ) -> collections.abc.Iterator[tuple[str, str]]:
    for name, content in value.items():
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f'{name!r} cannot be the name of a variable')
        if content is not None:
            yield name, text(content)


def _mounts(volumes: collections.abc.Iterable[
        collections.abc.Mapping[str, ty.Any]]) -> collections.abc.Iterator[
            tuple[str, str]]:
    for volume in volumes:
        path = volume.get('mount_path')
        if path is not None and volume.get('volume') is not None:
            yield volume['volume'], path + (
                ':ro' if volume.get('read_only') else '')


def of(properties: collections.abc.Mapping[str, ty.Any]) -> Said:
    """What is said of those properties that are set.

    :raises InvalidProperty: a value that makes no sense or is too long
    """
    metadata: dict[str, str] = {}
    long: dict[str, ty.Any] = {}
    longest = ''

    def write(name: str, words: tuple[tuple[str, str, _Writer], ...],
              values: collections.abc.Mapping[str, ty.Any]) -> None:
        nonlocal longest
        for key, word, writer in words:
            if values.get(key) is None:
                continue
            try:
                value = writer(values[key])
            except ValueError as error:
                raise InvalidProperty(name or key, str(error))
            line = value if isinstance(value, str) else json.dumps(
                value, ensure_ascii=False)
            if len(line) <= VALUE_MAX:
                metadata[PREFIX + word] = line
            else:
                long[word], longest = value, name or key

    write('', _WORDS, properties)
    write('health_check', _HEALTH, properties.get('health_check') or {})
    try:
        variables = dict(_environment(properties.get('environment') or {}))
    except ValueError as error:
        raise InvalidProperty('environment', str(error))
    for variable, value in variables.items():
        if len(value) <= VALUE_MAX:
            metadata[f'{PREFIX}env:{variable}'] = value
        else:
            long.setdefault('env', {})[variable] = value
            longest = 'environment'
    for volume, path in _mounts(properties.get('volumes') or ()):
        metadata[f'{PREFIX}mount:{volume}'] = path
    user_data = properties.get('user_data') or None
    if not long:
        return Said(metadata, user_data)
    if user_data is not None:
        raise InvalidProperty(
            longest, f'a value of more than {VALUE_MAX} characters needs the '
            'user data, which is taken: leave out user_data')
    user_data = _HEADER + yaml.safe_dump(long, allow_unicode=True)
    if len(user_data.encode()) > USER_DATA_MAX:
        raise InvalidProperty(
            longest, f'more than the {USER_DATA_MAX} bytes that a server can '
            'be told')
    return Said(metadata, user_data)
