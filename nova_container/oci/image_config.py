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

"""The configuration of an image: what runs, and from which layers.

OCI image specification, "Image Configuration" (config.md), and the fields
that Docker adds to it (Healthcheck).
"""

from collections.abc import Sequence
import dataclasses
import json
import re
from typing import Self

from nova_container import exception
from nova_container.oci import digest
from nova_container.oci import document
from nova_container.oci import platform

_SIGNAL = re.compile(r'^(\d{1,2}|(SIG)?(RTMIN|RTMAX|[A-Z0-9]{2,10})'
                     r'([+-]\d{1,2})?)\Z')
_PORT = re.compile(r'^\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?\Z')

# Overlay file systems take 500 layers; Docker stops at 127.
LAYERS_MAX = 500


@dataclasses.dataclass(frozen=True)
class Healthcheck:
    """A command that tells whether the container does its work.

    :param test: ``NONE``; or ``CMD`` and arguments; or ``CMD-SHELL`` and a
        command line
    :param interval: nanoseconds, as are all times; 0 means the default
    """

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """The image's own wishes; whoever boots it may override them.

    :param platform: what the image was built for
    :param entrypoint: first part of the command line
    :param cmd: second part: default arguments, or the whole command
    :param env: ``NAME=value`` strings, in order
    :param user: ``user[:group]``, names or numbers; empty is root
    :param working_dir: where the process starts; empty is ``/``
    :param stop_signal: name or number; empty is SIGTERM
    :param exposed_ports: ``80/tcp``; a hint only
    :param volumes: directories meant to be mounts
    :param labels: pairs of name and value
    :param diff_ids: layers, the lowest first, as the image lists them
    """

    platform: platform.Platform
    diff_ids: tuple[digest.Digest, ...]
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ''
    working_dir: str = ''
    stop_signal: str = ''
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def os(self) -> str:
        return self.platform.os

    @property
    def architecture(self) -> str:
        return self.platform.architecture

    @property
    def variant(self) -> str:
        return self.platform.variant

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a config blob.

        :raises ImageInvalid: malformed, or a field of the wrong type
        """
        top = document.Document.parse(data, 'image config')
        rootfs = top.document('rootfs')
        if rootfs.string('type') != 'layers':
            rootfs.fail('type', f'is {rootfs.string("type")[:100]!r}, not '
                        "'layers'")
        diff_ids = tuple(digest.Digest(item)
                         for item in rootfs.strings('diff_ids') or ())
        if not 1 <= len(diff_ids) <= LAYERS_MAX:
            rootfs.fail('diff_ids', f'lists {len(diff_ids)} layers, which is '
                        f'not in 1..{LAYERS_MAX}')

        config = top.document('config')
        for index, item in enumerate(config.strings('Env') or ()):
            if item.find('=') < 1:
                config.fail(f'Env[{index}]', 'is not NAME=value')
        if not _SIGNAL.match(config.string('StopSignal', '15')):
            config.fail('StopSignal', 'is not a signal')
        for port in config.keys('ExposedPorts'):
            if not _PORT.match(port):
                config.fail('ExposedPorts', f'has {port[:100]!r}, which is '
                            'not PORT/PROTOCOL')
        return cls(
            platform=platform.Platform(top.string('os'),
                                       top.string('architecture'),
                                       top.string('variant')),
            diff_ids=diff_ids,
            entrypoint=config.strings('Entrypoint') or (),
            cmd=config.strings('Cmd') or (),
            env=config.strings('Env') or (),
            user=config.string('User'),
            working_dir=config.string('WorkingDir'),
            stop_signal=config.string('StopSignal'),
            exposed_ports=config.keys('ExposedPorts'),
            volumes=config.keys('Volumes'),
            healthcheck=_healthcheck(config.document('Healthcheck')),
            labels=tuple(config.table('Labels').items()))


# Of one container or one build, which the new image is not (Docker).
_OF_BUILD = ('id', 'parent', 'container', 'container_config')


def committed(raw: bytes, diff_ids: Sequence[digest.Digest], created: str,
              created_by: str, comment: str) -> bytes:
    """The config of an image that has one more layer.

    :param raw: config of the image below
    :param diff_ids: all layers, the lowest first
    :param created: when, RFC 3339
    :raises ImageInvalid: too many layers
    """
    if len(diff_ids) > LAYERS_MAX:
        raise exception.ImageInvalid(
            f'the image would have {len(diff_ids)} layers, more than '
            f'{LAYERS_MAX}; build it anew with fewer')
    config = document.parse(raw, 'image config')
    history = config.get('history') or []
    below = [step for step in history if not step.get('empty_layer')]
    if len(below) != len(diff_ids) - 1:
        # Tools want one for each layer, or none.
        history = [{'comment': 'unknown'} for _ in diff_ids[:-1]]
    for key in _OF_BUILD:
        config.pop(key, None)
    return json.dumps({
        **config, 'created': created,
        'rootfs': {'type': 'layers', 'diff_ids': list(diff_ids)},
        'history': [*history, {'created': created, 'created_by': created_by,
                               'comment': comment}],
    }, separators=(',', ':')).encode()


def _healthcheck(check: document.Document) -> Healthcheck | None:
    test = check.strings('Test')
    if not test:
        return None
    return Healthcheck(test=test,
                       interval=check.integer('Interval'),
                       timeout=check.integer('Timeout'),
                       start_period=check.integer('StartPeriod'),
                       start_interval=check.integer('StartInterval'),
                       retries=check.integer('Retries', high=1 << 31))
