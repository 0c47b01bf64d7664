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

"""Taking the cloud down, so that nothing of it is left."""

import json
import os
import pathlib
import shutil
import signal
import typing as ty

from onenode import block_storage
from onenode import command
from onenode import compute_user
from onenode import network
from onenode import node as compute_node
from onenode import packages
from onenode import plan
from onenode import progress
from onenode import services
from onenode import supervisor

OURS = '.nova-container-cloud'


class Down:
    """One run of ``tools/cloud down``."""

    def __init__(self, cloud: plan.Plan, report: progress.Reporter) -> None:
        self.cloud = cloud
        self.layout = cloud.layout
        self.report = report
        self.supervisor = supervisor.Client(cloud.layout)
        # More than the plan's, for an earlier run may have had more.
        self.nodes = tuple(plan.Node(index, self.layout)
                           for index in range(1, plan.MAX_NODES + 1))

    def run(self, purge: bool) -> bool:
        """Take everything down; whether that succeeded."""
        log = self.layout.log_of('down')
        made = not self.layout.root.exists()
        log.parent.mkdir(parents=True, exist_ok=True)
        work = [('stop OpenStack services', self.stop_services),
                ('end containers', lambda: self.end_containers(log, purge)),
                ('detach loop devices', self.detach_loops),
                ('stop databases and Open vSwitch', self.stop_supervisor),
                ('end stray processes', self.end_processes),
                ('remove nodes', self.remove_nodes),
                ('remove links', network.remove_links),
                ('remove control groups', self.remove_cgroups),
                ('restore policy-rc.d', packages.restore_policy)]
        if purge:
            work.append(('purge', lambda: self.purge(log)))
        steps, needs = [], ()
        for name, action in work:
            steps.append(progress.Step(name, action, needs))
            needs = (name,)
        done = progress.carry_out(steps, self.report)
        if made and done:
            # Where there was no cloud, nothing shall be in the way of one.
            shutil.rmtree(self.layout.root, ignore_errors=True)
        return done

    def stop_services(self) -> bool:
        client = self.supervisor
        if not client.is_running():
            return False
        client.stop([p['name'] for p in client.programs()
                     if not services.is_infrastructure(p['name'])])
        return True

    def end_containers(self, log: pathlib.Path, purge: bool) -> bool:
        """End the containers; their disks stay unless this is a purge."""
        python = self.layout.bin / 'python'
        if not (python.exists() and command.succeeds(
                [python, '-c', 'import nova_container.cli'])):
            return False
        verb = 'destroy-all' if purge else 'halt-all'
        for node in self.nodes:
            if not node.config.exists():
                continue
            enter = node.enter() if compute_node.exists(node) else ()
            command.run([*enter, python, '-m', 'nova_container.cli', verb,
                         '--config-file', node.config], log=log)
        return True

    def stop_supervisor(self) -> bool:
        client = self.supervisor
        if not client.is_running():
            return False
        client.stop([p['name'] for p in client.programs()])
        client.shutdown()
        return True

    def end_processes(self) -> None:
        supervisor.end_strays(self.layout)
        namespaces = {os.stat(node.netns).st_ino for node in self.nodes
                      if compute_node.exists(node)}
        for directory in pathlib.Path('/proc').glob('[0-9]*'):
            try:
                if os.stat(directory / 'ns/net').st_ino in namespaces:
                    os.kill(int(directory.name), signal.SIGKILL)
            except OSError:
                continue

    def remove_nodes(self) -> None:
        for node in reversed(self.nodes):
            compute_node.remove(node, self.nodes[0])
        compute_node.remove_shared_mount(self.layout)
        block_storage.remove_links(self.layout)
        compute_node.unmount_below(self.layout.run)
        compute_node.unmount_below(self.layout.data)
        shutil.rmtree(self.layout.run, ignore_errors=True)

    def remove_cgroups(self) -> bool:
        removed = False
        text = pathlib.Path('/proc/self/mountinfo').read_text()
        for line in text.splitlines():
            words = line.split()
            if words[words.index('-') + 1] not in ('cgroup', 'cgroup2'):
                continue
            for node in self.nodes:
                top = pathlib.Path(words[4]) / node.cgroup_parent
                for directory, _, _ in os.walk(top, topdown=False):
                    os.rmdir(directory)
                    removed = True
        return removed

    def detach_loops(self) -> bool:
        found = command.output(['losetup', '--list', '--json', '--output',
                                'NAME,BACK-FILE,BACK-INO'])
        devices: list[dict[str, ty.Any]] = (
            json.loads(found)['loopdevices'] if found.strip() else [])
        ours = [device['name'] for device in devices if self._is_ours(device)]
        for name in ours:
            command.output(['losetup', '--detach', name])
        return bool(ours)

    def _is_ours(self, device: dict[str, ty.Any]) -> bool:
        """Whether the file is below our directories, also to the kernel.

        A file of that name in another mount namespace is another's.
        """
        path = pathlib.Path(device['back-file'] or '/')
        if not any(path.is_relative_to(top)
                   for top in (self.layout.root, self.layout.run)):
            return False
        try:
            return path.stat().st_ino == int(device['back-ino'])
        except OSError:
            return False

    def purge(self, log: pathlib.Path) -> None:
        """Remove every file of the cloud. Debian packages stay."""
        compute_user.remove(self.layout, log)
        shutil.rmtree(self.layout.etc, ignore_errors=True)
        if (self.layout.root / OURS).exists():
            shutil.rmtree(self.layout.root)
