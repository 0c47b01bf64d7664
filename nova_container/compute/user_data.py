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

"""User data that speaks to the driver: YAML headed ``#container-config``.

It has the words of server metadata without ``container:``, for what is longer
than the 255 characters of a metadata value::

    #container-config
    command: [nginx, -g, daemon off;]
    env:
      GREETING: hello

A scalar is taken as it is written, so ``0755`` stays ``0755`` and ``on`` stays
``on``. Any other user data is the guest's.
"""

import base64
import collections.abc
import functools
import json

import yaml

from nova_container import exception

HEADER = '#container-config'
PREFIX = 'container:'

# A word's mapping of lists is as deep as it gets.
_DEPTH_MAX = 4


def text(user_data: str | None) -> bytes:
    """What a user has given, from what Nova has of it.

    :param user_data: Base64, as of nova.objects.Instance
    :raises InvalidSpec: it is not Base64
    """
    try:
        return base64.b64decode(user_data or '')
    except ValueError:
        # The API passes over what is not ASCII, and nobody can read it then.
        raise exception.InvalidSpec(
            'user data is not Base64; encode it, as base64(1) does')


# For each of a server's volumes they are asked for again, and what a tenant
# can write takes a second to read.
@functools.lru_cache(maxsize=16)
def words(user_data: str | None) -> collections.abc.Mapping[str, str]:
    """The words of user data for the driver, as server metadata has them.

    :param user_data: Base64, as of nova.objects.Instance
    :raises InvalidSpec: it is for the driver, and not as described above
    """
    said = text(user_data).removeprefix(b'\xef\xbb\xbf')
    first, _, _ = said.partition(b'\n')
    if first.strip().decode(errors='replace') != HEADER:
        return {}
    try:
        _check_shape(said)
        root = yaml.compose(said, yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise exception.InvalidSpec(f'user data: {_one_line(e)}')
    except (ValueError, OverflowError):
        # PyYAML lets through what Python says of them.
        raise exception.InvalidSpec(
            'user data: the number in a directive or an escape is too large')
    if root is None or isinstance(root, yaml.ScalarNode) and not root.value:
        return {}
    found: dict[str, str] = {}
    for word, value in _pairs(root):
        if isinstance(value, yaml.MappingNode):
            for name, item in _pairs(value):
                found[f'{PREFIX}{word}:{name}'] = _scalar(item)
        elif isinstance(value, yaml.SequenceNode):
            found[PREFIX + word] = json.dumps(
                [_scalar(item) for item in value.value])
        else:
            found[PREFIX + word] = _scalar(value)
    return found


def _one_line(error: Exception) -> str:
    mark = getattr(error, 'problem_mark', None)
    if mark is not None:
        return f'line {mark.line + 1}: {getattr(error, "problem", None)}'
    return ' '.join(str(error).split())


def _wrong(where: yaml.Node | yaml.Event,
           message: str) -> exception.InvalidSpec:
    line = where.start_mark.line + 1 if where.start_mark else 1
    return exception.InvalidSpec(f'user data, line {line}: {message}')


def _check_shape(said: bytes) -> None:
    """Refuse, before anything is built of it, what a few lines of YAML can
    become: trees of a size or depth that nobody means.
    """
    depth = documents = 0
    for event in yaml.parse(said, yaml.BaseLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if depth > _DEPTH_MAX or documents > 1 or isinstance(
                event, yaml.AliasEvent):
            raise _wrong(event, 'one document without aliases, '
                         f'{_DEPTH_MAX} levels deep at most, is expected')


def _pairs(node: yaml.Node) -> collections.abc.Iterator[
        tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(node, 'a mapping of words to values is expected')
    seen = set()
    for key, value in node.value:
        name = _scalar(key)
        if name in seen:
            raise _wrong(key, f'{name} is said twice')
        seen.add(name)
        yield name, value


def _scalar(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _wrong(node, 'a single value is expected; put quotes around it')
    try:
        node.value.encode()
    except UnicodeEncodeError:
        raise _wrong(node, 'half of a surrogate pair is no character')
    return node.value
