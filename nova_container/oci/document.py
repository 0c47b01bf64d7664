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

"""Strict reading of JSON written by strangers.

Image configs, manifests and indexes come from tenants. A ``Document`` reads
one JSON object field by field, and refuses duplicate keys, wrong types and
strings with NUL bytes with the place named: ``config.Env[3]``.
"""

import json
from typing import Any, NoReturn, Self

from nova_container import exception

# The limit that registries and containerd put on manifests.
SIZE_MAX = 4 << 20

# Far above any real list or table in a config, far below what hurts.
_ITEMS_MAX = 65536


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _value in pairs:
            if key in seen:
                raise ValueError(f'key {key[:100]!r} appears twice')
            seen.add(key)
    return result


def _constant(name: str) -> NoReturn:
    raise ValueError(f'{name} is not JSON')


def parse(data: bytes, what: str) -> Any:
    """The JSON value in ``data``.

    :param what: names the document in errors
    :raises ImageInvalid: too large, not UTF-8, not JSON, a duplicate key
    """
    if len(data) > SIZE_MAX:
        raise exception.ImageInvalid(
            f'{what} has {len(data)} bytes, more than {SIZE_MAX}')
    try:
        return json.loads(data.decode('utf-8'), object_pairs_hook=_object,
                          parse_constant=_constant)
    except RecursionError:
        raise exception.ImageInvalid(f'{what} is nested too deep')
    except ValueError as e:
        raise exception.ImageInvalid(f'{what} is not valid JSON: {e}')


class Document:
    """A JSON object whose fields are read with their types checked.

    A field that is absent or null yields the default, as in Go's decoder,
    which wrote and reads all these documents.
    """

    def __init__(self, value: Any, where: str):
        """Take a parsed value.

        :param where: names the document in errors
        :raises ImageInvalid: it is not an object
        """
        if not isinstance(value, dict):
            raise exception.ImageInvalid(
                f'{where} is {_kind(value)}, not an object')
        self._fields = value
        self.where = where

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """The JSON object in ``data``."""
        return cls(parse(data, where), where)

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raise ImageInvalid about the field ``name``."""
        raise exception.ImageInvalid(f'{self.where}: {name} {problem}')

    def _get(self, name: str, kind: type[Any], default: Any) -> Any:
        value = self._fields.get(name)
        if value is None:
            return default
        # bool is a subclass of int.
        if not isinstance(value, kind) or (kind is int
                                           and isinstance(value, bool)):
            self.fail(name, f'is {_kind(value)}, not {_NAMES[kind]}')
        if isinstance(value, list | dict) and len(value) > _ITEMS_MAX:
            self.fail(name, f'has {len(value)} items, more than {_ITEMS_MAX}')
        return value

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def string(self, name: str, default: str = '') -> str:
        return self._text(name, self._get(name, str, default))

    def integer(self, name: str, default: int = 0, low: int = 0,
                high: int = (1 << 63) - 1) -> int:
        value = self._get(name, int, default)
        if not low <= value <= high:
            self.fail(name, f'is not in {low}..{high}')
        return value

    def strings(self, name: str) -> tuple[str, ...] | None:
        """A list of strings; None if absent, which differs from empty."""
        value = self._get(name, list, None)
        if value is None:
            return None
        for index, item in enumerate(value):
            self._text(f'{name}[{index}]', item)
        return tuple(value)

    def keys(self, name: str) -> tuple[str, ...]:
        """The keys of an object used as a set, sorted."""
        return tuple(sorted(self._text(name, key)
                            for key in self._get(name, dict, {})))

    def table(self, name: str) -> dict[str, str]:
        """An object whose values are strings."""
        return {self._text(name, key): self._text(f'{name}.{key}', value)
                for key, value in self._get(name, dict, {}).items()}

    def document(self, name: str) -> 'Document':
        """A nested object, empty if absent."""
        return Document(self._get(name, dict, {}), f'{self.where}: {name}')

    def documents(self, name: str) -> tuple['Document', ...]:
        """A list of objects."""
        return tuple(Document(item, f'{self.where}: {name}[{index}]')
                     for index, item in enumerate(self._get(name, list, [])))

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            self.fail(name, f'is {_kind(value)}, not a string')
        if '\0' in value:
            self.fail(name, 'contains a NUL byte')
        try:
            value.encode('utf-8')
        except UnicodeEncodeError:
            self.fail(name, 'contains half of a surrogate pair')
        return value


_NAMES = {str: 'a string', int: 'an integer', list: 'a list',
          dict: 'an object', bool: 'a boolean', float: 'a number',
          type(None): 'null'}


def _kind(value: Any) -> str:
    return _NAMES[type(value)]
