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
import re
import unicodedata

from nova_container.compute import config_drive
from nova_container.compute import flavor
from nova_container.compute import numa
from nova_container.compute import port
from nova_container.compute import process
from nova_container.compute import volumes as volumes_
from nova_container.compute import wishes
from nova_container.image import store
from nova_container.spec import container
from nova_container.spec import file
from nova_container.spec import restart

_NO_VOLUMES = volumes_.Connected()

# Bytes of a host name (sethostname(2), HOST_NAME_MAX).
_HOSTNAME_MAX = 64


def _hostname(instance) -> str:
    """Nova's, as far as the kernel and /etc/hosts take it.

    Nova has letters of Latin 1 and, where the user has said a domain, more
    than the kernel takes; of that the first label is left, as of systemd.
    """
    letters = unicodedata.normalize('NFKD', instance.hostname or '')
    name = re.sub('[^A-Za-z0-9.-]', '-', letters.encode(
        'ascii', 'ignore').decode()).strip('.-')
    if len(name) > _HOSTNAME_MAX:
        name, _, _ = name.partition('.')
    return (name[:_HOSTNAME_MAX].strip('.-')
            or f'container-{instance.uuid}')


def build(instance, image: store.Image, network_info, pids_limit: int,
          volumes: volumes_.Connected = _NO_VOLUMES,
          drive: tuple[file.File, ...] | None = None,
          metadata: dict[str, str] | None = None,
          image_kind: str | None = None,
          injected: tuple[file.File, ...] = ()) -> container.ContainerSpec:
    """Everything about the container but its interfaces.

    :param instance: nova.objects.Instance
    :param network_info: nova.network.model.NetworkInfo
    :param pids_limit: where the flavor has none
    :param drive: the config drive, where it is more than Nova has on record
    :param metadata: the tenant's words, if not the instance's
    :param image_kind: of another image than the instance's own
    :param injected: files for the root file system
    :raises UserError: what the tenant asked for makes no sense
    """
    words = wishes.said(instance) if metadata is None else metadata
    said = wishes.parse(words)
    kind_ = image_kind or process.kind(instance.system_metadata, image.config)
    specs = instance.flavor.extra_specs

    def granted(key: str) -> bool:
        return wishes.boolean(f'flavor extra spec {key}',
                              specs.get(key, 'false'))

    return container.ContainerSpec(
        id=instance.uuid,
        hostname=_hostname(instance),
        process=process.process(words, image, kind_),
        layers=tuple(str(layer) for layer in image.layers),
        limits=flavor.resources(instance.flavor, pids_limit,
                                numa.place(instance)),
        disk=flavor.disks(instance.flavor,
                          volumes.boot.disk if volumes.boot else None),
        dns=port.name_servers(network_info),
        addresses=tuple(ip['address'] for vif in network_info
                        for ip in vif.fixed_ips()),
        kind=kind_,
        init=bool(said.init),
        privileged=granted('container:privileged'),
        nesting=granted('container:nesting'),
        restart=said.restart or restart.RestartPolicy(),
        health=process.healthcheck(image, said),
        config_drive=(config_drive.files(instance, network_info)
                      if drive is None else drive),
        # In a machine this is cloud-init's business.
        authorized_keys='' if kind_ == container.MACHINE
        else instance.key_data or '',
        injected=injected,
        volumes=volumes.attachments)


def rescue(instance, image: store.Image, network_info, pids_limit: int,
           volumes: volumes_.Connected, properties: dict[str, str],
           own: bool) -> container.ContainerSpec:
    """The system that a server is rescued with.

    It runs what its image says, whatever the server's metadata says: a wrong
    word there may be what it is rescued from. The server's own image, which
    Nova takes where none is named, runs a shell on the console instead of the
    service that it is made for, unless it is a machine.

    :param properties: the image's
    :param own: it is the server's own image
    """
    kind_ = process.kind({f'image_{name}': value
                          for name, value in properties.items()},
                         image.config)
    said = {}
    if own and kind_ == container.APPLICATION:
        said = {'container:entrypoint': '/bin/sh', 'container:tty': 'true',
                'container:user': 'root'}
    return dataclasses.replace(
        build(instance, image, network_info, pids_limit, volumes,
              metadata=said, image_kind=kind_),
        privileged=False, nesting=False, health=None)
