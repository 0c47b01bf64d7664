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

"""``NovaContainer::Compose``: a Compose file as a stack of containers."""

import collections.abc
import contextlib
import json
import typing as ty

from heat.common import exception
from heat.common.i18n import _
from heat.engine import attributes
from heat.engine.clients.os import glance
from heat.engine import constraints
from heat.engine import properties
from heat.engine.resources import stack_resource
from heat.engine import support
from oslo_utils import timeutils

from heat_plugin.compose import document
from heat_plugin.compose import model
from heat_plugin.compose import template
from heat_plugin import words

# Key of the resource's data: the nested stack's snapshot.
_SNAPSHOT = 'snapshot'


class Compose(stack_resource.StackResource):
    """The services of a Compose file, as a nested stack.

    Every container of a service is a resource NovaContainer::Container that
    has the service's name, by which the others reach it; further replicas
    are NAME-2, NAME-3 and so on. The file has to be as the Compose
    specification says. What has no meaning for containers of Nova is refused
    with its line.
    """

    PROPERTIES = (
        FILE, VARIABLES, ENV_FILES, IMAGES, FLAVOR, NETWORK, ROUTER,
        FLOATING_NETWORK, VOLUME_SIZE, SCALE, PROFILES, RESTORED,
    ) = (
        'file', 'environment', 'env_files', 'images', 'flavor', 'network',
        'router', 'floating_network', 'volume_size', 'scale', 'profiles',
        'restored',
    )

    ATTRIBUTES = (
        ADDRESSES, FLOATING_IPS, STATES,
    ) = (
        'addresses', 'floating_ips', 'states',
    )

    properties_schema = {
        FILE: properties.Schema(
            properties.Schema.STRING,
            _('Text of the Compose file, by get_file for instance.'),
            required=True, update_allowed=True),
        VARIABLES: properties.Schema(
            properties.Schema.MAP,
            _('Variables for interpolation in the file, and for those of an '
              'environment that have no value.'),
            default={}, update_allowed=True),
        ENV_FILES: properties.Schema(
            properties.Schema.MAP,
            _('Texts of the files that env_file names, by these names.'),
            default={}, update_allowed=True),
        IMAGES: properties.Schema(
            properties.Schema.MAP,
            _('Names or ids of images in Glance, by those in the file. By '
              'default an image has the name in the file, without :latest.'),
            default={}, update_allowed=True),
        FLAVOR: properties.Schema(
            properties.Schema.STRING,
            _('Flavor of services without limits. One that has '
              'deploy.resources.limits gets the smallest flavor with as many '
              'processors and as much memory.'),
            constraints=[constraints.CustomConstraint('nova.flavor')],
            required=True, update_allowed=True),
        NETWORK: properties.Schema(
            properties.Schema.STRING,
            _("The file's default network. Without it, one is created."),
            constraints=[constraints.CustomConstraint('neutron.network')],
            update_allowed=True),
        ROUTER: properties.Schema(
            properties.Schema.STRING,
            _('Router for the networks that are created. By default they get '
              'one of their own if there is a floating_network.'),
            constraints=[constraints.CustomConstraint('neutron.router')],
            update_allowed=True),
        FLOATING_NETWORK: properties.Schema(
            properties.Schema.STRING,
            _('External network: services with ports get a floating IP '
              'of it.'),
            constraints=[constraints.CustomConstraint('neutron.network')],
            update_allowed=True),
        VOLUME_SIZE: properties.Schema(
            properties.Schema.INTEGER,
            _('Size in GiB of volumes that have no driver_opts.size.'),
            constraints=[constraints.Range(min=1)],
            default=1, update_allowed=True),
        SCALE: properties.Schema(
            properties.Schema.MAP,
            _('Number of containers, by service, instead of what the file '
              'says.'),
            default={}, update_allowed=True),
        PROFILES: properties.Schema(
            properties.Schema.LIST,
            _('Active profiles.'),
            schema=properties.Schema(properties.Schema.STRING),
            default=[], update_allowed=True),
        # Of handle_restore.
        RESTORED: properties.Schema(
            properties.Schema.MAP,
            _('Snapshot of the nested stack, and when it was restored.'),
            support_status=support.SupportStatus(support.HIDDEN),
            update_allowed=True),
    }

    attributes_schema = {
        ADDRESSES: attributes.Schema(
            _('First address of each container, by name.'),
            type=attributes.Schema.MAP),
        FLOATING_IPS: attributes.Schema(
            _('Floating IP of each container that has one, by name.'),
            type=attributes.Schema.MAP),
        STATES: attributes.Schema(
            _('State of each container, by name.'),
            type=attributes.Schema.MAP,
            cache_mode=attributes.Schema.CACHE_NONE),
    }

    def child_params(self):
        return {}

    def child_template(self):
        """The template of the nested stack.

        :raises StackValidationFailed: names the property, and the line
        """
        place = self._place(self.properties)
        with self._named():
            return template.write(self._application(), place)

    def validate_nested_stack(self):
        # The text may come from a resource that is still to be created.
        if self.properties[self.FILE] is None:
            return
        super().validate_nested_stack()
        self._check_images()

    def _check_images(self) -> None:
        """Heat leaves the values of a nested stack's properties alone.

        :raises StackValidationFailed: names the service, and the line
        """
        place = self._place(self.properties)
        constraint = glance.ImageConstraint()
        with self._named():
            application = self._application()
            for service in application.services.values():
                name = place.image(service)
                if not constraint.validate(name, self.context):
                    raise application.refused(
                        f'Glance has no image {name}, or several', 'services',
                        service.name, 'image')

    def _application(self) -> model.Application:
        return model.read(self.properties[self.FILE] or '',
                          self._surroundings(self.properties))

    @contextlib.contextmanager
    def _named(self) -> collections.abc.Iterator[None]:
        """What is refused in the file, as Heat says it."""
        try:
            yield
        except document.Refused as error:
            raise self._invalid(self.FILE, str(error))

    def _invalid(self, name: str,
                 message: str) -> exception.StackValidationFailed:
        return exception.StackValidationFailed(
            error='Property error',
            path=[self.stack.t.RESOURCES, self.t.name, 'properties', name],
            message=message)

    def _texts(self, props, name: str, unknown: str = '') -> dict[str, str]:
        """A map's values as texts.

        :param unknown: instead of those that a resource will have once it is
            created
        :raises StackValidationFailed: one is neither text nor number
        """
        missing = unknown if self.action == self.INIT else ''
        try:
            return {key: missing if value is None else words.text(value)
                    for key, value in (props[name] or {}).items()}
        except ValueError as error:
            raise self._invalid(name, str(error))

    def _surroundings(self, props) -> model.Surroundings:
        scale = self._texts(props, self.SCALE, unknown='1')
        for name, number in scale.items():
            if not number.isdigit() or len(number) > 4:
                raise self._invalid(
                    self.SCALE, f'{name}: {number!r} is not a small number')
        return model.Surroundings(
            variables=self._texts(props, self.VARIABLES, unknown='unknown'),
            env_files=self._texts(props, self.ENV_FILES),
            scale={name: int(number) for name, number in scale.items()},
            profiles=frozenset(props[self.PROFILES] or ()))

    def _place(self, props) -> template.Place:
        return template.Place(
            flavor=props[self.FLAVOR],
            flavors=tuple(
                template.Flavor(flavor.ram, flavor.vcpus, flavor.disk,
                                flavor.name)
                for flavor in self.client('nova').flavors.list()),
            network=props[self.NETWORK],
            router=props[self.ROUTER],
            floating_network=props[self.FLOATING_NETWORK],
            images=self._texts(props, self.IMAGES),
            volume_size=props[self.VOLUME_SIZE])

    def handle_create(self):
        return self.create_with_template(self.child_template(), {})

    def handle_update(self, json_snippet, tmpl_diff, prop_diff):
        self.properties = json_snippet.properties(self.properties_schema,
                                                  self.context)
        restored = self.properties[self.RESTORED]
        if restored and self.stack.action == self.stack.RESTORE:
            self.rpc_client().stack_restore(
                self.context, dict(self.nested_identifier()),
                restored[_SNAPSHOT])
            return {'target_action': self.stack.RESTORE}
        return self.update_with_template(self.child_template(), {})

    def handle_adopt(self, resource_data=None):
        """Take over what a nested stack had.

        :raises Error: it is not said what that is
        """
        if not resource_data:
            raise exception.Error(_('There is no data of a nested stack for '
                                    '%s.') % self.name)
        return self.create_with_template(self.child_template(), {},
                                         adopt_data=resource_data)

    def handle_snapshot(self):
        nested = dict(self.nested_identifier())
        made = self.rpc_client().stack_snapshot(
            self.context, nested, self.physical_resource_name())
        self.data_set(_SNAPSHOT, json.dumps({'stack': nested,
                                             'id': made['id']}))

    def check_snapshot_complete(self, cookie=None):
        return self._check_status_complete(self.SNAPSHOT)

    def handle_delete_snapshot(self, snapshot):
        found = _snapshot(snapshot)
        if found is not None:
            client = self.rpc_client()
            with (client.ignore_error_by_name('EntityNotFound'),
                  client.ignore_error_by_name('SnapshotNotFound')):
                client.delete_snapshot(self.context, found['stack'],
                                       found['id'])

    def handle_restore(self, defn, restore_data):
        """The definition with the snapshot that the nested stack made."""
        found = _snapshot(restore_data)
        if found is None:
            return defn
        return defn.freeze(properties={
            **{name: value for name, value in self.properties.data.items()
               if value is not None},
            self.RESTORED: {_SNAPSHOT: found['id'],
                            'at': timeutils.utcnow().isoformat()}})


def _snapshot(data: dict[str, ty.Any] | None) -> dict[str, ty.Any] | None:
    """Snapshot and identity of the nested stack, as handle_snapshot kept it.
    """
    kept = ((data or {}).get('resource_data') or {}).get(_SNAPSHOT)
    return None if kept is None else json.loads(kept)
