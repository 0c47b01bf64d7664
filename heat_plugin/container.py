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

"""``NovaContainer::Container``: one container, a server of Nova's."""

import collections.abc
import contextlib
import copy
import dataclasses
import json
import time
import typing as ty

from heat.common import exception
from heat.common.i18n import _
from heat.engine import attributes
from heat.engine import constraints
from heat.engine import properties
from heat.engine import resource
from heat.engine.resources.openstack.nova import server
from heat.engine import support
from oslo_utils import timeutils
from oslo_utils import uuidutils

from heat_plugin import exposure
from heat_plugin import logs
from heat_plugin import readiness
from heat_plugin import resolution
from heat_plugin import words

# Sections of the resource's data.
_GROUP = 'security_group_id'
_FLOATING_IP = 'floating_ip_id'
_LOGS_HEAD = 'logs_head'
# The image of the last snapshot, as OS::Nova::Server names it; and all.
_SNAPSHOT = 'snapshot_image_id'
_SNAPSHOTS = 'snapshot_image_ids'
# What has begun and has not succeeded.
_UNFINISHED = 'unfinished'

# Seconds for a server to stop and its volumes to be detached.
_STEPS_TIMEOUT = 180.0


def _inherited(name: str, **changes: ty.Any) -> properties.Schema:
    """A property of OS::Nova::Server with some of its schema changed."""
    theirs = server.Server.properties_schema[name]
    fields = {'description': theirs.description, 'default': theirs.default,
              'schema': theirs.schema, 'required': theirs.required,
              'constraints': theirs.constraints,
              'update_allowed': theirs.update_allowed, **changes}
    return properties.Schema(theirs.type, **fields)


def _duration(description: str) -> properties.Schema:
    return properties.Schema(
        properties.Schema.STRING,
        _('%s In seconds, or as 1m30s or 500ms.') % description,
        constraints=[constraints.AllowedPattern(words.DURATION)],
        update_allowed=True)


class Container(server.Server):
    """A container: a server that Nova's container driver boots.

    CREATE_COMPLETE means that the container is ready: its health check
    succeeds, or, if it has none, its process runs. A process that ends with
    an error fails the resource, and the end of its log is the reason.

    What can be changed in place is. A new image, command or environment, and
    whatever else the process gets at its start, makes Nova build the server
    anew from its image: addresses and volumes stay, what the container has
    written elsewhere is lost.
    """

    PROPERTIES = (
        NAME, IMAGE, FLAVOR, HOSTNAME, COMMAND, ENTRYPOINT, ENVIRONMENT,
        WORKING_DIR, USER, TTY, REAPER, STOP_SIGNAL, STOP_GRACE_PERIOD,
        RESTART_POLICY, HEALTH_CHECK, WAIT_FOR, LINKS, NETWORKS,
        SECURITY_GROUPS, EXPOSE, FLOATING_NETWORK, VOLUMES, METADATA,
        USER_DATA, KEY_NAME, CONFIG_DRIVE, AVAILABILITY_ZONE,
        SCHEDULER_HINTS, FLAVOR_UPDATE_POLICY, IMAGE_UPDATE_POLICY, RESTORED,
    ) = (
        'name', 'image', 'flavor', 'hostname', 'command', 'entrypoint',
        'environment', 'working_dir', 'user', 'tty', 'init', 'stop_signal',
        'stop_grace_period', 'restart_policy', 'health_check', 'wait_for',
        'links', 'networks', 'security_groups', 'expose', 'floating_network',
        'volumes', 'metadata', 'user_data', 'key_name', 'config_drive',
        'availability_zone', 'scheduler_hints', 'flavor_update_policy',
        'image_update_policy', 'restored',
    )

    # Those that the container takes up when it is built anew.
    REBUILDING = words.PROPERTIES | {IMAGE, HOSTNAME, USER_DATA, KEY_NAME,
                                     RESTORED}

    _VOLUME_KEYS = (
        VOLUME, MOUNT_PATH, READ_ONLY,
    ) = (
        'volume', 'mount_path', 'read_only',
    )

    ATTRIBUTES = (
        NAME_ATTR, FIRST_ADDRESS, ADDRESSES, NETWORKS_ATTR, FLOATING_IP,
        STATE, HEALTH, EXIT_CODE, LOGS, LOGS_HEAD, LOGS_TAIL, CONSOLE_URLS,
    ) = (
        'name', 'first_address', 'addresses', 'networks', 'floating_ip',
        'state', 'health', 'exit_code', 'logs', 'logs_head', 'logs_tail',
        'console_urls',
    )

    properties_schema = {
        NAME: properties.Schema(
            properties.Schema.STRING,
            _('Name of the server.'),
            update_allowed=True),
        IMAGE: _inherited(
            server.Server.IMAGE, required=True,
            description=_('Name or id of the container image in Glance.')),
        FLAVOR: _inherited(
            server.Server.FLAVOR,
            description=_('Name or id of the flavor, which limits '
                          'processors, memory, disk and more.')),
        HOSTNAME: properties.Schema(
            properties.Schema.STRING,
            _('Host name, by which the other containers of the network '
              'reach this one. By default the name of the resource.'),
            constraints=[constraints.AllowedPattern(
                '[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?')],
            update_allowed=True),
        COMMAND: properties.Schema(
            properties.Schema.ANY,
            _("Instead of the image's Cmd: a list of words, or a line as for "
              'a shell.'),
            update_allowed=True),
        ENTRYPOINT: properties.Schema(
            properties.Schema.ANY,
            _("Instead of the image's Entrypoint, which also drops its Cmd: "
              'a list of words, or a line as for a shell.'),
            update_allowed=True),
        ENVIRONMENT: properties.Schema(
            properties.Schema.MAP,
            _("Environment variables, added to the image's."),
            update_allowed=True),
        WORKING_DIR: properties.Schema(
            properties.Schema.STRING,
            _('Directory that the process starts in.'),
            constraints=[constraints.AllowedPattern('/.*')],
            update_allowed=True),
        USER: properties.Schema(
            properties.Schema.STRING,
            _('User, or user:group, names or numbers.'),
            update_allowed=True),
        TTY: properties.Schema(
            properties.Schema.BOOLEAN,
            _('A terminal as standard input and output.'),
            update_allowed=True),
        REAPER: properties.Schema(
            properties.Schema.BOOLEAN,
            _('A small init as process 1, which reaps orphans and passes '
              'signals on.'),
            update_allowed=True),
        STOP_SIGNAL: properties.Schema(
            properties.Schema.STRING,
            _('Signal that asks the process to end.'),
            constraints=[constraints.AllowedPattern(
                '(SIG)?[A-Z0-9+-]+|[0-9]{1,2}')],
            update_allowed=True),
        STOP_GRACE_PERIOD: _duration(
            _('How long the process may take to end before it is killed.')),
        RESTART_POLICY: properties.Schema(
            properties.Schema.STRING,
            _('Whether a process that ended is started again: no, always, '
              'on-failure, or on-failure:N for N times.'),
            constraints=[constraints.AllowedPattern(
                'no|always|on-failure(:[0-9]+)?')],
            update_allowed=True),
        HEALTH_CHECK: properties.Schema(
            properties.Schema.MAP,
            _("Instead of the image's health check."),
            schema={
                'test': properties.Schema(
                    properties.Schema.ANY,
                    _('Command that succeeds while the container is healthy: '
                      'a line for the shell, a list of words, or in the '
                      'forms of a Dockerfile, with CMD, CMD-SHELL or NONE '
                      'first.')),
                'interval': _duration(_('Time between two checks.')),
                'timeout': _duration(_('How long one may take.')),
                'start_period': _duration(
                    _('How long failures do not count after the start.')),
                'start_interval': _duration(
                    _('Time between two checks until then.')),
                'retries': properties.Schema(
                    properties.Schema.INTEGER,
                    _('Failures in a row that make it unhealthy.'),
                    constraints=[constraints.Range(min=1)]),
            },
            update_allowed=True),
        WAIT_FOR: properties.Schema(
            properties.Schema.STRING,
            _('When the container is ready: running; healthy; or exited:CODE '
              'for a job that ends with that code. By default healthy if it '
              'has a health check and running otherwise.'),
            constraints=[constraints.AllowedPattern(readiness.PATTERN)],
            update_allowed=True),
        LINKS: properties.Schema(
            properties.Schema.LIST,
            _('Containers, by get_resource, that have to be ready before '
              'this one is created. They are reached by their host names.'),
            schema=properties.Schema(properties.Schema.STRING),
            update_allowed=True),
        NETWORKS: _inherited(
            server.Server.NETWORKS,
            description=_('Networks, in the order of the interfaces; each by '
                          'network, subnet or port. By default the one '
                          'network that the project can use.')),
        SECURITY_GROUPS: _inherited(
            server.Server.SECURITY_GROUPS, update_allowed=True,
            description=_('Names or ids of security groups. By default the '
                          "project's group default; that of expose is "
                          'added.')),
        EXPOSE: properties.Schema(
            properties.Schema.LIST,
            _('Ports that anyone may connect to, as 80, 53/udp or '
              '8000-8010/tcp: a security group that lets them in.'),
            schema=properties.Schema(
                properties.Schema.STRING,
                constraints=[constraints.AllowedPattern(exposure.PATTERN)]),
            update_allowed=True),
        FLOATING_NETWORK: properties.Schema(
            properties.Schema.STRING,
            _('Name or id of an external network: the container gets a '
              'floating IP of it, on its first interface.'),
            constraints=[constraints.CustomConstraint('neutron.network')],
            update_allowed=True),
        VOLUMES: properties.Schema(
            properties.Schema.LIST,
            _('Cinder volumes to attach.'),
            schema=properties.Schema(properties.Schema.MAP, schema={
                VOLUME: properties.Schema(
                    properties.Schema.STRING, _('Id of the volume.'),
                    constraints=[
                        constraints.CustomConstraint('cinder.volume')],
                    required=True),
                MOUNT_PATH: properties.Schema(
                    properties.Schema.STRING,
                    _('Where its file system is mounted. A volume without '
                      'one gets one. Without a path the volume is a block '
                      'device only.'),
                    constraints=[constraints.AllowedPattern('/.+')]),
                READ_ONLY: properties.Schema(
                    properties.Schema.BOOLEAN, _('Mounted for reading only.'),
                    default=False),
            }),
            update_allowed=True),
        METADATA: _inherited(
            server.Server.METADATA,
            description=_("The server's metadata. Keys that begin with "
                          'container: are those of other properties.')),
        USER_DATA: _inherited(
            server.Server.USER_DATA, default=None,
            description=_('User data, for the metadata service and the '
                          'config drive: text, or by get_resource a software '
                          'config, such as OS::Heat::CloudConfig.')),
        KEY_NAME: _inherited(server.Server.KEY_NAME, update_allowed=True),
        CONFIG_DRIVE: _inherited(server.Server.CONFIG_DRIVE),
        AVAILABILITY_ZONE: _inherited(
            server.Server.AVAILABILITY_ZONE,
            description=_('Availability zone.')),
        SCHEDULER_HINTS: _inherited(server.Server.SCHEDULER_HINTS),
        FLAVOR_UPDATE_POLICY: _inherited(
            server.Server.FLAVOR_UPDATE_POLICY),
        IMAGE_UPDATE_POLICY: _inherited(
            server.Server.IMAGE_UPDATE_POLICY,
            description=_('How a new image is applied: Nova builds the '
                          'server anew, or it is replaced.'),
            constraints=[constraints.AllowedValues(['REBUILD', 'REPLACE'])]),
        # Of handle_restore, for a snapshot that is restored once more.
        RESTORED: properties.Schema(
            properties.Schema.STRING,
            _('When it was made as in a snapshot.'),
            support_status=support.SupportStatus(support.HIDDEN),
            update_allowed=True),
    }

    attributes_schema = {
        NAME_ATTR: attributes.Schema(
            _('Name of the server.'), type=attributes.Schema.STRING),
        FIRST_ADDRESS: attributes.Schema(
            _('Address of the first interface, IPv4 if it has one.'),
            type=attributes.Schema.STRING),
        ADDRESSES: server.Server.attributes_schema[server.Server.ADDRESSES],
        NETWORKS_ATTR:
            server.Server.attributes_schema[server.Server.NETWORKS_ATTR],
        FLOATING_IP: attributes.Schema(
            _('Floating IP of the first interface that has one.'),
            type=attributes.Schema.STRING),
        STATE: attributes.Schema(
            _('running, restarting, paused, suspended, exited, or the '
              "server's status in small letters."),
            type=attributes.Schema.STRING,
            cache_mode=attributes.Schema.CACHE_NONE),
        HEALTH: attributes.Schema(
            _('starting, healthy or unhealthy, while a container with a '
              'health check runs.'),
            type=attributes.Schema.STRING,
            cache_mode=attributes.Schema.CACHE_NONE),
        EXIT_CODE: attributes.Schema(
            _("How the process has ended last: its code, or 128 and the "
              "signal's number."),
            type=attributes.Schema.INTEGER,
            cache_mode=attributes.Schema.CACHE_NONE),
        LOGS: attributes.Schema(
            _('What the process wrote, its last 100 kB.'),
            type=attributes.Schema.STRING,
            cache_mode=attributes.Schema.CACHE_NONE),
        LOGS_HEAD: attributes.Schema(
            _('The first line that the process wrote. The container is not '
              'ready before there is one, where a template asks for it.'),
            type=attributes.Schema.STRING),
        LOGS_TAIL: attributes.Schema(
            _('The last line that the process wrote.'),
            type=attributes.Schema.STRING,
            cache_mode=attributes.Schema.CACHE_NONE),
        CONSOLE_URLS:
            server.Server.attributes_schema[server.Server.CONSOLE_URLS],
    }

    def translation_rules(self, props):
        return [rule for rule in super().translation_rules(props)
                if rule.translation_path[0] in self.properties_schema]

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

    @contextlib.contextmanager
    def _named(self) -> collections.abc.Iterator[None]:
        """What is wrong with a property, as Heat says it."""
        try:
            yield
        except words.InvalidProperty as error:
            raise exception.StackValidationFailed(
                error='Property error',
                path=[self.stack.t.RESOURCES, self.t.name, 'properties',
                      error.name],
                message=str(error))

    # Creation

    def _hostname(self, props) -> str:
        """The host name: as asked for, or that of the resource."""
        return props[self.HOSTNAME] or ''.join(
            c if c.isascii() and c.isalnum() else '-'
            for c in self.name).strip('-')[:63] or 'container'

    def _metadata(self, props) -> dict[str, str]:
        return {**self.client_plugin().meta_serialize(
            props[self.METADATA] or {}), **self._said(props).metadata}

    def _said(self, props) -> words.Said:
        with self._named():
            return words.of(props)

    def _user_data(self, props) -> str | None:
        found = self._said(props).user_data
        return (self.get_software_config(found)
                if uuidutils.is_uuid_like(found) else found)

    def handle_create(self):
        props = self.properties
        _Unfinished(frozenset({self.IMAGE})).keep(self)
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
        directed = bool(self.data().get(_FLOATING_IP)
                        or self._direct_floating_ip(self.properties))
        return self._is_ready(waiting) and directed and self._finish()

    def _waiting(self, props=None) -> readiness.Waiting:
        return readiness.Waiting(_wanted(props or self.properties))

    def _is_ready(self, waiting: readiness.Waiting) -> bool:
        """Whether the container is what is waited for.

        :raises Error: it will not become so
        """
        server = self._fetch()
        if server is None:
            return False
        try:
            if not waiting.is_over(_observation(server)):
                return False
        except readiness.Failed as failure:
            end = logs.end(self.log())
            # Not ResourceInError, after which Heat tries it all again.
            raise exception.Error(
                f'The container is not ready: {failure}; '
                + (f'the end of its log:\n{end}' if end
                   else 'it has written nothing'))
        if not self._has_logs_head() and (
                self.LOGS_HEAD in self.referenced_attrs()):
            return False
        return True

    def _has_logs_head(self) -> bool:
        """Whether the first line is kept: Nova's log loses it in time."""
        if self.data().get(_LOGS_HEAD):
            return True
        first = logs.first_line(self.log())
        if first:
            self.data_set(_LOGS_HEAD, first, redact=True)
        return bool(first)

    # Network

    def _groups(self, props) -> list[str]:
        """The security groups, with that of the property expose."""
        own = self.data().get(_GROUP)
        return [*(props[self.SECURITY_GROUPS] or ['default']),
                *([own] if own else [])]

    def _open_ports(self, props) -> None:
        """Have a security group for what is to be exposed."""
        ports = exposure.Ports.of(props[self.EXPOSE])
        neutron, own = self.client('neutron'), self.data().get(_GROUP)
        if own:
            exposure.SecurityGroup(neutron, own).open(ports)
        elif ports:
            group = exposure.SecurityGroup.create(
                neutron, self.physical_resource_name())
            self.data_set(_GROUP, group.id)
            group.open(ports)

    def _set_groups(self, props) -> bool:
        groups = self.client_plugin('neutron').get_secgroup_uuids(
            self._groups(props))
        networks = props[self.NETWORKS] or []
        others = {network[self.NETWORK_PORT] for network in networks}
        if any((network[self.NETWORK_PORT_EXTRA] or {}).get(
                self.SECURITY_GROUPS) for network in networks):
            others |= {port['id'] for port in self._data_get_ports()}
        exposure.set_groups(self.client('neutron'), self.resource_id,
                            list(dict.fromkeys(groups)), others)
        return True

    def _direct_floating_ip(self, props) -> bool:
        """Have the floating IP lead to the first interface; False: not yet.

        It stays the same as long as it is to be of the same network.
        """
        neutron = self.client('neutron')
        network = props[self.FLOATING_NETWORK] and self.client_plugin(
            'neutron').find_resourceid_by_name_or_id(
                'network', props[self.FLOATING_NETWORK])
        floating = self._show_floating_ip()
        if floating is None or floating['floating_network_id'] != network:
            self._release_floating_ip()
            floating = None
        if not network:
            return True
        port = self._first_port()
        if port is None:
            return False
        if floating is None:
            made = neutron.create_floatingip({'floatingip': {
                'floating_network_id': network, 'port_id': port}})
            self.data_set(_FLOATING_IP, made['floatingip']['id'])
        elif floating['port_id'] != port:
            neutron.update_floatingip(
                floating['id'], {'floatingip': {'port_id': port}})
        return True

    def _first_port(self) -> str | None:
        """The port of the first interface; None while it is not known.

        :raises Error: there is no interface
        """
        server = self._fetch()
        if server is None or server.status == 'BUILD':
            return None
        interfaces = server.interface_list()
        if not interfaces:
            raise exception.Error(_(
                'A floating IP cannot be given to the server %s, which has '
                'no interface: give it networks or no floating_network')
                % self.resource_id)
        return exposure.first_port(server.addresses, interfaces)

    def _show_floating_ip(self) -> dict[str, ty.Any] | None:
        floating = self.data().get(_FLOATING_IP)
        if floating:
            with self.client_plugin('neutron').ignore_not_found:
                return self.client('neutron').show_floatingip(floating)[
                    'floatingip']
        return None

    def _own_floating_ip(self) -> str | None:
        """By Neutron: Nova learns of it later, and Heat asks only once."""
        floating = self._show_floating_ip()
        return None if floating is None else floating['floating_ip_address']

    def _release_floating_ip(self) -> None:
        floating = self.data().get(_FLOATING_IP)
        if floating:
            with self.client_plugin('neutron').ignore_not_found:
                self.client('neutron').delete_floatingip(floating)
            self.data_delete(_FLOATING_IP)

    def _delete_group(self) -> None:
        group = self.data().get(_GROUP)
        if group:
            with self.client_plugin('neutron').ignore_not_found:
                exposure.SecurityGroup(self.client('neutron'),
                                       group).delete()
            self.data_delete(_GROUP)

    # What Nova says

    def _fetch(self) -> ty.Any:
        """The server; None while Nova does not answer.

        :raises ResourceInError: it is in status ERROR
        """
        found = self.client_plugin().fetch_server(self.resource_id)
        if found is not None and found.status == 'ERROR':
            self.client_plugin()._check_active(found)
        return found

    def log(self) -> str:
        """What the process wrote, as far as Nova keeps it."""
        return self.client().servers.get_console_output(self.resource_id)

    def _resolve_attribute(self, name):
        if self.resource_id is None:
            return None
        if name == self.LOGS:
            return self.log()
        if name == self.LOGS_TAIL:
            return logs.last_line(self.log())
        if name == self.LOGS_HEAD:
            return self.data().get(_LOGS_HEAD) or logs.first_line(self.log())
        if name in (self.STATE, self.HEALTH, self.EXIT_CODE):
            return getattr(_observation(
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
            _wanted(self.properties), _observation(
                self.client_plugin().get_server(self.resource_id))))

    def parse_live_resource_data(self, resource_properties, resource_data):
        live = super().parse_live_resource_data(resource_properties,
                                                resource_data)
        return {**{name: value for name, value in live.items()
                   if name in self.properties_schema},
                self.METADATA: {
                    key: value for key, value in live[self.METADATA].items()
                    if not key.startswith(words.PREFIX)}}

    # Update

    def needs_replace_with_prop_diff(self, changed_properties_set,
                                     after_props, before_props):
        for name, policy in ((self.FLAVOR, self.FLAVOR_UPDATE_POLICY),
                             (self.IMAGE, self.IMAGE_UPDATE_POLICY)):
            if (name in changed_properties_set
                    and after_props[policy] == 'REPLACE'):
                return True
        # Nova resizes what runs.
        return (self.FLAVOR in changed_properties_set
                and _wanted(after_props).exit_code is not None)

    def _needs_update(self, *args, **kwargs):
        # Heat compares with the last update that succeeded.
        return (super()._needs_update(*args, **kwargs)
                or _UNFINISHED in self.data())

    def handle_update(self, json_snippet, tmpl_diff, prop_diff):
        if tmpl_diff.metadata_changed():
            self.metadata_set(json_snippet.metadata())
        after = json_snippet.properties(self.properties_schema, self.context)
        earlier = _Unfinished.of(self)
        changed = earlier.names | frozenset(prop_diff)
        mounted = [*_volumes(self.properties), *earlier.volumes]
        _Unfinished(changed, (*mounted, *_volumes(after))).keep(self)

        server = self.client_plugin().get_server(self.resource_id)
        steps = [self._detachment(volume) for volume in mounted
                 if volume not in _volumes(after)]
        if self.NAME in changed:
            server.update(name=after[self.NAME]
                          or self.physical_resource_name())
        steps += self._steps_of_network(server, changed, after)
        if self.FLAVOR in changed and not self._has_flavor(server, after):
            steps += [self._step(progress)
                      for progress in self._update_flavor(after)]
        if changed & self.REBUILDING:
            steps.append(self._rebuilding(after))
        elif changed & {self.METADATA, self.VOLUMES}:
            steps.append(_Step(lambda: self._update_metadata(after)))
        if self.VOLUMES in changed:
            steps += [self._attachment(volume) for volume in _volumes(after)]
        steps.append(_Step(lambda: self._start_again(after)))
        return _Update(steps, self._waiting(after))

    def check_update_complete(self, update):
        for step in update.steps:
            if not step.is_done():
                return False
        return self._is_ready(update.waiting) and self._finish()

    def _finish(self) -> bool:
        self.data_delete(_UNFINISHED)
        return True

    def _steps_of_network(self, server, changed, after) -> list['_Step']:
        steps = []
        if changed & {self.SECURITY_GROUPS, self.EXPOSE, self.NETWORKS}:
            self._open_ports(after)
            if self.NETWORKS in changed:
                steps += self._steps_of_interfaces(server, after)
            steps.append(_Step(lambda: self._set_groups(after)))
        if changed & {self.FLOATING_NETWORK, self.NETWORKS}:
            steps.append(_Step(lambda: self._direct_floating_ip(after)))
        return steps

    def _steps_of_interfaces(self, server, after) -> list['_Step']:
        interfaces = server.interface_list()
        gone, new = self.calculate_networks(
            self._connected(interfaces),
            copy.deepcopy(after[self.NETWORKS] or []), interfaces,
            self._groups(after))
        steps = []
        for port in gone:
            steps += self._disconnection(port)
        return steps + [self._connection(**wanted) for wanted in new]

    def _connected(self, interfaces) -> list[dict[str, ty.Any]]:
        """The networks as a property that says what is there now.

        Also what an update that did not succeed has left.
        """
        known = copy.deepcopy(self.properties[self.NETWORKS] or [])
        if known and self._str_network(known):
            return known
        self.update_networks_matching_iface_port(known, interfaces)
        ports = {network[self.NETWORK_PORT]: network for network in known}
        return [ports.get(interface.port_id) or {
            self.NETWORK_PORT: interface.port_id,
            self.NETWORK_ID: interface.net_id} for interface in interfaces]

    def _disconnection(self, port: str) -> list['_Step']:
        plugin = self.client_plugin()

        def is_gone() -> bool:
            # Nova deletes those that it has made.
            with self.client_plugin('neutron').ignore_not_found:
                return plugin.check_interface_detach(self.resource_id, port)
            return True

        return [
            _Step(lambda: plugin.interface_detach(self.resource_id, port),
                  is_gone),
            _Step(lambda: self._forget_port(port))]

    def _connection(self, port_id=None, **wanted) -> '_Step':
        plugin = self.client_plugin()
        return _Step(
            lambda: plugin.interface_attach(self.resource_id, port_id,
                                            **wanted),
            lambda: plugin.check_interface_attach(self.resource_id, port_id))

    def _forget_port(self, port: str) -> bool:
        """Delete a port that Heat has made, once Nova has let it go."""
        if any(own['id'] == port for own in self._data_get_ports()):
            self._delete_internal_port(port)
        return True

    def _has_flavor(self, server, after) -> bool:
        flavor = self.client_plugin().get_flavor(after[self.FLAVOR])
        # Nova tells either, by its API's version.
        return (server.flavor.get('id') == flavor.id
                or server.flavor.get('original_name') == flavor.name)

    def _step(self, progress) -> '_Step':
        """A step of OS::Nova::Server as one of ours."""
        plugin = self.client_plugin()

        def start():
            progress.called = getattr(plugin, progress.handler)(
                *progress.handler_args, **progress.handler_kwargs)
            return progress.called

        def check():
            progress.complete = getattr(plugin, progress.checker)(
                *progress.checker_args, **progress.checker_kwargs)
            return progress.complete

        return _Step(start, check)

    def _attachment(self, mount: '_Mounted') -> '_Step':
        return _Step(lambda: self._attach(mount.volume),
                     lambda: self.client('cinder').volumes.get(
                         mount.volume).status == 'in-use')

    def _attach(self, volume: str) -> bool:
        plugin = self.client_plugin()
        return (not plugin.check_detach_volume_complete(self.resource_id,
                                                        volume)
                or bool(plugin.attach_volume(self.resource_id, volume, None)))

    def _detachment(self, mount: '_Mounted') -> '_Step':
        plugin = self.client_plugin()
        return _Step(
            lambda: plugin.detach_volume(self.resource_id, mount.volume),
            lambda: plugin.check_detach_volume_complete(self.resource_id,
                                                        mount.volume))

    def _update_metadata(self, after) -> bool:
        servers = self.client().servers
        before, wanted = self._metadata(self.properties), self._metadata(after)
        gone = sorted(before.keys() - wanted.keys())
        if gone:
            servers.delete_meta(self.resource_id, gone)
        if wanted:
            servers.set_meta(self.resource_id, wanted)
        return True

    def _rebuilding(self, after) -> '_Step':
        stopped = False

        def start() -> bool:
            nonlocal stopped
            server = self._fetch()
            if server is None:
                return False
            stopped = server.status == 'SHUTOFF'
            self.data_delete(_LOGS_HEAD)
            server.rebuild(
                after[self.IMAGE], meta=self._metadata(after),
                hostname=self._hostname(after), key_name=after[self.KEY_NAME],
                userdata=self._user_data(after))
            return True

        def check() -> bool:
            server = self._fetch()
            if server is None or getattr(server, 'OS-EXT-STS:task_state'):
                return False
            # Nova builds and starts it, and stops again what was stopped.
            return (server.status == 'SHUTOFF' if stopped
                    else server.status != 'REBUILD')

        return _Step(start, check)

    def _start_again(self, after) -> bool:
        """Start what has ended, unless it has ended as it should."""
        server = self._fetch()
        if server is None:
            return False
        observed = _observation(server)
        if observed.state == 'exited' and (
                observed.exit_code is None
                or observed.exit_code != _wanted(after).exit_code):
            self.client().servers.delete_meta(
                self.resource_id, [key for key in server.metadata
                                   if key in readiness.ENDED])
            server.start()
        return True

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
        return (_wanted(self.properties).exit_code is not None
                and server.status == 'SHUTOFF')

    def handle_adopt(self, resource_data=None):
        """Take over a server that is there.

        :raises EntityNotFound: Nova has no such server
        """
        super().handle_adopt(resource_data)
        self.client_plugin().get_server(self.resource_id)
        first = self.data().get(_LOGS_HEAD)
        if first is not None:
            # It may be a password: encrypted, as it was before.
            self.data_set(_LOGS_HEAD, first, redact=True)

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

    def prepare_for_replace(self):
        self._let_go()

    def restore_prev_rsrc(self, convergence=False):
        """Take back from a replacement that has failed what it was given."""
        if convergence:
            # A resource alone does not keep its stack.
            replacement, *_stacks = resource.Resource.load(
                self.context, self.replaced_by, self.stack.current_traversal,
                True, self.stack.defn._resource_data)
            previous = self
        else:
            previous, replacement = self.stack._backup_stack().resources.get(
                self.name), self
        # Another template may have another type.
        if isinstance(replacement, Container):
            replacement._give_way()
        if isinstance(previous, Container):
            previous._take_back()

    def _give_way(self) -> None:
        """As ``_let_go``, while Heat may be deleting the server."""
        nova, neutron = self.client_plugin(), self.client_plugin('neutron')
        try:
            self._let_go()
        except Exception as error:
            if not (nova.is_not_found(error) or nova.is_conflict(error)
                    or neutron.is_not_found(error)):
                raise
            # What it still has goes with it.
            _carry_out(self.resource_id, [
                _Step(lambda: True, lambda: self._find() is None)])

    def _let_go(self) -> None:
        """Give up what only one server can have.

        That is its names, its volumes, and ports and addresses that the
        template names. An interface that was made for it stays.
        """
        server = self._find()
        if server is not None and server.status == 'BUILD':
            # Its ports may come with the names until then.
            with contextlib.suppress(exception.Error):
                _carry_out(server.id, [_Step(lambda: True, self._is_built)])
            server = self._find()
        if server is None or server.status == 'ERROR':
            self._delete_internal_ports()
        if server is None:
            return
        resolution.rename(self.client('neutron'), server.id, '')
        ports = exposure.given(
            self.properties[self.NETWORKS] or [], server.interface_list(),
            [port['id'] for port in self._data_get_ports()])
        floating = self._show_floating_ip()
        if floating is not None and floating['port_id'] in ports:
            self._floating_ip_disassociate(floating['id'])
        if server.status not in ('ACTIVE', 'SHUTOFF'):
            return
        steps = []
        mounted = [*_volumes(self.properties), *_Unfinished.of(self).volumes]
        if mounted:
            if server.status == 'ACTIVE':
                # With its process alive a volume would be in use.
                server.stop()
            steps += [_Step(lambda: True, self._is_stopped),
                      *map(self._detachment, mounted)]
        for port in ports:
            steps += self._disconnection(port)
        _carry_out(server.id, steps)

    def _take_back(self) -> None:
        """Get again what was given up, whatever of it is not there."""
        server, props = self._find(), self.properties
        if server is None or server.status == 'ERROR':
            # The update that follows replaces it.
            return
        networks = exposure.missing(props[self.NETWORKS] or [],
                                    server.interface_list())
        steps = [self._connection(network[self.NETWORK_PORT]) if
                 network[self.NETWORK_PORT] else self._connection(
                     net_id=self._get_network_id(network),
                     fip=network[self.NETWORK_FIXED_IP])
                 for network in networks]
        if networks:
            steps.append(_Step(lambda: self._set_groups(props)))
        steps.append(_Step(lambda: self._direct_floating_ip(props)))
        _carry_out(server.id, steps)
        resolution.rename(self.client('neutron'), server.id,
                          self._hostname(props))
        mounted = _volumes(props)
        if mounted:
            _carry_out(server.id, [
                *map(self._attachment, mounted),
                _Step(lambda: self._start_again(props))])

    def _find(self) -> ty.Any:
        """The server, in whatever status; None if there is none."""
        if self.resource_id is not None:
            with self.client_plugin().ignore_not_found:
                return self.client().servers.get(self.resource_id)
        return None

    def _is_built(self) -> bool:
        server = self._find()
        return server is None or server.status != 'BUILD'

    def _is_stopped(self) -> bool:
        server = self._fetch()
        return server is not None and server.status == 'SHUTOFF'

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


@dataclasses.dataclass(frozen=True)
class _Mounted:
    """A volume and where it is mounted."""

    volume: str
    path: str | None
    read_only: bool


def _volumes(props) -> list[_Mounted]:
    return [_Mounted(volume[Container.VOLUME], volume[Container.MOUNT_PATH],
                     bool(volume[Container.READ_ONLY]))
            for volume in props[Container.VOLUMES] or ()
            if volume[Container.VOLUME]]


def _wanted(props) -> readiness.Wanted:
    return readiness.Wanted.parse(props[Container.WAIT_FOR])


def _observation(server: ty.Any) -> readiness.Observation:
    return readiness.Observation(
        # Some clouds append words in parentheses.
        status=server.status.partition('(')[0],
        power_state=getattr(server, 'OS-EXT-STS:power_state', None),
        metadata=server.metadata)


@dataclasses.dataclass
class _Step:
    """Something to start once, and to wait for.

    :param start: starts it; False to be called again
    :param check: whether it is over; None if it is as soon as it is started
    """

    start: ty.Callable[[], bool]
    check: ty.Callable[[], bool] | None = None
    started: bool = False
    done: bool = False

    def is_done(self) -> bool:
        if not self.started:
            self.started = self.start()
            if self.check is not None:
                return False
        if self.started and not self.done:
            self.done = self.check is None or self.check()
        return self.done


@dataclasses.dataclass(frozen=True)
class _Update:
    """An update under way."""

    steps: list[_Step]
    waiting: readiness.Waiting


@dataclasses.dataclass(frozen=True)
class _Unfinished:
    """What creation and updates that have not succeeded were about.

    :param names: properties that they changed
    :param volumes: that they may have attached
    """

    names: frozenset[str] = frozenset()
    volumes: tuple[_Mounted, ...] = ()

    @classmethod
    def of(cls, container: Container) -> '_Unfinished':
        """What is kept in a container's data."""
        kept = json.loads(container.data().get(_UNFINISHED, '{}'))
        return cls(frozenset(kept.get('names', ())),
                   tuple(_Mounted(*fields)
                         for fields in kept.get('volumes', ())))

    def keep(self, container: Container) -> None:
        """Keep it in a container's data until all has succeeded."""
        container.data_set(_UNFINISHED, json.dumps({
            'names': sorted(self.names),
            'volumes': [dataclasses.astuple(volume)
                        for volume in dict.fromkeys(self.volumes)]}))


def _carry_out(server_id: str, steps: list[_Step]) -> None:
    """Wait for steps where Heat does not poll.

    :raises Error: they take too long
    """
    end = time.monotonic() + _STEPS_TIMEOUT
    for step in steps:
        while not step.is_done():
            if time.monotonic() > end:
                raise exception.Error(
                    _('Volumes and interfaces of the server %s could not be '
                      'handed over in time: look what Nova does with it, and '
                      'update the stack again') % server_id)
            time.sleep(0.5)
