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

"""What runs in a container: the image's config under the tenant's wishes.

Nothing here needs Nova: the host's own command makes containers of it, too.
"""

import dataclasses

from nova_container.compute import wishes
from nova_container import exception
from nova_container.image import store
from nova_container.oci import image_config
from nova_container.spec import container
from nova_container.spec import health

# An image with this property set to ``machine`` boots its own init.
_KIND = 'image_container_type'

# What podman, too, takes for systemd (podman-run(1), --systemd).
_INITS = frozenset(('/sbin/init', '/usr/sbin/init', '/usr/local/sbin/init',
                    '/usr/lib/systemd/systemd', '/lib/systemd/systemd',
                    'systemd'))

# systemd(1): the signal on which a container's init powers off.
_MACHINE_STOP = 'SIGRTMIN+3'


def _init(config: image_config.ImageConfig) -> tuple[str, ...] | None:
    """The image's command, if it is that of an init."""
    command = config.entrypoint + config.cmd
    return command if command and command[0] in _INITS else None


def kind(system_metadata: dict[str, str],
         config: image_config.ImageConfig) -> str:
    """The kind of container that the image is for.

    Nova keeps all of an image's properties in system metadata, but knows only
    its own in ``image_meta``. Without the property, an image whose command is
    an init is a machine.

    :raises InvalidSpec: there is no such kind
    """
    found = (container.MACHINE if _init(config) is not None
             else container.APPLICATION)
    value = system_metadata.get(_KIND, found).lower()
    if value not in (container.APPLICATION, container.MACHINE):
        raise exception.InvalidSpec(
            f'image property container_type={value!r} is neither '
            f'{container.APPLICATION} nor {container.MACHINE}')
    return value


def process(metadata: dict[str, str], image: store.Image,
            kind: str = container.APPLICATION) -> container.Process:
    """What runs: the image's config under the tenant's wishes.

    A machine runs the init that is the image's command, else ``/sbin/init``,
    as root, on a terminal, whatever the config says about them.

    :raises UserError: a wish is wrong, or there is no command at all
    """
    said = wishes.parse(metadata)
    config = image.config
    entrypoint, command, user = config.entrypoint, config.cmd, config.user
    machine = kind == container.MACHINE
    if machine:
        entrypoint, user = (), ''
        command = _init(config) or ('/sbin/init',)
    if said.entrypoint is not None:
        args = said.entrypoint + (said.command or ())
    else:
        args = entrypoint + (command if said.command is None
                             else said.command)
    env = dict(item.split('=', 1) for item in config.env)
    if machine:
        # By this cloud-init knows where it is (DataSourceOpenStack).
        env['product_name'] = 'OpenStack Nova'
    env.update(said.env)

    def either(wish: str | None, own: str) -> str:
        return own if wish is None else wish

    return container.Process(
        args=args,
        env=tuple(env.items()),
        cwd=either(said.workdir, config.working_dir) or '/',
        user=either(said.user, user),
        stop_signal=(either(said.stop_signal, config.stop_signal)
                     or (_MACHINE_STOP if machine else 'SIGTERM')),
        stop_timeout=said.stop_timeout,
        terminal=machine if said.tty is None else said.tty)


_SECOND = 10 ** 9


def healthcheck(image: store.Image,
                said: wishes.Wishes) -> health.Healthcheck | None:
    """The image's own health check under the tenant's wishes; None for none.

    Times of the image beyond what the host offers become the nearest one;
    those of the tenant are refused.

    :raises ImageInvalid: the image's command is of an unknown form
    :raises InvalidSpec: a wish has a wrong value, or there is no command
    """
    check = _own_healthcheck(image)
    if said.health_cmd is not None:
        check = dataclasses.replace(
            check or health.Healthcheck(said.health_cmd),
            test=said.health_cmd) if said.health_cmd else None
    wanted = {name: value for name in
              ('interval', 'timeout', 'start_period', 'start_interval',
               'retries')
              if (value := getattr(said, f'health_{name}')) is not None}
    if check is None and wanted:
        raise exception.InvalidSpec(
            f'container:health_{min(wanted)}: there is no health check; set '
            'container:health_cmd, too')
    return check and dataclasses.replace(check, **wanted)


def _own_healthcheck(image: store.Image) -> health.Healthcheck | None:
    check = image.config.healthcheck
    if check is None or check.test[0] == 'NONE':
        return None
    word, *rest = check.test
    test: tuple[str, ...]
    if word == 'CMD-SHELL' and len(rest) == 1:
        test = ('/bin/sh', '-c', rest[0])
    elif word == 'CMD' and rest:
        test = tuple(rest)
    else:
        raise exception.ImageInvalid(
            f'the image\'s health check {check.test!r} is neither CMD with '
            'arguments nor CMD-SHELL with one')

    def seconds(value: int, default: float, low: float, high: float) -> float:
        return min(max(value / _SECOND if value else default, low), high)

    default = health.Healthcheck(test)
    within = health.INTERVAL_MIN, health.INTERVAL_MAX
    return health.Healthcheck(
        test=test,
        interval=seconds(check.interval, default.interval, *within),
        timeout=seconds(check.timeout, default.timeout, 0.001,
                        health.TIMEOUT_MAX),
        start_period=seconds(check.start_period, default.start_period, 0.0,
                             health.INTERVAL_MAX),
        start_interval=seconds(check.start_interval, default.start_interval,
                               *within),
        retries=check.retries or default.retries)
