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

"""Ids that become parts of paths."""

import re

from nova_container import exception

_UUID = re.compile(
    r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}')


def check_uuid(what: str, value: str) -> str:
    """``value`` itself, if it is a UUID in canonical form (RFC 9562).

    :param what: whose id, for the message
    :raises InvalidSpec: otherwise
    """
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise exception.InvalidSpec(
            f'{what} id {value!r} is not a lower-case UUID')
    return value
