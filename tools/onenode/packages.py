# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Debian packages, installed without starting their services.

Source of the convention: invoke-rc.d(8) and
/usr/share/doc/init-system-helpers/README.policy-rc.d.gz: a policy-rc.d that
exits with 101 forbids every action on services.
"""

import contextlib
import fcntl
import os
import pathlib
import tempfile

from onenode import command
from onenode import marks
from onenode import plan

# For the virtualenv: uWSGI is compiled.
BUILD = ('ca-certificates', 'gcc', 'libc6-dev', 'python3-dev', 'python3-venv')

SERVICES = (
    'conmon', 'crun', 'curl', 'ethtool', 'haproxy', 'iproute2',
    'mariadb-server', 'memcached', 'openvswitch-switch', 'ovn-central',
    'ovn-host', 'procps', 'psf-unifont', 'rabbitmq-server', 'runc', 'skopeo',
    'sudo', 'util-linux',
)

# For the option --volumes.
VOLUMES = (
    'ceph-common', 'ceph-mgr', 'ceph-mon', 'ceph-osd', 'cryptsetup-bin',
    'fuse3', 'python3-rados', 'python3-rbd', 'qemu-block-extra',
    'qemu-system-common', 'qemu-utils', 'xfsprogs',
)

# What the web browser is given by nova-novncproxy. Of the package, only its
# files are taken: it depends on programs to serve them with.
_NOVNC = 'novnc'

POLICY = pathlib.Path('/usr/sbin/policy-rc.d')
_SAVED = POLICY.with_name('policy-rc.d.nova-container-cloud')
_DENY = ('#!/bin/sh\n'
         '# nova-container tools/cloud is installing packages\n'
         'exit 101\n')
_DPKG = pathlib.Path('/var/lib/dpkg')


def missing(names: tuple[str, ...]) -> list[str]:
    """Those packages that are not fully installed."""
    text = command.output(
        ['dpkg-query', '--show', '--showformat',
         '${Package} ${db:Status-Status} ${Provides}\n'])
    installed = set()
    for line in text.splitlines():
        name, status, provides = (line.split(' ', 2) + [''])[:3]
        if status == 'installed':
            installed.add(name)
            installed.update(p.split()[0] for p in provides.split(',')
                             if p.strip())
    return [name for name in names if name not in installed]


def restore_policy() -> None:
    """Put back the policy-rc.d there was before, however we ended."""
    if os.path.lexists(_SAVED):
        _SAVED.rename(POLICY)
    elif POLICY.is_file() and POLICY.read_text() == _DENY:
        POLICY.unlink()


def _deny_starts() -> None:
    if os.path.lexists(POLICY):
        POLICY.rename(_SAVED)
    marks.write(POLICY, _DENY, 0o755)


def _dpkg_is_free() -> bool:
    with open(_DPKG / 'lock-frontend', 'a') as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def install(names: tuple[str, ...], log: pathlib.Path) -> bool:
    """Install what is missing of the packages; False if nothing is."""
    if not _DPKG.is_dir():
        raise plan.Failure('this needs Debian or Ubuntu: there is no dpkg')
    # A killed run may have left its apt-get at work.
    command.wait_for(_dpkg_is_free, 'dpkg is in use by another program', 300)
    restore_policy()
    broken = bool(any((_DPKG / 'updates').iterdir())
                  or command.output(['dpkg', '--audit']))
    wanted = missing(names)
    if not wanted and not broken:
        return False
    env = command.environment(DEBIAN_FRONTEND='noninteractive',
                              NEEDRESTART_MODE='l')
    apt = ['apt-get', '--quiet', '--yes', '--option',
           'DPkg::Lock::Timeout=120', '--option', 'Dpkg::Use-Pty=0']

    def run(*words: str) -> None:
        # Killed half way, dpkg leaves more to repair than it saves time.
        command.run(words, log=log, env=env, may_outlive=True)

    with contextlib.ExitStack() as undo:
        undo.callback(restore_policy)
        _deny_starts()
        if broken:
            run('dpkg', '--force-confold', '--configure', '-a')
            run(*apt, '--fix-broken', 'install')
        if wanted:
            run(*apt, 'update')
            run(*apt, '--no-install-recommends', 'install', *wanted)
    return True


def unpack_novnc(layout: plan.Layout, log: pathlib.Path) -> bool:
    """Unpack the files that a web browser shows graphical consoles with."""
    if layout.novnc.exists():
        return False
    apt = ('apt-get', '--quiet', '--option', 'APT::Sandbox::User=root')
    with tempfile.TemporaryDirectory(dir=layout.cache) as directory:
        new = pathlib.Path(directory)
        command.run([*apt, 'update'], log=log)
        command.run(['env', f'--chdir={new}', *apt, 'download', _NOVNC],
                    log=log)
        package, = new.glob('*.deb')
        command.run(['dpkg-deb', '--extract', package, new], log=log)
        (new / 'usr/share/novnc').rename(layout.novnc)
    return True
