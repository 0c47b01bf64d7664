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

"""A container's life in a stack."""

import json

from heat.common import exception
from heat.common.i18n import _
from heat.engine.resources.openstack.nova import server
from oslo_utils import timeutils

from heat_plugin.container import nova
from heat_plugin.container import replacement
from heat_plugin.container import unfinished
from heat_plugin import exposure
from heat_plugin import logs
from heat_plugin import readiness
from heat_plugin import words

# Sections of the resource's data: the image of the last snapshot, as
# OS::Nova::Server names it; and all.
_SNAPSHOT = 'snapshot_image_id'
_SNAPSHOTS = 'snapshot_image_ids'


class Container(replacement.Replaceable):
    """A container: a server that Nova's container driver boots.

    CREATE_COMPLETE means that the container is ready: its health check
    succeeds, or, if it has none, its process runs. A process that ends with
    an error fails the resource, and the end of its log is the reason.

    What can be changed in place is. A new image, command or environment, and
    whatever else the process gets at its start, makes Nova build the server
    anew from its image: addresses and volumes stay, what the container has
    written elsewhere is lost.
    """

    def user_data_software_config(self):
        # OS::Nova::Server asks; there is no agent in a container.
        return False

    # Validation

    def validate(self):
        # That of OS::Nova::Server is about properties that are not here.
        super(server.Server, self).validate()
        props = self.properties
        self._check_words(props)
        self._validate_image_flavor(props[self.IMAGE], props[self.FLAVOR])
        networks = props[self.NETWORKS] or []
        for network in networks:
            self._validate_network(network)
        if props[self.SECURITY_GROUPS] or props[self.EXPOSE]:
            if any(network[self.NETWORK_PORT] for network in networks):
                raise exception.ResourcePropertyConflict(
                    f'{self.NETWORKS}/{self.NETWORK_PORT}',
                    self.SECURITY_GROUPS if props[self.SECURITY_GROUPS]
                    else self.EXPOSE)

    def _check_words(self, props) -> None:
        """Check what no schema can say.

        :raises StackValidationFailed: names the property
        """
        with self._named():
            said = words.of(words.supposed(props)).metadata
            for key in props[self.METADATA] or {}:
                if key.startswith(words.PREFIX):
                    raise words.InvalidProperty(
                        self.METADATA, f'{key} is for other properties, '
                        'such as environment and command')
            exposure.Ports.of(props[self.EXPOSE])
        metadata = {**(props[self.METADATA] or {}), **said}
        limit = self.client_plugin().absolute_limits()['maxServerMeta']
        self._check_maximum(
            len(metadata), limit,
            _('%(name)s: metadata and environment have %(count)d entries '
              'together, and a server can have %(limit)d') % {
                  'name': self.name, 'count': len(metadata), 'limit': limit})

    # Creation

    def handle_create(self):
        props = self.properties
        unfinished.Unfinished(frozenset({self.IMAGE})).keep(self)
        self._open_ports(props)
        groups = self._groups(props)
        created = None
        try:
            created = self.client().servers.create(
                name=self._server_name(),
                hostname=self._hostname(props),
                image=props[self.IMAGE],
                flavor=props[self.FLAVOR],
                meta=self._metadata(props),
                userdata=self._user_data(props),
                key_name=props[self.KEY_NAME],
                security_groups=groups,
                nics=self._build_nics(props[self.NETWORKS],
                                      security_groups=groups) or 'auto',
                block_device_mapping_v2=[
                    {'uuid': volume[self.VOLUME], 'source_type': 'volume',
                     'destination_type': 'volume', 'boot_index': -1,
                     'delete_on_termination': False}
                    for volume in props[self.VOLUMES] or ()] or None,
                config_drive=props[self.CONFIG_DRIVE],
                availability_zone=props[self.AVAILABILITY_ZONE],
                scheduler_hints=self._scheduler_hints(
                    props[self.SCHEDULER_HINTS]))
        finally:
            # Also when this thread is ended here.
            if created is not None:
                self.resource_id_set(created.id)
        return self._waiting()

    def check_create_complete(self, waiting):
        directed = self._has_floating_ip() or self._direct_floating_ip(
            self.properties)
        return (self._is_ready(waiting) and directed
                and self._forget_unfinished())

    # What is seen of it

    def _resolve_attribute(self, name):
        if self.resource_id is None:
            return None
        if name == self.LOGS:
            return self.log()
        if name == self.LOGS_TAIL:
            return logs.last_line(self.log())
        if name == self.LOGS_HEAD:
            return (self.data().get(nova.LOGS_HEAD_KEY)
                    or logs.first_line(self.log()))
        if name in (self.STATE, self.HEALTH, self.EXIT_CODE):
            return getattr(nova.observation(
                self.client_plugin().get_server(self.resource_id)), name)
        if name == self.FLOATING_IP and (own := self._own_floating_ip()):
            return own
        if name in (self.FIRST_ADDRESS, self.FLOATING_IP):
            return exposure.first_address(
                self.client().servers.get(self.resource_id).addresses,
                'fixed' if name == self.FIRST_ADDRESS else 'floating')
        return super()._resolve_attribute(name)

    def handle_check(self):
        self._verify_check_conditions(readiness.conditions(
            nova.wanted(self.properties), nova.observation(
                self.client_plugin().get_server(self.resource_id))))

    def parse_live_resource_data(self, resource_properties, resource_data):
        live = super().parse_live_resource_data(resource_properties,
                                                resource_data)
        return {**{name: value for name, value in live.items()
                   if name in self.properties_schema},
                self.METADATA: {
                    key: value for key, value in live[self.METADATA].items()
                    if not key.startswith(words.PREFIX)}}

    # The rest of its life

    def handle_suspend(self):
        if self._has_ended():
            return None
        return super().handle_suspend()

    def check_suspend_complete(self, server_id):
        return server_id is None or super().check_suspend_complete(server_id)

    def handle_resume(self):
        if self._has_ended():
            return None
        super().handle_resume()
        return self._waiting()

    def check_resume_complete(self, waiting):
        return waiting is None or self._is_ready(waiting)

    def _has_ended(self) -> bool:
        server = self.client_plugin().get_server(self.resource_id)
        return (nova.wanted(self.properties).exit_code is not None
                and server.status == 'SHUTOFF')

    def handle_adopt(self, resource_data=None):
        """Take over a server that is there.

        :raises EntityNotFound: Nova has no such server
        """
        super().handle_adopt(resource_data)
        self.client_plugin().get_server(self.resource_id)
        first = self.data().get(nova.LOGS_HEAD_KEY)
        if first is not None:
            # It may be a password: encrypted, as it was before.
            self.data_set(nova.LOGS_HEAD_KEY, first, redact=True)

    def handle_snapshot(self):
        image = super().handle_snapshot()
        self.data_set(_SNAPSHOTS, json.dumps([*self._snapshots(), image]))
        return image

    def _snapshots(self) -> list[str]:
        return json.loads(self.data().get(_SNAPSHOTS, '[]'))

    def handle_restore(self, defn, restore_data):
        """The definition with the image that a snapshot has made."""
        data = (restore_data or {}).get('resource_data') or {}
        if _SNAPSHOT not in data:
            return defn
        return defn.freeze(properties={
            **{name: value for name, value in self.properties.data.items()
               if value is not None},
            self.IMAGE: data[_SNAPSHOT],
            self.RESTORED: timeutils.utcnow().isoformat()})

    def _delete(self):
        self._release_floating_ip()
        if self.stack.action == self.stack.DELETE:
            # Heat forgets its snapshots, and not the resource their images.
            for image in self._snapshots():
                with self.client_plugin('glance').ignore_not_found:
                    self.client('glance').images.delete(image)
        return super()._delete()

    def check_delete_complete(self, progress):
        if not super().check_delete_complete(progress):
            return False
        self._release_floating_ip()
        self._delete_group()
        return True
