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

from nova_container.compute import flavor
from nova_container.compute import wishes
from nova_container.image import store
from nova_container.spec import container
from nova_container.spec import network


def process(metadata: dict[str, str], image: store.Image) -> container.Process:
    """What runs: the image's config under the tenant's wishes.

    :raises UserError: a wish is wrong, or there is no command at all
    """
    said = wishes.parse(metadata)
    config = image.config
    if said.entrypoint is not None:
        args = said.entrypoint + (said.command or ())
    else:
        args = config.entrypoint + (
            config.cmd if said.command is None else said.command)
    env = dict(item.split('=', 1) for item in config.env)
    env.update(said.env)

    def either(wish: str | None, own: str) -> str:
        return own if wish is None else wish

    return container.Process(
        args=args,
        env=tuple(env.items()),
        cwd=either(said.workdir, config.working_dir) or '/',
        user=either(said.user, config.user),
        stop_signal=either(said.stop_signal, config.stop_signal) or 'SIGTERM')


def name_servers(network_info) -> network.Dns:
    """The DNS servers of all subnets, each once, in Neutron's order."""
    servers = [dns['address']
               for vif in network_info
               for subnet in vif['network']['subnets']
               for dns in subnet['dns']]
    return network.Dns(servers=tuple(dict.fromkeys(servers)))


def build(instance, image: store.Image, network_info, pids_limit: int,
          cpuset: str | None = None) -> container.ContainerSpec:
    """Everything about the container but its interfaces.

    :param instance: nova.objects.Instance
    :param network_info: nova.network.model.NetworkInfo
    :param pids_limit: where the flavor has none
    :param cpuset: processors that instances may use, None for all
    :raises UserError: what the tenant asked for makes no sense
    """
    return container.ContainerSpec(
        id=instance.uuid,
        hostname=instance.hostname or f'container-{instance.uuid}',
        process=process(instance.metadata, image),
        layers=tuple(str(layer) for layer in image.layers),
        limits=flavor.resources(instance.flavor, pids_limit, cpuset),
        disk=flavor.disks(instance.flavor),
        dns=name_servers(network_info),
        addresses=tuple(ip['address'] for vif in network_info
                        for ip in vif.fixed_ips()))
