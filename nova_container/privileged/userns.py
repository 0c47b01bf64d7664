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

"""User namespaces as descriptors, for id-mapped mounts and the unpacker."""

import os
import subprocess

from nova_container.spec import idmap


def create(*mappings: idmap.IdMap) -> int:
    """A new user namespace with ``mappings`` for users and groups.

    The namespace lives as long as the descriptor. A short-lived child holds it
    while the maps are written: a multi-threaded process cannot unshare its own
    (user_namespaces(7)).

    :returns: descriptor of the namespace; the caller closes it
    """
    with subprocess.Popen(['unshare', '--user', 'cat'],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin'},
                          bufsize=0) as holder:
        assert holder.stdin and holder.stdout
        # The echo proves that cat runs, hence that the namespace is there.
        holder.stdin.write(b'x')
        if holder.stdout.read(1) != b'x':
            raise OSError('unshare --user failed: user namespaces are off '
                          '(sysctl user.max_user_namespaces)')
        lines = ''.join(f'{each.inside} {each.outside} {each.count}\n'
                        for each in mappings)
        for kind in ('uid_map', 'gid_map'):
            with open(f'/proc/{holder.pid}/{kind}', 'w') as table:
                table.write(lines)
        fd = os.open(f'/proc/{holder.pid}/ns/user', os.O_RDONLY | os.O_CLOEXEC)
        holder.stdin.close()
    return fd
