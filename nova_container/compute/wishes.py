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

"""What a tenant says about the process, in server metadata or user data.

The words are ``container:command`` and so on; each has one place here. A word
that is not known is refused with the list of those that are, since a typo
that is ignored costs an evening.
"""

import dataclasses
import json
import re
import shlex
from typing import Any

from oslo_utils import strutils

from nova_container.compute import user_data
from nova_container import exception
from nova_container.spec import restart as restart_
from nova_container.spec import volume

PREFIX = user_data.PREFIX
_ENV = 'env:'
_HEALTH = 'health_'
_MOUNT = 'mount:'

# Words that the driver itself writes.
FEEDBACK = ('health', 'exit_code', 'exit_reason')


@dataclasses.dataclass(frozen=True)
class Mount:
    """Where a volume's file system is to be mounted.

    :param volume: id, device name or tag of the volume
    """

    volume: str
    path: str
    read_only: bool = False


@dataclasses.dataclass(frozen=True)
class Wishes:
    """Overrides of what the image says; None leaves the image's own.

    :param entrypoint: replaces the image's, and drops the image's Cmd, as
        ``docker run --entrypoint`` does
    :param command: replaces the image's Cmd
    :param env: pairs of name and value, added to the image's
    :param init: a small init as process 1
    :param tty: a terminal as standard input and output
    :param stop_timeout: seconds between the stop signal and SIGKILL
    :param health_cmd: the command that checks the health, () for no check
    :param health_interval: seconds, as all the times
    """

    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    workdir: str | None = None
    user: str | None = None
    stop_signal: str | None = None
    init: bool | None = None
    tty: bool | None = None
    restart: restart_.RestartPolicy | None = None
    stop_timeout: float | None = None
    health_cmd: tuple[str, ...] | None = None
    health_interval: float | None = None
    health_timeout: float | None = None
    health_start_period: float | None = None
    health_start_interval: float | None = None
    health_retries: int | None = None


def _words(key: str, value: str) -> tuple[str, ...]:
    """A command: a JSON list of strings, or a line split as a shell would."""
    text = value.strip()
    if text.startswith('['):
        try:
            words = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise exception.InvalidSpec(f'{key}: not a JSON list: {e}')
        if not all(isinstance(word, str) for word in words):
            raise exception.InvalidSpec(f'{key}: a JSON list of strings is '
                                        'expected')
        try:
            ''.join(words).encode()
        except UnicodeEncodeError:
            raise exception.InvalidSpec(
                f'{key}: half of a surrogate pair is no character')
        return tuple(words)
    try:
        return tuple(shlex.split(text))
    except ValueError as e:
        raise exception.InvalidSpec(f'{key}: {e}; quote it as for a shell')


def _mount(key: str, name: str, value: str) -> Mount:
    path, colon, option = value.partition(':')
    if colon and option not in ('ro', 'rw'):
        raise exception.InvalidSpec(
            f'{key}={value!r}: after the path only :ro or :rw is known')
    try:
        volume.check_path(path)
    except exception.InvalidSpec as e:
        raise exception.InvalidSpec(f'{key}: {e.message}')
    return Mount(name.removeprefix('/dev/'), path, option == 'ro')


def _health_command(key: str, value: str) -> tuple[str, ...]:
    """``none``, a JSON list of words, or a line for the image's shell."""
    text = value.strip()
    if text.lower() == 'none':
        return ()
    if text.startswith('['):
        return _words(key, text)
    return ('/bin/sh', '-c', text)


_UNITS = {'ms': 0.001, 's': 1.0, 'm': 60.0, 'h': 3600.0}
_PART = re.compile(r'(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)')


def _seconds(key: str, value: str) -> float:
    """``90``, ``1m30s`` or ``500ms``."""
    text = value.strip()
    if re.fullmatch(r'\d{1,9}(\.\d{1,9})?', text):
        return float(text)
    if not text or _PART.sub('', text):
        raise exception.InvalidSpec(
            f'{key}={value!r} is not a time such as 90, 1m30s or 500ms')
    return sum(float(number) * _UNITS[unit]
               for number, unit in _PART.findall(text))


def _count(key: str, value: str) -> int:
    if not re.fullmatch(r'\d{1,9}', value.strip()):
        raise exception.InvalidSpec(f'{key}={value!r} is not a number')
    return int(value)


_TIMES = ('stop_timeout', 'health_interval', 'health_timeout',
          'health_start_period', 'health_start_interval')


def boolean(key: str, value: str) -> bool:
    """``true``, ``false`` and the other words that Nova takes for them."""
    try:
        return strutils.bool_from_string(value, strict=True)
    except ValueError:
        raise exception.InvalidSpec(
            f'{key}={value!r} is neither true nor false')


def _near(word: str, known: list[str]) -> str:
    """The words that may have been meant: Nova cuts a longer fault."""
    checks = [each for each in known if each.startswith(_HEALTH)]
    if word.startswith(_HEALTH):
        return ', '.join(checks)
    return ', '.join(sorted((*set(known).difference(checks), f'{_ENV}NAME',
                             f'{_MOUNT}VOLUME', f'{_HEALTH}*')))


def parse(metadata: dict[str, str]) -> Wishes:
    """The wishes in a server's metadata; keys of others are passed over.

    :raises InvalidSpec: an unknown word or a value that makes no sense
    """
    fields: dict[str, Any] = {}
    env = []
    mounts = []
    known = sorted(field.name for field in dataclasses.fields(Wishes)
                   if field.name not in ('env', 'mounts'))
    for key in sorted(metadata):
        if not key.startswith(PREFIX):
            continue
        word, value = key[len(PREFIX):], metadata[key]
        if word.startswith(_ENV):
            env.append((word[len(_ENV):], value))
        elif word.startswith(_MOUNT):
            mounts.append(_mount(key, word[len(_MOUNT):], value))
        elif word in ('entrypoint', 'command'):
            fields[word] = _words(key, value)
        elif word in ('init', 'tty'):
            fields[word] = boolean(key, value)
        elif word == 'health_cmd':
            fields[word] = _health_command(key, value)
        elif word == 'health_retries':
            fields[word] = _count(key, value)
        elif word in _TIMES:
            fields[word] = _seconds(key, value)
        elif word == 'restart':
            fields[word] = restart_.RestartPolicy.parse(value)
        elif word in known:
            fields[word] = value
        elif word in FEEDBACK:
            continue
        else:
            raise exception.InvalidSpec(
                f'{key} is unknown; known after {PREFIX} are '
                f'{_near(word, known)}')
    return Wishes(env=tuple(env), mounts=tuple(mounts), **fields)


def said(instance) -> dict[str, str]:
    """All the words of a server: where both say one, metadata holds.

    :param instance: nova.objects.Instance
    :raises InvalidSpec: the user data is for the driver, and wrong
    """
    return {**user_data.words(instance.user_data), **instance.metadata}
