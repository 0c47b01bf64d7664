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

"""The list of what a container has changed in its root file system.

One line of JSON for each change, the directories before what is in them::

    ["A", "/srv/new"]

Kinds and paths are those of ``docker diff``.
"""

import json

from nova_container import exception

ADDED, CHANGED, DELETED = 'A', 'C', 'D'


def line(kind: str, path: str) -> bytes:
    """A change as a line of the list.

    :param path: as os.fsdecode gives it
    """
    return json.dumps([kind, path]).encode() + b'\n'


def parse(text: bytes) -> tuple[str, str]:
    """Kind and path of a line.

    :raises ImageInvalid: it is no such line
    """
    try:
        item = json.loads(text)
    except ValueError:
        item = None
    match item:
        case [('A' | 'C' | 'D') as kind, str(path)]:
            return kind, path
        case _:
            raise exception.ImageInvalid(
                f'{text[:80]!r} is not a line of a list of changes')


def shown(path: str) -> str:
    """A path for people: it is not to speak to their terminal."""
    return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in path)
