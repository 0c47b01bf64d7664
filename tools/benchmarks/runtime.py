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


"""The figures of the local container runtime."""

import collections.abc as cabc
import contextlib
import os
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

import psutil

from benchmarks import engines
from benchmarks import figure
from nova_container.privileged import linux
from nova_container.privileged import place
from nova_container.runtime import state
from tests import archives
from tests.functional import base

_DENSITY = 1000
_EDGE = 50
_ONE_PROCESS = ('/bin/sleep', '1000000')
_BUSYBOX = '/bin/busybox'

_CLOCK = 'set -- $(cat /proc/uptime); echo 0m${1}s 0m0s'

# What a static busybox can do that takes about a second: target and script,
# and how it is timed. Processor time where that is what is asked for: the
# rest of the machine has no part in it, and a container's processes share
# one weight in the competition for processors, outside each has its own.
_WORK = {
    'CPU work': (1.02, 'dd if=/dev/zero bs=1M count=400 2>/dev/null '
                 '| sha512sum >/dev/null; times'),
    'memory work': (1.02, 'dd if=/dev/zero of=/dev/null bs=32M count=300 '
                    '2>/dev/null; times'),
    'disk work': (1.05, f'{_CLOCK}; dd if=/dev/zero of=./bench bs=1M '
                  f'count=256 conv=fsync 2>/dev/null; {_CLOCK}; rm ./bench'),
}


class Bench:
    """The engines, opened when a figure first needs them."""

    def __init__(self, undo: contextlib.ExitStack, count: int):
        self.count = count
        self._undo = undo
        self._archive = pathlib.Path(undo.enter_context(
            tempfile.TemporaryDirectory()), 'image.tar')
        self._archive.write_bytes(
            archives.docker_archive(base.busybox_layer()))
        self._opened: dict[type, engines.Engine] = {}
        # Our daemon is apart by now. The other engines get a mount namespace
        # of their own: mount namespaces that other programs make meanwhile
        # would hold copies of their mounts, which then cannot be removed.
        self.get(engines.Ours)
        linux.unshare(linux.CLONE_FS | linux.CLONE_NEWNS)
        linux.mount('none', '/', flags=linux.MS_REC | linux.MS_PRIVATE)

    def get(self, kind: type[engines.Engine]) -> engines.Engine:
        """The engine of that kind."""
        if kind not in self._opened:
            extra = [self.ours] if kind is engines.Runc else []
            self._opened[kind] = self._undo.enter_context(
                kind(self._archive, *extra))
        return self._opened[kind]

    @property
    def ours(self) -> engines.Ours:
        return self.get(engines.Ours)


def _start(bench: Bench) -> cabc.Iterator[figure.Row]:
    def measure(engine: engines.Engine) -> cabc.Callable[[], float]:
        def once() -> float:
            made: list[str] = []
            took = figure.timed(lambda: made.append(engine.start()))
            engine.remove(made[0])
            return took
        return once

    ours = bench.ours
    others = [bench.get(kind) for kind in
              (engines.Podman, engines.Docker, engines.Runc)]
    medians = figure.alternately(
        bench.count, {each.name: measure(each) for each in (ours, *others)})
    yield from figure.compared(
        'create and start', 'ms', medians, ours.name,
        {'podman': 0.5, 'docker': 0.3, 'runc': 1.6})


def _remove(bench: Bench) -> cabc.Iterator[figure.Row]:
    def measure(engine: engines.Engine) -> cabc.Callable[[], float]:
        def once() -> float:
            container_id = engine.start()
            # The shell must have set its trap.
            engine.execute(container_id, '/bin/true')
            return figure.timed(lambda: engine.remove(container_id))
        return once

    others = [bench.get(kind) for kind in (engines.Podman, engines.Docker)]
    medians = figure.alternately(
        bench.count,
        {each.name: measure(each) for each in (bench.ours, *others)})
    yield from figure.compared('stop and delete', 'ms', medians,
                               bench.ours.name,
                               {'podman': 0.5, 'docker': None})


def _execute(bench: Bench) -> cabc.Iterator[figure.Row]:
    with contextlib.ExitStack() as undo:
        measures = {}
        for kind in (engines.Ours, engines.Podman, engines.Docker,
                     engines.Runc):
            engine = bench.get(kind)
            container_id = engine.start()
            undo.callback(engine.remove, container_id)
            measures[engine.name] = (
                lambda engine=engine, container_id=container_id:
                figure.timed(lambda: engine.execute(container_id,
                                                    '/bin/true')))
        medians = figure.alternately(bench.count, measures)
    yield from figure.compared('exec /bin/true', 'ms', medians,
                               bench.ours.name, {'podman': 0.5,
                                                 'docker': None,
                                                 'runc': None})


def _work(bench: Bench) -> cabc.Iterator[figure.Row]:
    """The same program inside and outside, timed by itself alone."""
    container_id = bench.ours.start()
    with tempfile.TemporaryDirectory(dir='/var/lib') as outside, \
            contextlib.ExitStack() as undo:
        undo.callback(bench.ours.remove, container_id)
        for title, (target, script) in _WORK.items():
            def inside(script: str = script) -> float:
                return _difference(bench.ours.output(
                    container_id, '/bin/sh', '-c', f'cd /srv; {script}'))

            def host(script: str = script) -> float:
                return _difference(subprocess.run(
                    [_BUSYBOX, 'sh', '-c', script], cwd=outside, check=True,
                    capture_output=True).stdout)

            medians = figure.alternately(
                bench.count, {'inside': inside, 'outside': host})
            yield from figure.compared(title, 'ms', medians, 'inside',
                                       {'outside': target})


def _difference(text: bytes) -> float:
    """Milliseconds between two lines of two times each, as ``times`` has."""
    numbers = [60 * int(minutes) + float(seconds) for minutes, seconds in
               re.findall(r'(\d+)m([\d.]+)s', text.decode())]
    return (sum(numbers[2:]) - sum(numbers[:2])) * 1000


def _density(bench: Bench) -> cabc.Iterator[figure.Row]:
    ours = bench.ours
    before = psutil.virtual_memory().available
    took: list[float] = []
    ids: list[str] = []
    try:
        for _ in range(_DENSITY):
            took.append(figure.timed(
                lambda: ids.append(ours.start(_ONE_PROCESS))))
        used = (before - psutil.virtual_memory().available) / _DENSITY
        running = sum(state.read(each).status is state.Status.RUNNING
                      for each in ids)
        yield figure.Row('containers that run', running, 'containers')
        first = statistics.median(took[:_EDGE])
        last = statistics.median(took[-_EDGE:])
        yield figure.Row(f'start of the last {_EDGE} of {_DENSITY}',
                         round(last, 1), 'ms',
                         f'the first {_EDGE} {first:.1f}',
                         round(last / first, 3), 1.3)
        yield figure.Row('memory per idle container',
                         round(used / 1048576, 2), 'MiB', target=1.5)
        listing = statistics.median(
            figure.timed(lambda: [state.read(each) for each in state.ids()])
            for _ in range(5))
        yield figure.Row(f'states of {_DENSITY} containers',
                         round(listing, 1), 'ms', target=50)
        yield figure.Row('processor time of our processes, idle',
                         round(_idle_cpu(), 2), '% of a core', target=1)
    finally:
        for container_id in ids:
            ours.discard(container_id)


def _idle_cpu() -> float:
    """Of this process, its daemon and our monitors, over some seconds."""
    mine = [psutil.Process()]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = ' '.join(process.cmdline())
            if process.ppid() == os.getpid() and 'dockerd' not in words or \
                    process.name() == 'conmon' and place.run() in words:
                mine.append(process)

    def total() -> float:
        spent = 0.0
        for process in mine:
            with contextlib.suppress(psutil.Error):
                spent += sum(process.cpu_times()[:2])
        return spent

    span = 20.0
    before = total()
    time.sleep(span)
    return 100 * (total() - before) / span


FIGURES: dict[str, cabc.Callable[[Bench], cabc.Iterator[figure.Row]]] = {
    'start': _start,
    'remove': _remove,
    'exec': _execute,
    'work': _work,
    'density': _density,
}
# Takes minutes, and most of the memory of a small machine.
DEFAULT = ('start', 'remove', 'exec', 'work')


def run(count: int, names: cabc.Sequence[str]) -> cabc.Iterator[figure.Row]:
    """The rows of some figures, as they come."""
    with contextlib.ExitStack() as undo:
        bench = Bench(undo, count)
        for name in names or DEFAULT:
            yield from FIGURES[name](bench)
