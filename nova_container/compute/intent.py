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

"""A Nova instance, its flavor and its image as a ContainerSpec."""

import dataclasses

from nova_container.compute import config_drive
from nova_container.compute import flavor
from nova_container.compute import numa
from nova_container.compute import port
from nova_container.compute import wishes
from nova_container import exception
from nova_container.image import store
from nova_container.oci import image_config
from nova_container.spec import container
from nova_container.spec import file
from nova_container.spec import health
from nova_container.spec import restart
from nova_container.spec import volume

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


def build(instance, image: store.Image, network_info, pids_limit: int,
          volumes: tuple[volume.Attachment, ...] = (),
          drive: tuple[file.File, ...] | None = None,
          metadata: dict[str, str] | None = None,
          image_kind: str | None = None) -> container.ContainerSpec:
    """Everything about the container but its interfaces.

    :param instance: nova.objects.Instance
    :param network_info: nova.network.model.NetworkInfo
    :param pids_limit: where the flavor has none
    :param drive: the config drive, where it is more than Nova has on record
    :param metadata: the tenant's words, if not the instance's
    :param image_kind: of another image than the instance's own
    :raises UserError: what the tenant asked for makes no sense
    """
    words = wishes.said(instance) if metadata is None else metadata
    said = wishes.parse(words)
    kind_ = image_kind or kind(instance.system_metadata, image.config)
    specs = instance.flavor.extra_specs

    def granted(key: str) -> bool:
        return wishes.boolean(f'flavor extra spec {key}',
                              specs.get(key, 'false'))

    return container.ContainerSpec(
        id=instance.uuid,
        hostname=instance.hostname or f'container-{instance.uuid}',
        process=process(words, image, kind_),
        layers=tuple(str(layer) for layer in image.layers),
        limits=flavor.resources(instance.flavor, pids_limit,
                                numa.place(instance)),
        disk=flavor.disks(instance.flavor),
        dns=port.name_servers(network_info),
        addresses=tuple(ip['address'] for vif in network_info
                        for ip in vif.fixed_ips()),
        kind=kind_,
        init=bool(said.init),
        privileged=granted('container:privileged'),
        nesting=granted('container:nesting'),
        restart=said.restart or restart.RestartPolicy(),
        health=healthcheck(image, said),
        config_drive=(config_drive.files(instance, network_info)
                      if drive is None else drive),
        # In a machine this is cloud-init's business.
        authorized_keys='' if kind_ == container.MACHINE
        else instance.key_data or '',
        volumes=volumes)


def rescue(instance, image: store.Image, network_info, pids_limit: int,
           volumes: tuple[volume.Attachment, ...], properties: dict[str, str],
           own: bool) -> container.ContainerSpec:
    """The system that a server is rescued with.

    It runs what its image says, whatever the server's metadata says: a wrong
    word there may be what it is rescued from. The server's own image, which
    Nova takes where none is named, runs a shell on the console instead of the
    service that it is made for, unless it is a machine.

    :param properties: the image's
    :param own: it is the server's own image
    """
    kind_ = kind({f'image_{name}': value
                  for name, value in properties.items()}, image.config)
    said = {}
    if own and kind_ == container.APPLICATION:
        said = {'container:entrypoint': '/bin/sh', 'container:tty': 'true',
                'container:user': 'root'}
    return dataclasses.replace(
        build(instance, image, network_info, pids_limit, volumes,
              metadata=said, image_kind=kind_),
        privileged=False, nesting=False, health=None)
