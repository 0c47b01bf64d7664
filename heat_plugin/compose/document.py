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

"""Reading a Compose file: YAML, variables, the published specification."""

import collections.abc
import dataclasses
import functools
import typing as ty

from check_jsonschema import builtin_schemas
import jsonschema
from ruamel import yaml

from heat_plugin.compose import interpolation

# Aliases of YAML make much of little: values that a file may have.
_VALUES_MAX = 20000

Path = tuple[str | int, ...]


class Refused(ValueError):
    """Something in a Compose file cannot be done; says what and where."""

    def __init__(self, message: str, path: Path = (),
                 line: int | None = None) -> None:
        where = '.'.join(str(part) for part in path)
        super().__init__(
            (f'line {line}: ' if line else '')
            + (f'{where}: ' if where else '') + message)


@dataclasses.dataclass(frozen=True)
class Document:
    """A file's content, and the line of each of its values."""

    content: dict[str, ty.Any]
    lines: dict[Path, int]

    def refused(self, path: Path, message: str) -> Refused:
        """The error that something at ``path`` is."""
        line = next((self.lines[path[:length]]
                     for length in range(len(path), 0, -1)
                     if path[:length] in self.lines), None)
        return Refused(message, path, line)


@functools.cache
def _validator() -> jsonschema.protocols.Validator:
    try:
        schema = builtin_schemas.get_builtin_schema('vendor.compose-spec')
    except builtin_schemas.NoSuchSchemaError:
        raise Refused('heat-engine lacks the Compose specification: its '
                      'host needs check-jsonschema 0.36 or later')
    # Its $schema is not exactly the name of the draft.
    return jsonschema.Draft7Validator(schema)


def read(text: str, variables: collections.abc.Mapping[str, str]
         ) -> Document:
    """The document in a file's text.

    :param variables: for interpolation
    :raises Refused: it is no YAML, or not as the specification says
    """
    loader = yaml.YAML(typ='rt', pure=True)
    try:
        loaded = loader.load(text)
    except yaml.error.MarkedYAMLError as error:
        mark = error.problem_mark
        raise Refused(' '.join((error.problem or str(error)).split()),
                      line=mark.line + 1 if mark else None)
    except (yaml.error.YAMLError, ValueError, RecursionError) as error:
        raise Refused(' '.join(str(error).split())[:200])
    if not isinstance(loaded, dict):
        raise Refused('a mapping with services is expected')
    reader = _Reader(variables)
    document = Document(reader.plain(loaded, ()), reader.lines)
    reader.substitute(document)
    wrong = jsonschema.exceptions.best_match(
        _validator().iter_errors(document.content))
    if wrong is not None:
        raise document.refused(tuple(wrong.absolute_path),
                               wrong.message[:300])
    return document


class _Reader:
    """Makes plain values of what the YAML library has, and notes lines."""

    def __init__(self, variables: collections.abc.Mapping[str, str]) -> None:
        self.lines: dict[Path, int] = {}
        self._variables = variables
        self._left = _VALUES_MAX

    def plain(self, value: ty.Any, path: Path) -> ty.Any:
        self._left -= 1
        if self._left < 0:
            raise Refused(f'more than {_VALUES_MAX} values, aliases counted')
        if isinstance(value, yaml.comments.CommentedMap):
            found = {}
            for key, item in value.items():
                if not isinstance(key, (str, int)):
                    raise Refused(f'{key!r} cannot be a key', path,
                                  self.lines.get(path))
                name = str(key)
                try:
                    self.lines[*path, name] = value.lc.key(key)[0] + 1
                except (AttributeError, KeyError, TypeError):
                    # Merged from elsewhere.
                    pass
                found[name] = self.plain(item, (*path, name))
            return found
        if isinstance(value, yaml.comments.CommentedSeq):
            for index in range(len(value)):
                self.lines[*path, index] = value.lc.item(index)[0] + 1
            return [self.plain(item, (*path, index))
                    for index, item in enumerate(value)]
        if value is None or isinstance(value, bool):
            return value
        for kind in (int, float, str):
            if isinstance(value, kind):
                return kind(value)
        return str(value)

    def substitute(self, document: Document) -> None:
        """Put in the variables, in values and not in keys."""
        def within(value: ty.Any, path: Path) -> ty.Any:
            if isinstance(value, dict):
                return {key: within(item, (*path, key))
                        for key, item in value.items()}
            if isinstance(value, list):
                return [within(item, (*path, index))
                        for index, item in enumerate(value)]
            if isinstance(value, str) and '$' in value:
                try:
                    return interpolation.substitute(value, self._variables)
                except interpolation.InvalidVariable as error:
                    raise document.refused(path, str(error))
            return value

        document.content.update(within(document.content, ()))
