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

"""Variables in the values of a Compose file.

Source: the Compose specification, "Interpolation".
"""

import collections.abc
import re

_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')
_OPERATOR = re.compile(r':?[-?+]')


class InvalidVariable(ValueError):
    """A reference is malformed, or a variable that is required is not set."""


def substitute(text: str, variables: collections.abc.Mapping[str, str]
               ) -> str:
    """The text with its variables' values.

    :raises InvalidVariable: see there
    """
    found, rest = _until(text, variables, closing=False)
    assert not rest
    return found


def _until(text: str, variables: collections.abc.Mapping[str, str],
           closing: bool) -> tuple[str, str]:
    """What is before a closing brace, substituted, and what is after it."""
    out: list[str] = []
    while text:
        before, dollar, text = text.partition('$')
        if closing and '}' in before:
            value, _, after = before.partition('}')
            return ''.join([*out, value]), after + dollar + text
        out.append(before)
        if not dollar:
            break
        if text.startswith('$'):
            out.append('$')
            text = text[1:]
        elif text.startswith('{'):
            value, text = _braced(text[1:], variables)
            out.append(value)
        elif (name := _NAME.match(text)) is not None:
            out.append(variables.get(name[0], ''))
            text = text[name.end():]
        else:
            raise InvalidVariable(
                f'${text[:10]} is no variable; $$ is a dollar sign')
    if closing:
        raise InvalidVariable('${ without }')
    return ''.join(out), ''


def _braced(text: str, variables: collections.abc.Mapping[str, str]
            ) -> tuple[str, str]:
    """The value of what is in braces, and what is after them."""
    name = _NAME.match(text)
    if name is None:
        raise InvalidVariable(f'${{{text[:10]} is no variable')
    text = text[name.end():]
    if text.startswith('}'):
        return variables.get(name[0], ''), text[1:]
    operator = _OPERATOR.match(text)
    if operator is None:
        raise InvalidVariable(f'${{{name[0]}{text[:10]} is no variable')
    word, rest = _until(text[operator.end():], variables, closing=True)
    value = variables.get(name[0], '')
    given = name[0] in variables and not (operator[0][0] == ':' and not value)
    match operator[0][-1]:
        case '-':
            return value if given else word, rest
        case '+':
            return word if given else '', rest
    if not given:
        raise InvalidVariable(f'{name[0]} is required: {word}')
    return value, rest
