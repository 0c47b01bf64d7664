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

"""The demo image, and the first server.

Reads a JSON object from stdin: admin and demo (keyword arguments of
``openstack.connect``), image (name, path, container_format, properties),
server, flavor. Prints a JSON object: address (floating), server (id), created.
"""

import json
import sys
import typing as ty

import openstack


def upload_image(admin: openstack.connection.Connection,
                 wanted: dict[str, ty.Any]) -> None:
    """Upload the image, unless an active one has its name."""
    found = list(admin.image.images(name=wanted['name']))
    if any(image.status == 'active' for image in found):
        return
    for image in found:
        admin.image.delete_image(image)
    admin.image.create_image(
        wanted['name'], filename=wanted['path'], disk_format='raw',
        container_format=wanted['container_format'], visibility='public',
        wait=True, **wanted['properties'])


def floating_address(demo: openstack.connection.Connection,
                     server: ty.Any) -> str:
    """The server's floating address, given to it if it has none."""
    port = next(demo.network.ports(device_id=server.id))
    for floating in demo.network.ips(port_id=port.id):
        return floating.floating_ip_address
    public = demo.network.find_network('public', ignore_missing=False)
    return demo.network.create_ip(
        floating_network_id=public.id,
        port_id=port.id).floating_ip_address


def run_server(demo: openstack.connection.Connection, name: str, image: str,
               flavor: str) -> ty.Any:
    """Have a server of that name that runs."""
    compute = demo.compute
    server = compute.find_server(name)
    if server is None:
        private = demo.network.find_network('private', ignore_missing=False)
        server = compute.create_server(
            name=name, flavor_id=compute.find_flavor(flavor).id,
            image_id=demo.image.find_image(image).id,
            networks=[{'uuid': private.id}])
    else:
        server = compute.get_server(server.id)
        if server.status == 'ERROR':
            compute.delete_server(server)
            compute.wait_for_delete(server)
            return run_server(demo, name, image, flavor)
        if server.status == 'SHUTOFF' and not server.task_state:
            compute.start_server(server)
    return server


def main(wanted: dict[str, ty.Any]) -> None:
    admin = openstack.connect(**wanted['admin'])
    demo = openstack.connect(**wanted['demo'])
    upload_image(admin, wanted['image'])
    created = demo.compute.find_server(wanted['server']) is None
    server = run_server(demo, wanted['server'], wanted['image']['name'],
                        wanted['flavor'])
    try:
        server = demo.compute.wait_for_server(server, interval=0.3,
                                              wait=180)
    except openstack.exceptions.SDKException as error:
        fault = demo.compute.get_server(server.id).fault
        sys.exit(f'server {wanted["server"]}: '
                 + (fault or {}).get('message', str(error)))
    print(json.dumps({'server': server.id, 'created': created,
                      'address': floating_address(demo, server)}))


if __name__ == '__main__':
    main(json.load(sys.stdin))
