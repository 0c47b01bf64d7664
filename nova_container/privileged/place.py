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

"""Where things are, from the configuration alone.

::

    <state_path>/                survives a reboot
        layers/sha256/<hex>/fs   one layer, owned by the ids of slot 0
        layers/tmp/              layers being unpacked
        spool/                   archives being read (the service user's)
        images/ blobs/           records of both (the service user's)
        ids/<slot>               symbolic link, names the slot's container
        containers/<id>/         spec.json slot log exit.json, and
                                 upper/ work/ mnt/ or root.img ephemeral.img;
                                 while it is rescued, rescue.json and its disk
        parked/<id>/             a container that has moved, until the user
                                 confirms that
        mnt/                     NFS shares of volumes (the service user's)
        connections/             how volumes were connected (likewise)
        trash/                   containers being removed
    <run_path>/                  gone at reboot
        ns/mnt                   the mount namespace of the containers
        oci/                     the OCI runtime's own state
        exits/<id>               exit code, written by conmon
        volumes/<id>.json        the device of a connected volume
        disks/<id>               a halted container's disk while it is read
        c/<id>/                  config.json, rootfs/, disk/, run.json, ...;
                                 files/, a tmpfs of its own
"""

import os
import shutil

from oslo_config import cfg

from nova_container import exception
from nova_container.privileged import systemd
from nova_container.spec import container
from nova_container.spec import idmap

CONF = cfg.CONF

# Environment of every process started as root.
ENV = {'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
       'LC_ALL': 'C.UTF-8'}


def program(name: str, option: str, package: str) -> str:
    """Path of a program that is started as root.

    :param name: what ``[container] OPTION`` says
    :raises HostUnsupported: it is not there
    """
    path = shutil.which(name, path=ENV['PATH'])
    if path is None:
        raise exception.HostUnsupported(
            f'{name} is not installed: install the package {package}, or set '
            f'[container] {option} to its path')
    return path


def state(*parts: str) -> str:
    """A path below ``[container] state_path``."""
    return '/'.join((CONF.container.state_path, *parts))


def run(*parts: str) -> str:
    """A path below ``[container] run_path``."""
    return '/'.join((CONF.container.run_path, *parts))


def container_state(container_id: str, *parts: str) -> str:
    """A path in the persistent directory of a container."""
    return state('containers', container.check_id(container_id), *parts)


def parked(container_id: str) -> str:
    """Directory of a container that was set aside."""
    return state('parked', container.check_id(container_id))


def container_run(container_id: str, *parts: str) -> str:
    """A path in the directory of a container that runs."""
    return run('c', container.check_id(container_id), *parts)


def exit_file(container_id: str) -> str:
    """Where conmon writes the exit code of a container."""
    return run('exits', container.check_id(container_id))


def ids() -> idmap.IdRanges:
    """The host ids of layers and containers."""
    return idmap.IdRanges(CONF.container.id_range_start,
                          CONF.container.id_range_count)


def cgroup(*parts: str) -> str:
    """A control group, relative to the root of each hierarchy.

    :param parts: a container's id, or a word that is none; ours without
    """
    if systemd.manages():
        return systemd.path(*parts)
    return '/' + '/'.join((CONF.container.cgroup_parent, *parts))


def lasting_cgroup(container_id: str) -> str:
    """The group around a container's own that is there until it is halted.

    Its own, but with systemd, which removes that with the last process.
    """
    own = cgroup(container.check_id(container_id))
    return os.path.dirname(own) if systemd.manages() else own
