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


"""Container engines to be measured, each with state of its own.

Each runs the same image, without a network, with seccomp and the default
capabilities. Ours, podman and runc use a user namespace; docker does not,
which is in its favour: it would need entries in /etc/subuid.
"""

import abc
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import uuid

from oslo_config import cfg
from oslo_privsep import priv_context

from nova_container import conf
from nova_container.image import store
from nova_container.privileged import context
from nova_container.privileged import host
from nova_container.privileged import place
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import command
from nova_container.spec import container
from nova_container.spec import limits

CONF = cfg.CONF

# Ends on SIGTERM, also as process 1.
IDLE = ('/bin/sh', '-c', 'trap "exit 0" TERM; sleep 1000000 & wait')
_GRACE = 10
_ID_BASE = 1 << 30
_DOCKERD_PATIENCE = 60


def _run(*words: object, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(word) for word in words], text=True,
                          capture_output=True, stdin=subprocess.DEVNULL,
                          env=env)
    if done.returncode:
        raise RuntimeError(f'exit status {done.returncode} from {words}: '
                           f'{done.stderr.strip()}')
    return done.stdout.strip()


class Engine(abc.ABC):
    """A context manager: entered, the image is there."""

    name: str

    def __init__(self, archive: pathlib.Path):
        self._archive = archive
        self._undo = contextlib.ExitStack()
        self._work = ''

    def __enter__(self) -> 'Engine':
        with contextlib.ExitStack() as undo:
            self._work = undo.enter_context(tempfile.TemporaryDirectory(
                prefix=f'bench-{self.name}.', dir='/var/tmp'))
            self._open(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exc_info) -> None:
        self._undo.close()

    @abc.abstractmethod
    def _open(self, undo: contextlib.ExitStack) -> None:
        """Set up; ``undo`` gets what takes it down."""

    @abc.abstractmethod
    def start(self, args: tuple[str, ...] = IDLE) -> str:
        """Create and start a container; its id."""

    @abc.abstractmethod
    def remove(self, container_id: str) -> None:
        """Stop by the container's signal, and remove all of it."""

    def execute(self, container_id: str, *args: str) -> None:
        """Run a command in it to its end."""
        raise NotImplementedError


class Ours(Engine):
    """nova_container.runtime as nova-compute uses it: with a daemon."""

    name = 'nova-container'

    def _open(self, undo: contextlib.ExitStack) -> None:
        name = f'ncb-{uuid.uuid4().hex[:8]}'
        conf.register_opts(CONF)
        CONF([], project='nova_container_bench', default_config_files=[],
             default_config_dirs=[])
        for key, value in (('state_path', f'/var/lib/{name}'),
                           ('run_path', f'/run/{name}'),
                           ('cgroup_parent', name),
                           ('id_range_start', _ID_BASE)):
            CONF.set_override(key, value, 'container')
        context.start(priv_context.Method.FORK)
        undo.callback(context.stop)
        undo.callback(self._close)
        engine.setup(os.getuid(), os.getgid())
        images = store.ImageStore(CONF.container.state_path)
        undo.callback(images.close)
        with open(self._archive, 'rb') as file:
            self.image = images.ensure(
                'bench', lambda spool: shutil.copyfileobj(file, spool))

    @staticmethod
    def _close() -> None:
        for container_id in state.ids():
            engine.undefine(container_id)
        host.teardown()
        shutil.rmtree(CONF.container.state_path)

    def start(self, args: tuple[str, ...] = IDLE) -> str:
        container_id = str(uuid.uuid4())
        engine.define(container.ContainerSpec(
            id=container_id, hostname='bench',
            layers=tuple(str(layer) for layer in self.image.layers),
            limits=limits.Limits(pids=4096),
            process=container.Process(args)))
        engine.create(container_id)
        engine.start(container_id)
        return container_id

    def remove(self, container_id: str) -> None:
        engine.stop(container_id, _GRACE)
        engine.undefine(container_id)

    @staticmethod
    def discard(container_id: str) -> None:
        """Kill and remove it."""
        engine.undefine(container_id)

    def execute(self, container_id: str, *args: str) -> None:
        self.output(container_id, *args)

    def output(self, container_id: str, *args: str) -> bytes:
        """What a command writes that is run to its end."""
        done = engine.execute(container_id, command.Command(args), 600)
        if done.exit_code != 0:
            raise RuntimeError(f'{args}: exit code {done.exit_code}')
        return done.stdout


class Podman(Engine):
    """podman with the OCI runtime that ours uses."""

    name = 'podman'

    def _open(self, undo: contextlib.ExitStack) -> None:
        self._command = [
            'podman', '--root', f'{self._work}/root',
            '--runroot', f'{self._work}/run',
            '--tmpdir', f'{self._work}/tmp', '--cgroup-manager', 'cgroupfs',
            '--events-backend', 'none', '--runtime', 'runc']
        undo.callback(subprocess.run, ['umount', f'{self._work}/root/overlay'],
                      stderr=subprocess.DEVNULL)
        undo.callback(self._remove_all)
        loaded = _run(*self._command, 'load', '-i', self._archive)
        self._image = loaded.rpartition(': ')[2].split()[-1]

    def _remove_all(self) -> None:
        _run(*self._command, 'rm', '--all', '--force', '--time', 0)

    def start(self, args: tuple[str, ...] = IDLE) -> str:
        mapping = f'0:{_ID_BASE}:65536'
        return _run(*self._command, 'run', '--detach', '--network', 'none',
                    '--uidmap', mapping, '--gidmap', mapping,
                    '--ulimit', 'nofile=1024:20000',
                    '--ulimit', 'nproc=4096:4096', self._image, *args)

    def remove(self, container_id: str) -> None:
        try:
            _run(*self._command, 'rm', '--force', '--time', _GRACE,
                 container_id)
        except RuntimeError:
            # Its monitor's own cleanup gets in the way now and then.
            _run(*self._command, 'rm', '--force', '--ignore', container_id)

    def execute(self, container_id: str, *args: str) -> None:
        _run(*self._command, 'exec', container_id, *args)


def dockerd(undo: contextlib.ExitStack, work: str) -> list[str]:
    """Start one with a containerd of its own; how its client is called.

    :param work: an empty directory
    """
    program = shutil.which('docker', path='/usr/bin:/usr/sbin')
    if program is None or shutil.which('dockerd') is None:
        raise FileNotFoundError('docker.io is not installed')
    socket = f'unix://{work}/docker.sock'
    log = undo.enter_context(open(f'{work}/log', 'wb'))
    # dockerd binds it to itself where what is above is not shared, and does
    # not always undo that.
    undo.callback(subprocess.run, ['umount', f'{work}/data'],
                  stderr=subprocess.DEVNULL)
    daemon = subprocess.Popen(
        ['dockerd', '--host', socket, '--data-root', f'{work}/data',
         '--exec-root', f'{work}/exec', '--pidfile', f'{work}/pid',
         '--bridge', 'none', '--iptables=false', '--ip6tables=false',
         '--cgroup-parent', 'bench-docker'],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    undo.callback(daemon.wait)
    undo.callback(daemon.terminate)
    command = [program, '--host', socket]
    deadline = time.monotonic() + _DOCKERD_PATIENCE
    while True:
        try:
            _run(*command, 'version')
            return command
        except RuntimeError as error:
            if time.monotonic() > deadline or daemon.poll() is not None:
                words = pathlib.Path(work, 'log').read_text()
                raise RuntimeError(f'dockerd: {error}\n{words[-2000:]}')
            time.sleep(0.2)


class Docker(Engine):
    """dockerd with a containerd of its own."""

    name = 'docker'

    def _open(self, undo: contextlib.ExitStack) -> None:
        self._command = dockerd(undo, self._work)
        undo.callback(self._remove_all)
        loaded = _run(*self._command, 'load', '--input', self._archive)
        self._image = loaded.rpartition(': ')[2].split()[-1]

    def _remove_all(self) -> None:
        ids = _run(*self._command, 'ps', '--all', '--quiet').split()
        if ids:
            _run(*self._command, 'rm', '--force', *ids)

    def start(self, args: tuple[str, ...] = IDLE) -> str:
        return _run(*self._command, 'run', '--detach', '--network', 'none',
                    '--ulimit', 'nofile=1024:20000', self._image, *args)

    def remove(self, container_id: str) -> None:
        _run(*self._command, 'stop', '--time', _GRACE, container_id)
        _run(*self._command, 'rm', container_id)

    def execute(self, container_id: str, *args: str) -> None:
        _run(*self._command, 'exec', container_id, *args)


class Runc(Engine):
    """The bare OCI runtime on a root file system that is there already.

    With the configuration that ours writes.
    """

    name = 'runc'

    def __init__(self, archive: pathlib.Path, ours: Ours):
        super().__init__(archive)
        self._ours = ours

    def _open(self, undo: contextlib.ExitStack) -> None:
        example = self._ours.start()
        with open(place.container_run(example, 'config.json')) as file:
            self._config = json.load(file)
        _run('cp', '-a', place.state('layers', 'sha256', str(
            self._ours.image.layers[0]).partition(':')[2], 'fs'),
            f'{self._work}/rootfs')
        self._ours.remove(example)
        os.chmod(self._work, 0o755)
        first = self._config['linux']['uidMappings'][0]['hostID']
        for directory, names, files in os.walk(f'{self._work}/rootfs'):
            for name in (directory, *files, *names):
                os.chown(os.path.join(directory, name), first, first,
                         follow_symlinks=False)
        self._config['root']['path'] = f'{self._work}/rootfs'
        self._config['linux']['cgroupsPath'] = '/bench-runc'
        self._config['mounts'] = [
            mount for mount in self._config['mounts']
            if not mount['source'].startswith(CONF.container.run_path)]
        os.mkdir(f'{self._work}/bundle')
        self._command = ['runc', '--root', f'{self._work}/state']

    def start(self, args: tuple[str, ...] = IDLE) -> str:
        self._config['process']['args'] = list(args)
        with open(f'{self._work}/bundle/config.json', 'w') as file:
            json.dump(self._config, file)
        container_id = uuid.uuid4().hex
        subprocess.run(
            [*self._command, 'run', '--detach', '--bundle',
             f'{self._work}/bundle', container_id], check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        return container_id

    def remove(self, container_id: str) -> None:
        _run(*self._command, 'delete', '--force', container_id)

    def execute(self, container_id: str, *args: str) -> None:
        _run(*self._command, 'exec', container_id, *args)
