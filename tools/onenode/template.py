# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Filling in the files below templates/."""

import collections.abc as cabc
import pathlib
import string

_TEMPLATES = pathlib.Path(__file__).parent / 'templates'


def render(template: str, values: cabc.Mapping[str, object]) -> str:
    """Fill in a template.

    A line ``#include NAME`` stands for another template.
    """
    lines = []
    for line in (_TEMPLATES / template).read_text().splitlines():
        if line.startswith('#include '):
            lines.append(render(line.split()[1], values).rstrip('\n'))
        else:
            lines.append(string.Template(line).substitute(values))
    return '\n'.join(lines) + '\n'
