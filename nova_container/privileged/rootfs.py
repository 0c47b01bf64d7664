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

"""The root file system of a container: an overlay of its layers."""

import contextlib
import os
import stat

from nova_container import exception
from nova_container.privileged import definition
from nova_container.privileged import disk
from nova_container.privileged import implied
from nova_container.privileged import layer
from nova_container.privileged import linux
from nova_container.privileged import place
from nova_container.privileged import selinux
from nova_container.spec import container as container_spec


def mount(spec: container_spec.ContainerSpec, shift: int,
          writable: disk.Writable, target: str) -> None:
    """Mount the overlay of the id-mapped layers and a writable layer.

    The layers are attached under one-digit names and named relative to the
    working directory, which keeps the options of a hundred layers within the
    page that mount(2) takes. Once the overlay has its own reference they are
    detached again. The writable layer itself must not be id-mapped: the
    overlay would be read-only.
    """
    run_dir = place.container_run(spec.id)
    os.chdir(os.path.join(run_dir, 'l'))
    # The topmost of equal layers hides the others, and overlay takes a
    # directory only once.
    layers = list(dict.fromkeys(reversed(spec.layers)))
    # The kernel makes a directory in there with the first mount.
    if not os.path.exists(os.path.join(writable.work, 'work')):
        implied.provide(
            (implied.Layer(layer.tree(diff_id), layer.implied(diff_id))
             for diff_id in layers),
            writable.upper, writable.work,
            place.ids().container(definition.slot(spec.id)).outside
            - place.ids().layers().outside)
    for name, diff_id in enumerate(layers):
        os.makedirs(str(name), exist_ok=True)
        mount = linux.open_tree(layer.tree(diff_id))
        try:
            linux.mount_setattr(
                mount, linux.MOUNT_ATTR_IDMAP | linux.MOUNT_ATTR_RDONLY
                | linux.MOUNT_ATTR_NODEV, shift)
            linux.move_mount(mount, str(name))
        finally:
            os.close(mount)
    lower = ':'.join(str(name) for name in range(len(layers)))
    linux.mount(
        'overlay', target, 'overlay', linux.MS_NODEV,
        f'userxattr,lowerdir={lower},'
        f'upperdir={writable.upper},workdir={writable.work}'
        f'{selinux.mount_option(spec.id)}')
    for name in range(len(layers)):
        linux.umount(str(name))


def require_directories(rootfs_fd: int) -> None:
    """Refuse a root file system that sends the runtime out of it.

    runc, before it changes its root, follows a symbolic link at /dev to where
    that points on the host, and makes its own links there.
    """
    for name in ('dev', 'proc', 'sys'):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=rootfs_fd, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                raise exception.ImageInvalid(
                    f'/{name} of the container is not a directory; rebuild '
                    'the image with a directory there, or with nothing')
