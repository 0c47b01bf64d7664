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

"""A runtime of the test's own on the real kernel."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import subprocess
import time
import unittest
import uuid

import fixtures
from oslo_config import cfg

from nova_container import conf
from nova_container.image import store
from nova_container.privileged import cgroup
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import host
from nova_container.privileged import place
from nova_container.privileged import process as processes
from nova_container.runtime import console
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import container
from nova_container.spec import disk
from nova_container.spec import limits
from tests import archives

CONF = cfg.CONF

_BUSYBOX = '/bin/busybox'
_TIMEOUT = 30

# Seconds after which a test is given up.
_TEST_TIMEOUT = int(os.environ.get('OS_TEST_TIMEOUT', 300))


def busybox_layer() -> bytes:
    """One layer: a static busybox and the files a base system has."""
    names = subprocess.run([_BUSYBOX, '--list'], check=True, text=True,
                           capture_output=True).stdout.split()
    return archives.tar(
        *(archives.directory(name) for name in
          ('bin', 'etc', 'root', 'srv', 'var', 'var/www')),
        archives.directory('tmp', mode=0o1777),
        archives.entry('bin/busybox', pathlib.Path(_BUSYBOX).read_bytes(),
                       mode=0o755),
        *(archives.symlink(f'bin/{name}', 'busybox') for name in names
          if name != 'busybox'),
        archives.entry('etc/passwd',
                       b'root:x:0:0:root:/root:/bin/sh\n'
                       b'web:x:33:34:web:/var/www:/bin/sh\n'),
        archives.entry('etc/group',
                       b'root:x:0:\nweb:x:34:\nextra:x:50:web\n'))


class RuntimeTestCase(unittest.TestCase):
    """Directories, control groups and ids of its own; nothing left after.

    One runtime serves a test class.
    """

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        name = f'nct-{uuid.uuid4().hex[:8]}'
        conf.register_opts(CONF)
        CONF([], project='nova_container_test', default_config_files=[],
             default_config_dirs=[])
        for key, value in (('state_path', f'/var/lib/{name}'),
                           ('run_path', f'/run/{name}'),
                           ('cgroup_parent', name),
                           ('id_range_start', 1 << 30)):
            CONF.set_override(key, value, 'container')
        context.set_client_mode(False)
        cls.enterClassContext(_restored_umask())
        engine.setup(os.getuid(), os.getgid())
        cls.addClassCleanup(cls._remove_runtime)
        cls.images = store.ImageStore(CONF.container.state_path)
        cls.addClassCleanup(cls.images.close)
        cls.image = cls.add_image(archives.docker_archive(busybox_layer()))

    def setUp(self):
        super().setUp()
        self.enterContext(fixtures.Timeout(_TEST_TIMEOUT, gentle=True))

    @classmethod
    def add_image(cls, archive: bytes) -> store.Image:
        """An image from an archive in memory."""
        return cls.images.ensure(str(uuid.uuid4()),
                                 lambda file: file.write(archive))

    @classmethod
    def _remove_runtime(cls):
        for container_id in state.ids():
            engine.undefine(container_id)
        host.teardown()
        shutil.rmtree(CONF.container.state_path)
        left = leftovers(CONF.container.cgroup_parent)
        if left:
            raise AssertionError(f'left behind: {left}')

    def define(self, *args: str, image: store.Image | None = None,
               limit: limits.Limits = limits.Limits(),
               size: disk.Disk = disk.Disk(), **process) -> str:
        """Define a container that runs ``args``; its id."""
        container_id = str(uuid.uuid4())
        layers = tuple(str(layer) for layer in (image or self.image).layers)
        self.defined = container.ContainerSpec(
            id=container_id, hostname='test', layers=layers, limits=limit,
            disk=size, process=container.Process(args, **process))
        engine.define(self.defined)
        self.addCleanup(engine.undefine, container_id)
        return container_id

    def run_container(self, *args: str, **options) -> str:
        """Define, create and start a container; its id."""
        container_id = self.define(*args, **options)
        engine.create(container_id)
        engine.start(container_id)
        return container_id

    @staticmethod
    def redefine(container_id: str, **fields) -> None:
        """Give a container that does not run other fields of its spec."""
        engine.define(dataclasses.replace(definition.load(container_id),
                                          **fields))

    def finish(self, container_id: str) -> state.State:
        """Wait for the container to end by itself; its last state."""
        current = state.read(container_id)
        if current.process is not None:
            self.assertTrue(processes.wait(current.process, _TIMEOUT),
                            f'{container_id} did not end')
        if current.monitor is not None:
            processes.wait(current.monitor, _TIMEOUT)
        return state.read(container_id)

    def output(self, *args: str, **options) -> str:
        """What a container wrote that ran ``args`` to its end."""
        container_id = self.run_container(*args, **options)
        self.finish(container_id)
        return self.text(container_id)

    def shell(self, script: str, **options) -> str:
        """What a shell script wrote in a container."""
        return self.output('/bin/sh', '-c', script, **options)

    def await_text(self, container_id: str, word: str) -> None:
        """Wait until the container has written a word."""
        deadline = time.monotonic() + _TIMEOUT
        while word not in (text := self.text(container_id)):
            self.assertLess(time.monotonic(), deadline, text)
            time.sleep(0.02)

    @staticmethod
    def text(container_id: str) -> str:
        return console.text(container_id, 1 << 20).decode()

    @staticmethod
    def upper(container_id: str, *parts: str) -> str:
        """A path in the writable layer."""
        return place.container_state(container_id, 'upper', *parts)


@contextlib.contextmanager
def _restored_umask():
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def backing_files(name: str) -> list[str]:
    """Files on loop devices that carry ``name``, deleted ones too."""
    found = []
    for path in pathlib.Path('/sys/block').glob('loop*/loop/backing_file'):
        # A device may be taken down meanwhile.
        with contextlib.suppress(OSError):
            if name in (file := path.read_text().strip()):
                found.append(file)
    return found


def leftovers(name: str) -> list[str]:
    """Mounts, control groups, processes and directories that carry ``name``.
    """
    found = [line for line in open('/proc/self/mountinfo') if name in line]
    groups = {f'/{name}'}
    if name == CONF.container.cgroup_parent:
        # systemd's name for it is another one.
        groups.add(place.cgroup())
    found += [root + path for root in cgroup.hierarchies()
              for path in sorted(groups) if os.path.exists(root + path)]
    found += backing_files(name)
    for pid in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError):
            line = pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()
            if name.encode() in line:
                found.append(line.decode(errors='replace'))
    found += [path for path in (f'/run/{name}', f'/var/lib/{name}')
              if os.path.exists(path)]
    return found
