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

"""Who the container's process runs as, by the image's own passwd and group.

The files belong to the tenant: they are opened without leaving the root file
system, read to a bound, and a line that is not well formed is passed over.
"""

import os
import stat

from nova_container import exception
from nova_container.oci import runtime_config
from nova_container.privileged import linux

_FILE_MAX = 1 << 20
_ID_MAX = 65535


def read_file(rootfs_fd: int, path: str, limit: int = _FILE_MAX) -> bytes:
    """Up to ``limit`` bytes of a regular file of a root file system.

    Symbolic links resolve as they would inside the container (openat2(2),
    RESOLVE_IN_ROOT). A file that is missing, or not a regular one, is empty.
    """
    try:
        fd = linux.openat2(
            rootfs_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY,
            linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS)
    except OSError:
        return b''
    with open(fd, 'rb', buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b''
        return file.read(limit)


def _rows(content: bytes, columns: int) -> list[list[str]]:
    rows = [line.split(':')
            for line in content.decode(errors='surrogateescape').split('\n')]
    return [row for row in rows if len(row) >= columns]


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    return None


def _checked(number: int, wish: str) -> int:
    if number > _ID_MAX:
        raise exception.ProcessInvalid(
            f'user {wish!r}: id {number} is larger than {_ID_MAX}, the last '
            'one of a container')
    return number


def resolve(rootfs_fd: int, wish: str) -> runtime_config.Identity:
    """The numeric identity for ``user``, ``user:group``, names or numbers.

    As the OCI image specification has it (config.md, ``User``): a number
    needs no entry; a name needs one; without a group the user's own and
    supplementary groups apply.

    :raises ProcessInvalid: the image knows no such user or group
    """
    user, _, group = wish.partition(':')
    user = user or '0'
    passwd = _rows(read_file(rootfs_fd, 'etc/passwd'), 6)
    groups = _rows(read_file(rootfs_fd, 'etc/group'), 4)

    number = _number(user)
    row = next((r for r in passwd if r[0] == user), None)
    if row is None and number is not None:
        row = next((r for r in passwd if _number(r[2]) == number), None)
    if row is None and number is None:
        raise exception.ProcessInvalid(
            f'user {user!r} is not in the image\'s /etc/passwd; use a number, '
            'or add the user to the image')
    uid, gid, home = number or 0, 0, '/'
    if row is not None:
        found = _number(row[2])
        uid = uid if found is None else found
        gid = _number(row[3]) or 0
        home = row[5] if row[5].startswith('/') else '/'

    if group:
        gid_number = _number(group)
        entry = next((r for r in groups if r[0] == group), None)
        if entry is not None and _number(entry[2]) is not None:
            gid_number = _number(entry[2])
        if gid_number is None:
            raise exception.ProcessInvalid(
                f'group {group!r} is not in the image\'s /etc/group; use a '
                'number, or add the group to the image')
        return runtime_config.Identity(
            _checked(uid, wish), _checked(gid_number, wish), (), home)

    name = row[0] if row is not None else None
    extra = {_number(r[2]) for r in groups
             if name is not None and name in r[3].split(',')}
    return runtime_config.Identity(
        _checked(uid, wish), _checked(gid, wish),
        tuple(sorted(g for g in extra if g is not None and g <= _ID_MAX
                     and g != gid)),
        home)
