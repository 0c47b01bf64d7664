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


"""Running the guest once.

qemu(1). The guest's service ``guest-run`` mounts the second disk, runs
``run`` there and switches the machine off; see ``files``.
"""

import collections.abc as cabc
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile

from guest import plan

_KERNEL = ('root=/dev/vda rw rootfstype=ext4 rootflags=noatime '
           'console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off '
           'systemd.show_status=0 audit=0 nowatchdog tsc=reliable '
           'random.trust_cpu=1 no_timer_check TERM=dumb')


# Bytes of the tree's disk that are free, at least.
_SPARE = 64 << 20


def _emulator(image: pathlib.Path, program: str) -> list[str]:
    """A program of another Debian, run with that one's own libraries."""
    root = image / 'emulator'
    libraries = root / 'usr/lib/x86_64-linux-gnu'
    return [str(root / 'usr/lib64/ld-linux-x86-64.so.2'), '--library-path',
            str(libraries), str(root / 'usr/bin' / program)]


@contextlib.contextmanager
def _disks(image: pathlib.Path,
           tree: pathlib.Path) -> cabc.Iterator[list[pathlib.Path]]:
    """Root disk, as a layer to be thrown away, the disk of ``tree``, and an
    empty one.
    """
    with tempfile.TemporaryDirectory(prefix='guest.', dir='/var/tmp') as work:
        root, second, third = (pathlib.Path(work, name) for name in
                               ('root.qcow2', 'tree.img', 'empty.img'))
        subprocess.run(
            [*_emulator(image, 'qemu-img'), 'create', '-q', '-f', 'qcow2',
             '-b', image / 'root.img', '-F', 'raw', root], check=True)
        with open(second, 'wb') as file:
            file.truncate(_SPARE + 2 * sum(
                path.stat().st_size for path in tree.rglob('*')))
        subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-O', '^has_journal',
                        '-d', tree, second], check=True)
        with open(third, 'wb') as file:
            file.truncate(4 << 30)
        yield [root, second, third]


def run(image: pathlib.Path, tree: pathlib.Path, machine: plan.Machine,
        results: int, log: pathlib.Path) -> int:
    """Boot, run ``tree/run``, switch off; its exit status.

    :param results: descriptor that gets what the guest writes to the port
        named ``results``
    :param log: file that gets the console and the output of ``run``
    :raises Failure: the guest ended, or had to be ended, without a status
    """
    libraries = image / 'emulator/usr/lib/x86_64-linux-gnu'
    shared = image / 'emulator/usr/share'
    with _disks(image, tree) as disks, \
            tempfile.NamedTemporaryFile() as status, \
            open(log, 'ab') as output:
        command = [
            *_emulator(image, 'qemu-system-x86_64'),
            '-L', shared / 'qemu', '-L', shared / 'seabios',
            '-machine', 'q35', '-accel', 'tcg,thread=multi,tb-size=512',
            '-cpu', 'max', '-smp', machine.processors, '-m', machine.memory,
            '-nodefaults', '-no-user-config', '-display', 'none',
            '-no-reboot', '-kernel', image / 'vmlinuz',
            '-initrd', image / 'initrd.img',
            '-append', f'{_KERNEL} {machine.kernel}',
            '-serial', 'stdio', '-device', 'virtio-rng-pci',
            '-device', 'virtio-serial-pci',
        ]
        for number, (disk, form) in enumerate(
                zip(disks, ('qcow2', 'raw', 'raw'))):
            command += [
                '-drive', f'if=none,id=d{number},file={disk},format={form},'
                'cache=unsafe,discard=unmap',
                '-device', f'virtio-blk-pci,drive=d{number}']
        for name, path in (('results', f'/proc/self/fd/{results}'),
                           ('status', status.name)):
            command += [
                '-chardev', f'file,id={name},path={path}',
                '-device', f'virtserialport,chardev={name},name={name}']
        with subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, pass_fds=(results,),
                env={**os.environ,
                     'QEMU_MODULE_DIR': str(libraries / 'qemu')}) as emulator:
            try:
                emulator.wait(machine.timeout)
            except BaseException as error:
                emulator.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise plan.Failure(
                        f'the guest did not end within {machine.timeout} s')
                raise
        text = status.read().decode().strip()
    if not text:
        raise plan.Failure('the guest ended without an exit status '
                           f'(emulator: {emulator.returncode})')
    return int(text)


def available() -> str:
    """Why this machine cannot build and run the guest; empty if it can."""
    missing = [name for name in ('mmdebstrap', 'mke2fs')
               if shutil.which(name) is None]
    if missing:
        return f'needs {" and ".join(missing)}'
    return ''
