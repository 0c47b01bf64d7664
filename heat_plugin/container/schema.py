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

"""What a template says of a container, and what it can ask."""

import typing as ty

from heat.common.i18n import _
from heat.engine import attributes
from heat.engine import constraints
from heat.engine import properties
from heat.engine.resources.openstack.nova import server
from heat.engine import support

from heat_plugin import exposure
from heat_plugin import readiness
from heat_plugin import words


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


class Described(server.Server):
    """Properties and attributes of a container."""

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
        # Set by handle_restore, so that a snapshot that is restored once more
        # is a change.
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
