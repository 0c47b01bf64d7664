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

"""Specs as plain dicts, for disk and for the privsep channel.

``decode`` is the edge: it takes what may come from a caller one does not
trust and gives back a checked value, or raises InvalidSpec.
"""

import dataclasses
import functools
import types
import typing

from nova_container import exception

T = typing.TypeVar('T')


def encode(value: typing.Any) -> dict[str, typing.Any]:
    """A spec dataclass as nested dicts and lists."""
    return dataclasses.asdict(value)


def decode(cls: type[T], data: typing.Any) -> T:
    """A ``cls`` from what ``encode`` made.

    :raises InvalidSpec: unknown or missing keys, wrong types, wrong values
    """
    return _decode(cls, data, cls.__name__)


# Told once for each class: it takes far longer than all the rest.
_hints = functools.cache(typing.get_type_hints)


def _decode(kind: typing.Any, data: typing.Any, where: str) -> typing.Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(data, dict):
            raise exception.InvalidSpec(f'{where}: not a mapping')
        hints = _hints(kind)
        unknown = data.keys() - hints.keys()
        if unknown:
            raise exception.InvalidSpec(
                f'{where}: unknown keys {sorted(map(str, unknown))}')
        values = {key: _decode(hints[key], item, f'{where}.{key}')
                  for key, item in data.items()}
        try:
            return kind(**values)
        except TypeError as e:
            raise exception.InvalidSpec(f'{where}: {e}')
    origin = typing.get_origin(kind)
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            raise exception.InvalidSpec(f'{where}: not a list')
        inner = typing.get_args(kind)
        if inner[-1] is Ellipsis:
            inner = (inner[0],) * len(data)
        if len(inner) != len(data):
            raise exception.InvalidSpec(
                f'{where}: {len(data)} items instead of {len(inner)}')
        return tuple(_decode(k, item, where)
                     for k, item in zip(inner, data))
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        (kind,) = [k for k in typing.get_args(kind) if k is not type(None)]
        return _decode(kind, data, where)
    if type(data) is not kind:
        raise exception.InvalidSpec(
            f'{where}: {type(data).__name__} instead of {kind.__name__}')
    return data
