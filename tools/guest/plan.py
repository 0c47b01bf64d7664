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


"""What the guest is made of, and where it is kept. Nothing here acts."""

import dataclasses
import hashlib
import pathlib
import typing as ty

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
FILES = pathlib.Path(__file__).parent / 'files'
CONSTRAINTS = (REPOSITORY / 'tools/onenode/constraints-2026.2.txt',
               REPOSITORY / 'tools/constraints-tests.txt')

# Finished images, one directory for each way of building them.
CACHE = pathlib.Path('/var/cache/nova-container-guest')

SUITE: ty.Final = 'trixie'
PYTHON: ty.Final = '3.13'

PACKAGES: ty.Final = (
    'linux-image-cloud-amd64', 'systemd', 'systemd-sysv', 'udev', 'dbus',
    'kmod', 'initramfs-tools', 'zstd', 'procps', 'util-linux', 'iproute2',
    'python3', 'crun', 'runc', 'conmon', 'busybox-static', 'umoci', 'tini',
    'apparmor', 'xfsprogs', 'e2fsprogs', 'attr', 'nftables', 'criu',
    'ethtool', 'skopeo', 'selinux-policy-default', 'policycoreutils',
)

# What of requirements.txt and test-requirements.txt the functional tests
# import.
REQUIREMENTS: ty.Final = (
    'fixtures', 'hypothesis', 'isal', 'oslo.concurrency', 'oslo.config',
    'oslo.log', 'oslo.privsep', 'oslo.upgradecheck', 'oslo.utils',
    'prettytable', 'psutil', 'pyroute2', 'pyte', 'python-subunit',
    'testtools', 'wcwidth', 'zstandard',
)

# Twice as fast as Debian 12's at starting processes.
EMULATOR: ty.Final = ('qemu-system-x86', 'qemu-utils')


@dataclasses.dataclass(frozen=True)
class Machine:
    """What one run of the guest gets.

    :ivar kernel: more parameters of the kernel
    :ivar memory: MiB
    :ivar timeout: seconds until it is switched off
    """

    kernel: str = ''
    processors: int = 2
    memory: int = 3072
    timeout: int = 3600


class Failure(Exception):
    """The guest could not be built or did not answer."""


def directory() -> pathlib.Path:
    """Where the images built in just this way are kept."""
    digest = hashlib.sha256()
    for path in sorted((*pathlib.Path(__file__).parent.rglob('*'),
                        *CONSTRAINTS)):
        if path.is_file() and path.name in _BUILT_FROM:
            digest.update(path.read_bytes())
    return CACHE / digest.hexdigest()[:16]


_BUILT_FROM = {'plan.py', 'image.py', 'guest-run', 'guest-run.service',
               'guest-engine.cil',
               *(path.name for path in CONSTRAINTS)}
