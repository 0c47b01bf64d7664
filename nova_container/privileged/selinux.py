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

"""The SELinux contexts of containers.

The policy's own ones for containers (selinux_lxc_contexts_path(3), which
podman and docker use, too), with a pair of categories for each container, so
that none may touch what is another's.
"""

import functools
import os
import re
import subprocess

from nova_container import exception
from nova_container.oci.runtime_config import SelinuxContexts
from nova_container.privileged import definition
from nova_container.privileged import place

_FILE_SYSTEM = '/sys/fs/selinux'
_CONFIGURATION = '/etc/selinux/config'
_XATTR = 'security.selinux'

_SETTING = re.compile(r'^\s*(\w+)\s*=\s*"?([^"\n]+?)"?\s*$', re.MULTILINE)


def enabled() -> bool:
    """Whether the kernel has SELinux at work with a policy."""
    return os.path.exists(f'{_FILE_SYSTEM}/enforce')


def _settings(path: str) -> dict[str, str]:
    try:
        with open(path) as file:
            return dict(_SETTING.findall(file.read()))
    except FileNotFoundError:
        return {}


def _categories(slot: int) -> str:
    """Two of the 1024 of every policy, other ones for every slot."""
    high = 1
    while slot >= high:
        slot -= high
        high += 1
    return f'c{slot},c{high}'


def _require_known(context: str) -> None:
    """Have the kernel look at a context: selinux_check_context(3)."""
    try:
        with open(f'{_FILE_SYSTEM}/context', 'wb', buffering=0) as file:
            file.write(context.encode() + b'\0')
    except OSError as e:
        raise exception.HostUnsupported(
            f'SELinux: the policy does not know {context} ({e.strerror}): '
            'install its module for containers (container-selinux), or set '
            '[container] selinux = false')


@functools.cache
def _policy() -> tuple[SelinuxContexts, bool]:
    """The policy's contexts of containers; whether it has categories.

    :raises HostUnsupported: there is no SELinux, or no policy for containers
    """
    if not enabled():
        raise exception.HostUnsupported(
            '[container] selinux is true, but this kernel runs without '
            'SELinux')
    kind = _settings(_CONFIGURATION).get('SELINUXTYPE', 'targeted')
    path = f'/etc/selinux/{kind}/contexts/lxc_contexts'
    found = _settings(path)
    if not {'process', 'file'} <= found.keys():
        raise exception.HostUnsupported(
            f'SELinux: {path} names no contexts of containers: install the '
            'policy for containers (container-selinux), or set [container] '
            'selinux = false')
    contexts = SelinuxContexts(found['process'], found['file'])
    with open(f'{_FILE_SYSTEM}/mls') as file:
        categories = file.read().strip() == '1'
    level = f':{_categories(0)}' if categories else ''
    for context in (contexts.process, contexts.file):
        _require_known(context + level)
    return contexts, categories


def contexts(slot: int) -> SelinuxContexts | None:
    """Those of the container in a slot ([container] selinux).

    :raises HostUnsupported: there is no SELinux, or no policy for containers
    """
    if not place.CONF.container.selinux:
        return None
    own, categories = _policy()
    if not categories:
        return own
    level = f':{_categories(slot)}'
    return SelinuxContexts(own.process + level, own.file + level)


def restore(path: str) -> None:
    """Give a directory of ours the context that the policy has for its path.

    What is made in it takes after it.
    """
    if place.CONF.container.selinux:
        subprocess.run(['restorecon', path], check=True, env=place.ENV,
                       capture_output=True, stdin=subprocess.DEVNULL)


def of(container_id: str) -> SelinuxContexts | None:
    """Those of a defined container.

    :raises HostUnsupported: there is no SELinux, or no policy for containers
    """
    return contexts(definition.slot(container_id))


def mount_option(container_id: str) -> str:
    """What gives all of a file system the container's context: mount(8).

    :returns: with a comma before it; empty without SELinux
    """
    found = of(container_id)
    # Quoted, for the categories have a comma between them.
    return f',context="{found.file}"' if found else ''


def label(container_id: str, path: str) -> None:
    """Give a file or directory of the host the container's context."""
    if found := of(container_id):
        os.setxattr(path, _XATTR, found.file.encode() + b'\0',
                    follow_symlinks=False)
