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

"""What the host puts over the files of an image, as root."""

import os

from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import linux
from nova_container.privileged import place
from nova_container.privileged import selinux
from nova_container.spec import container as container_spec

# Paths on the host and in the container.
Binds = tuple[tuple[str, str], ...]

# By how much all that is provided to a container may grow together.
_SPARE_BYTES = 256 << 10
_SPARE_FILES = 64

# Those of the binds: the OCI runtime cannot take away any other.
_FLAGS = linux.MS_NOSUID | linux.MS_NODEV


def write(spec: container_spec.ContainerSpec,
          owner: int) -> tuple[Binds, Binds]:
    """Write what is bound into a container, read-write and read-only.

    To a file system of its own: the container's root may write there, and
    would fill ``run_path``.
    """
    top = place.container_run(spec.id, 'files')
    linux.mount('tmpfs', top, 'tmpfs', _FLAGS, 'mode=711')
    binds = _write_files(spec, owner), _write_config_drive(spec, owner)
    filled = os.statvfs(top)
    size = (filled.f_blocks - filled.f_bfree) * filled.f_frsize
    files = filled.f_files - filled.f_ffree
    linux.mount('tmpfs', top, 'tmpfs', _FLAGS | linux.MS_REMOUNT,
                f'size={size + _SPARE_BYTES},nr_inodes={files + _SPARE_FILES}')
    return binds


def _write_files(spec: container_spec.ContainerSpec, owner: int) -> Binds:
    """Files that Neutron and Nova decide, bound over the image's own."""
    names = spec.hostname.split('.')[0]
    if names != spec.hostname:
        names = f'{spec.hostname} {names}'
    hosts = ['127.0.0.1 localhost', '::1 localhost ip6-localhost ip6-loopback']
    hosts += [f'{address} {names}'
              for address in spec.addresses or ('127.0.1.1',)]
    resolv = [f'nameserver {server}' for server in spec.dns.servers]
    if spec.dns.search:
        resolv.append('search ' + ' '.join(spec.dns.search))
    files = []
    for name, lines in (('hosts', hosts), ('hostname', [spec.hostname]),
                        ('resolv.conf', resolv)):
        path = place.container_run(spec.id, 'files', name)
        definition.write(path, '\n'.join(lines) + '\n', 0o644, owner)
        files.append((path, f'/etc/{name}'))
    if spec.authorized_keys:
        path = place.container_run(spec.id, 'files', 'authorized_keys')
        definition.write(path, spec.authorized_keys.rstrip('\n') + '\n', 0o600,
                         owner)
        files.append((path, '/root/.ssh/authorized_keys'))
    for path, _ in files:
        selinux.label(spec.id, path)
    return tuple(files)


def _write_config_drive(spec: container_spec.ContainerSpec,
                        owner: int) -> Binds:
    if not spec.config_drive:
        return ()
    top = place.container_run(spec.id, 'files', 'config-drive')
    for file in spec.config_drive:
        first = os.path.join(top, file.paths[0])
        for path in file.paths:
            name = os.path.join(top, path)
            os.makedirs(os.path.dirname(name), mode=0o700, exist_ok=True)
            if path is not file.paths[0]:
                os.link(first, name)
                continue
            definition.write(name, file.data, 0o400, owner)
    for directory, _, names in os.walk(top):
        os.chown(directory, owner, owner)
        for path in (directory, *(os.path.join(directory, name)
                                  for name in names)):
            selinux.label(spec.id, path)
    return ((top, '/config-drive'),)


def bind_nested(container_id: str, source: str, owner: int) -> Binds:
    """Bind the storage of runtimes inside to where its root may reach it."""
    target = place.container_run(container_id, 'nested')
    os.mkdir(target, 0o711)
    linux.mount(source, target, flags=linux.MS_BIND)
    files = []
    for name in disk.NESTED:
        path = disk.make_nested(target, name, owner)
        selinux.label(container_id, path)
        files.append((path, f'/var/lib/{name}'))
    return tuple(files)
