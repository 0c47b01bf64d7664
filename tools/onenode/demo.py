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

"""Demos: stacks of containers that show what the cloud can do."""

import collections.abc as cabc
import dataclasses
import functools
import pathlib
import typing as ty

from onenode import command
from onenode import credentials
from onenode import images
from onenode import plan
from onenode import progress
from onenode import rest
from onenode import sdk

_TEMPLATES = plan.REPOSITORY / 'heat_plugin/templates'


@dataclasses.dataclass(frozen=True)
class Demo:
    """A stack and the images that it is made of.

    :ivar has_volume: its data can be on a volume: parameter ``volume_size``
    :ivar answers: it has an output ``address``, where it answers
    """

    name: str
    template: str
    images: tuple[str, ...]
    has_volume: bool = False
    answers: bool = True


_BLOG = ('mariadb', 'wordpress')

# The image nginx is there since ``tools/cloud up``.
DEMOS = {demo.name: demo for demo in (
    Demo('wordpress', 'wordpress_mysql.yaml', _BLOG, has_volume=True),
    Demo('wordpress-compose', 'wordpress_mysql_compose.yaml', _BLOG),
    Demo('wordpress-log', 'wordpress_mysql_log.yaml', _BLOG),
    Demo('web-tier', 'web_tier.yaml', ('haproxy',)),
    Demo('auto-scaling', 'auto_scaling.yaml', (), answers=False),
    Demo('redis-worker', 'redis_worker.yaml', ('redis',), answers=False))}


class Run:
    """One run of ``tools/cloud demo``.

    :ivar outputs: of the stack, once there is one
    """

    def __init__(self, cloud: plan.Plan, demo: Demo,
                 report: progress.Reporter) -> None:
        self.cloud = cloud
        self.demo = demo
        self.report = report
        self.outputs: dict[str, ty.Any] = {}

    def run(self) -> bool:
        """Carry out all steps; whether the demo answers."""
        return progress.carry_out(list(self.steps()), self.report)

    def steps(self) -> cabc.Iterator[progress.Step]:
        layout = self.cloud.layout
        before: tuple[str, ...] = ()
        if self.demo.images:
            yield progress.Step('image tools', functools.partial(
                images.install_tools, layout.log_of('image-tools')))
            before = ('image tools',)
        for name in self.demo.images:
            # One after the other: they would wait for each other's disk.
            yield progress.Step(
                f'image {name}', functools.partial(
                    images.build, layout, name,
                    layout.log_of(f'image-{name}')), before)
            before = (f'image {name}',)
        yield progress.Step(
            f'stack {self.demo.name}', functools.partial(
                self._bring_up, layout.log_of(f'demo-{self.demo.name}')),
            before)
        if self.demo.answers:
            yield progress.Step('answers', self._wait_for_answer,
                                (f'stack {self.demo.name}',))

    def _bring_up(self, log: pathlib.Path) -> bool:
        layout = self.cloud.layout
        parameters: dict[str, ty.Any] = {}
        if self.cloud.volumes and self.demo.has_volume:
            parameters['volume_size'] = 1
        answer = sdk.call(layout, 'stack', {
            'demo': credentials.sdk(layout, 'demo'),
            'images': {name: {'path': str(images.archive(layout, name)),
                              'digest': images.fingerprint(name)}
                       for name in self.demo.images},
            'stack': self.demo.name,
            'template': str(_TEMPLATES / self.demo.template),
            'parameters': parameters}, log)
        self.outputs = answer['outputs']
        return True

    def _wait_for_answer(self) -> bool:
        address = self.outputs['address']
        command.wait_for(functools.partial(rest.answers, address),
                         f'{address} does not answer', 120)
        return True
