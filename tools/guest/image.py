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


"""Building the emulator and the guest's root disk.

mmdebstrap(1), initramfs.conf(5), mke2fs(8). About two minutes, once for each
change of what is built.
"""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

from guest import plan

_APT = ('Acquire::Check-Valid-Until "false"', 'Acquire::Check-Date "false"',
        'APT::Install-Recommends "false"')
_LEFT_OUT = ('doc', 'man', 'locale', 'info')
_MASKED = ('apt-daily.timer', 'apt-daily-upgrade.timer',
           'dpkg-db-backup.timer', 'e2scrub_all.timer',
           'e2scrub_reap.service', 'fstrim.timer', 'getty@tty1.service',
           'serial-getty@ttyS0.service', 'systemd-timesyncd.service',
           'systemd-udev-settle.service')


def _run(*words: object) -> None:
    command = [str(word) for word in words]
    env = {**os.environ, 'LC_ALL': 'C.UTF-8'}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors='replace')
    if done.returncode:
        raise plan.Failure(f'exit status {done.returncode} from '
                           f'{shlex.join(command)}:\n{done.stdout[-4000:]}')


def _bootstrap(target: pathlib.Path, packages: tuple[str, ...],
               *options: str) -> None:
    """A Debian of these packages below ``target``."""
    _run('mmdebstrap', '--mode=root', '--variant=minbase',
         '--format=directory', '--architectures=amd64',
         f'--include={",".join(packages)}',
         *(f'--aptopt={option}' for option in _APT),
         *(f'--dpkgopt=path-exclude=/usr/share/{name}/*'
           for name in _LEFT_OUT),
         '--dpkgopt=force-unsafe-io', *options, plan.SUITE, target)


def _hooks() -> list[str]:
    """mmdebstrap's hooks; ``$1`` is the root directory."""
    initramfs = (
        'mkdir -p "$1"/etc/initramfs-tools/conf.d;'
        ' printf "MODULES=list\\nCOMPRESS=zstd\\nRESUME=none\\n"'
        ' >"$1"/etc/initramfs-tools/conf.d/guest;'
        ' printf "virtio_pci\\nvirtio_blk\\next4\\n"'
        ' >>"$1"/etc/initramfs-tools/modules')
    site = f'"$1"/usr/local/lib/python{plan.PYTHON}/dist-packages'
    pip = shlex.join([
        sys.executable, '-m', 'pip', 'install', '--quiet', '--no-input',
        '--disable-pip-version-check', '--no-compile',
        '--python-version', plan.PYTHON, '--implementation', 'cp',
        '--only-binary', ':all:',
        *(word for path in plan.CONSTRAINTS
          for word in ('--constraint', str(path))),
        *plan.REQUIREMENTS])
    service = plan.FILES / 'guest-run.service'
    return [
        f'--essential-hook={initramfs}',
        f'--customize-hook={pip} --target {site}',
        '--customize-hook=chroot "$1" python3 -m compileall -q '
        f'/usr/local/lib/python{plan.PYTHON}/dist-packages',
        f'--customize-hook=install -m755 {plan.FILES}/guest-run '
        '"$1"/usr/local/sbin/guest-run;'
        f' install -m644 {service} "$1"/etc/systemd/system/;'
        ' chroot "$1" systemctl --quiet enable guest-run.service;'
        ' chroot "$1" systemctl --quiet set-default multi-user.target',
        '--customize-hook=chroot "$1" systemctl --quiet mask '
        + ' '.join(_MASKED),
        '--customize-hook=echo guest >"$1"/etc/hostname;'
        ' echo "127.0.0.1 localhost guest" >"$1"/etc/hosts;'
        ' : >"$1"/etc/fstab; echo uninitialized >"$1"/etc/machine-id',
        # What a kernel with SELinux finds; any other does not look at it.
        '--customize-hook=printf "SELINUX=enforcing\\nSELINUXTYPE=default\\n"'
        ' >"$1"/etc/selinux/config &&'
        f' install -m644 {plan.FILES}/guest-engine.cil "$1"/srv/ &&'
        ' chroot "$1" semodule -n -s default -i /srv/guest-engine.cil &&'
        ' chroot "$1" setfiles -F -e /proc -e /sys -e /dev'
        ' /etc/selinux/default/contexts/files/file_contexts /',
    ]


def _newest(directory: pathlib.Path, pattern: str) -> pathlib.Path:
    found = sorted(directory.glob(pattern))
    if not found:
        raise plan.Failure(f'the guest has no {pattern}')
    return found[-1]


def _build(into: pathlib.Path) -> None:
    _bootstrap(into / 'emulator', plan.EMULATOR)
    for name in ('var', 'usr/share/doc', 'usr/include'):
        shutil.rmtree(into / 'emulator' / name, ignore_errors=True)
    root = into / 'root'
    _bootstrap(root, plan.PACKAGES, *_hooks())
    shutil.copy(_newest(root / 'boot', 'vmlinuz-*'), into / 'vmlinuz')
    initrd = _newest(root / 'boot', 'initrd.img-*')
    shutil.move(initrd, into / 'initrd.img')
    disk = into / 'root.img'
    with open(disk, 'wb') as file:
        file.truncate(6 << 30)
    _run('mke2fs', '-q', '-t', 'ext4', '-m0', '-E',
         'lazy_itable_init=1,lazy_journal_init=1', '-d', root, disk)
    shutil.rmtree(root)


def ensure() -> pathlib.Path:
    """Directory of emulator, kernel, initrd and root disk, built if needed.

    Images of other builds are removed: they are of no use any more.

    :raises Failure: a step of the build failed; carries its output
    """
    final = plan.directory()
    if final.is_dir():
        return final
    plan.CACHE.mkdir(parents=True, exist_ok=True)
    for old in plan.CACHE.iterdir():
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(dir=plan.CACHE) as work:
        path = pathlib.Path(work, 'image')
        path.mkdir()
        _build(path)
        path.rename(final)
    return final
