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

"""The options of group ``[container]``."""

import re

from oslo_config import cfg

# How oslo.config says which file a value is from.
_LOCATION = re.compile(r" from LocationInfo\(.*, detail='([^']*)'\)")

GROUP = cfg.OptGroup(
    'container', title='Container driver',
    help='Where and how the container driver runs containers.')

OPTS = [
    cfg.StrOpt(
        'state_path', default='/var/lib/nova-container',
        help="""
Directory of the layers, images and containers of this compute service. It
survives a reboot of the host. Two compute services on one machine need two.
"""),
    cfg.StrOpt(
        'run_path', default='/run/nova-container',
        help="""
Directory of what lives as long as the running containers: sockets, process
ids, the pinned mount namespace. It must be on a tmpfs, and short: the path of
a Unix socket below it may not exceed 107 bytes.
"""),
    cfg.StrOpt(
        'cgroup_parent', default='nova-container',
        regex=r'^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$',
        help="""
Name of the control group that holds this service's containers, directly below
the root of each hierarchy; with systemd as cgroup manager that is a slice of
this name, with ``_`` for each ``-``. Two compute services on one machine need
two.
"""),
    cfg.StrOpt(
        'cgroup_manager', default='auto',
        choices=[('auto', 'systemd where it runs on cgroup v2 alone, '
                  'cgroupfs elsewhere'),
                 ('systemd', 'scopes of a slice, made by systemd'),
                 ('cgroupfs', 'directories, made by the OCI runtime')],
        help="""
Who makes the control groups of containers. With systemd each container is a
scope, which ``systemctl status`` and ``systemd-cgls`` show. Change it only
while no container runs.
"""),
    cfg.StrOpt(
        'apparmor_profile', default='auto',
        help="""
The AppArmor profile that confines containers: the name of one that is loaded;
``none``; or ``auto``, which is nova-container-default if that is loaded.
"""),
    cfg.BoolOpt(
        'selinux', default=False,
        help="""
Give containers SELinux contexts: the policy's own for containers, with two
categories for each, so that none may touch what is another's. The host has to
be prepared for it; see the administrator guide.
"""),
    cfg.StrOpt(
        'oci_runtime', default='auto',
        help="""
The OCI runtime: ``runc``, ``crun``, an absolute path, or ``auto``, which
takes crun on a host with cgroup v2 alone, if installed, and runc otherwise.
"""),
    cfg.StrOpt(
        'conmon', default='conmon',
        help="""
The container monitor of the podman project: name or absolute path.
"""),
    cfg.StrOpt(
        'cryptsetup', default='cryptsetup',
        help="""
The program that opens encrypted volumes: name or absolute path.
"""),
    cfg.StrOpt(
        'init', default='auto',
        help="""
The small init that a container with ``container:init`` gets as its first
process: an absolute path of a statically linked program that takes
``-- COMMAND``, or ``auto``, which looks for those of the packages catatonit,
tini and docker.
"""),
    cfg.BoolOpt(
        'privileged_allowed', default=False,
        help="""
Whether a flavor with the extra spec ``container:privileged`` is served: every
capability and no filter of system calls, within a user namespace.
"""),
    cfg.BoolOpt(
        'nesting_allowed', default=False,
        help="""
Whether a flavor with the extra spec ``container:nesting`` is served: a
container runtime such as podman can work inside, which opens more of the
kernel's code to the tenant.
"""),
    cfg.StrOpt(
        'snapshot_format', default='thin', choices=[
            ('thin', 'the changes as a layer image, with the manifest of the '
             'image below and that'),
            ('archive', 'every layer in one OCI archive, which needs no other '
             'image and moves all of it')],
        help="""
What a snapshot of a server is in Glance.
"""),
    cfg.IntOpt(
        'id_range_start', default=1000000, min=65536, max=4294901760,
        help="""
First host user and group id given to containers. The first 65536 ids own the
image layers on disk; each container has 65536 of its own after them. The
range must not overlap with users of the host or with /etc/subuid.
"""),
    cfg.IntOpt(
        'id_range_count', default=4096, min=2, max=65534,
        help="""
Number of id ranges of 65536 ids each; one less is the largest number of
containers on this host.
"""),
    cfg.IntOpt(
        'pids_limit', default=4096, min=1,
        help="""
Largest number of processes and threads of one container, unless the flavor's
extra spec ``container:pids_limit`` says otherwise.
"""),
    cfg.ListOpt(
        'volume_file_systems', default=['ext4', 'xfs'],
        item_type=cfg.types.String(choices=['ext4', 'xfs']),
        help="""
File systems of volumes that this host mounts when a server's metadata asks for
it (``container:mount:...``); a blank volume gets the first of them. Their
content comes from tenants, who can also write it byte by byte where they have
the volume as a device, and the kernel reads it with all its rights. Leave it
empty where that is not wanted: volumes are devices only then.
"""),
    cfg.IntOpt(
        'quiesce_timeout', default=300, min=1,
        help="""
Seconds that a server is held still at most while snapshots of its volumes are
made. Nova lets it go when they are ready, unless its API is killed meanwhile.
"""),
    cfg.StrOpt(
        'console_font',
        default='/usr/share/consolefonts/Unifont-APL8x16.psf.gz',
        help="""
Font of graphical consoles (``[vnc] enabled``): a PSF file, compressed or not,
with glyphs of 8 by 16 pixels and a table of characters. The default is that
of the package psf-unifont; without the file there are serial consoles only.
"""),
    cfg.IntOpt(
        'log_size', default=10 * 1024 * 1024, min=65536,
        help="""
Bytes kept of the console log of a container: the newest, and the first 64 KiB.
"""),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options, once or again, on an oslo.config object."""
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def told(error: cfg.Error) -> str:
    """What is wrong, for people."""
    return _LOCATION.sub(r' in \1', str(error))


def wrong_values(conf: cfg.ConfigOpts) -> list[str]:
    """What is wrong with the values set: oslo.config looks at each when used.
    """
    found = []
    for option in OPTS:
        try:
            conf[GROUP.name][option.dest]
        except cfg.ConfigFileValueError as e:
            found.append(told(e))
    return found


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """What oslo-config-generator prints (entry point oslo.config.opts)."""
    return [(GROUP, OPTS)]
