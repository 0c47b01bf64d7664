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

"""Which of a server's devices has which tag, for the metadata service.

A container sees no bus: a network interface is found by its MAC address, a
volume by its device's path.
"""

from nova import block_device
from nova import objects


def save(context, instance, gone: str | None = None) -> None:
    """Write down the devices that a server has now.

    :param instance: nova.objects.Instance
    :param gone: MAC address of an interface that is being taken away
    """
    devices = [
        objects.NetworkInterfaceMetadata(mac=vif.address, tags=[vif.tag])
        for vif in objects.VirtualInterfaceList.get_by_instance_uuid(
            context, instance.uuid)
        if vif.tag and vif.address.lower() != (gone or '').lower()]
    devices += [
        objects.DiskMetadata(
            serial=bdm.volume_id, tags=[bdm.tag],
            path='/dev/' + block_device.strip_dev(bdm.device_name))
        for bdm in objects.BlockDeviceMappingList.get_by_instance_uuid(
            context, instance.uuid)
        if bdm.tag and bdm.volume_id and bdm.device_name]
    found = objects.InstanceDeviceMetadata(devices=devices)
    if devices or instance.device_metadata is not None:
        instance.device_metadata = found
        instance.save()
