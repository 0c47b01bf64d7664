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

"""The file of variables that a service of a Compose file names.

Source: the Compose specification, services, "Env_file format".
"""

import collections
import collections.abc
import io
import re

from dotenv import parser

from heat_plugin.compose import interpolation

# The parser does not tell how a value was quoted.
_LITERAL = re.compile(r"""\s*(?:export\s+)?(?:'[^']+'|[^=#\s]+)\s*=\s*'""")


class InvalidFile(ValueError):
    """A line makes no sense; says which, and not what is in it."""


def read(text: str, variables: collections.abc.Mapping[str, str]
         ) -> dict[str, str | None]:
    """The variables in a file; None for one that has no value there.

    dotenv would put in variables of heat-engine's own environment, so it
    only parses.

    :param variables: for interpolation, before those of the file itself
    :raises InvalidFile: see there
    """
    found: dict[str, str | None] = {}
    own: dict[str, str] = {}
    known = collections.ChainMap(dict(variables), own)
    for binding in parser.parse_stream(io.StringIO(text)):
        value = binding.value
        if binding.error:
            raise InvalidFile(f'line {_line(binding)} is not of the form '
                              'NAME=VALUE, or a quote is not closed')
        if binding.key is None:
            continue
        if value is not None:
            if not _LITERAL.match(binding.original.string):
                try:
                    value = interpolation.substitute(value, known)
                except interpolation.InvalidVariable as error:
                    raise InvalidFile(f'line {_line(binding)}, '
                                      f'{binding.key}: {error}')
            own[binding.key] = value
        found[binding.key] = value
    return found


def _line(binding: parser.Binding) -> int:
    """Where it begins; the parser counts empty lines before it to it."""
    text = binding.original.string
    blank = text[:len(text) - len(text.lstrip())]
    return binding.original.line + blank.count('\n')
