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

"""Changes of a container in place."""

import copy
import dataclasses
import typing as ty

from heat_plugin.container import mount
from heat_plugin.container import network
from heat_plugin.container import nova
from heat_plugin.container import step
from heat_plugin.container import unfinished
from heat_plugin import readiness


@dataclasses.dataclass(frozen=True)
class _Update:
    """An update under way."""

    steps: list[step.Step]
    waiting: readiness.Waiting


class Updatable(network.Networked):
    """A container that is changed where it is."""

    def needs_replace_with_prop_diff(self, changed_properties_set,
                                     after_props, before_props):
        for name, policy in ((self.FLAVOR, self.FLAVOR_UPDATE_POLICY),
                             (self.IMAGE, self.IMAGE_UPDATE_POLICY)):
            if (name in changed_properties_set
                    and after_props[policy] == 'REPLACE'):
                return True
        # Nova resizes what runs.
        return (self.FLAVOR in changed_properties_set
                and nova.wanted(after_props).exit_code is not None)

    def _needs_update(self, *args, **kwargs):
        # Heat compares with the last update that succeeded.
        return (super()._needs_update(*args, **kwargs)
                or unfinished.KEY in self.data())

    def handle_update(self, json_snippet, tmpl_diff, prop_diff):
        if tmpl_diff.metadata_changed():
            self.metadata_set(json_snippet.metadata())
        after = json_snippet.properties(self.properties_schema, self.context)
        earlier = unfinished.Unfinished.of(self)
        changed = earlier.names | frozenset(prop_diff)
        mounted = [*mount.mounts(self.properties), *earlier.volumes]
        volumes = mount.mounts(after)
        known = earlier.metadata.union(self._metadata(self.properties))
        unfinished.Unfinished(
            changed, (*mounted, *volumes),
            known.union(self._metadata(after))).keep(self)

        server = self.client_plugin().get_server(self.resource_id)
        steps = [self._detachment(volume) for volume in mounted
                 if volume not in volumes]
        if self.NAME in changed:
            server.update(name=after[self.NAME]
                          or self.physical_resource_name())
        steps += self._steps_of_network(server, changed, after)
        if self.FLAVOR in changed and not self._has_flavor(server, after):
            steps += [self._step_of(progress)
                      for progress in self._update_flavor(after)]
        if changed & self.REBUILDING:
            steps.append(self._rebuilding(after))
        elif changed & {self.METADATA, self.VOLUMES}:
            steps.append(step.Step(
                lambda: self._update_metadata(known, after)))
        if self.VOLUMES in changed:
            steps += [self._attachment(volume) for volume in volumes]
        steps.append(step.Step(lambda: self._start_again(after)))
        return _Update(steps, self._waiting(after))

    def check_update_complete(self, update):
        if not all(each.is_done() for each in update.steps):
            return False
        return self._is_ready(update.waiting) and self._forget_unfinished()

    def _forget_unfinished(self) -> bool:
        """Note that creation or update has succeeded; True."""
        self.data_delete(unfinished.KEY)
        return True

    def _steps_of_network(self, server, changed, after) -> list[step.Step]:
        steps = []
        if changed & {self.SECURITY_GROUPS, self.EXPOSE, self.NETWORKS}:
            self._open_ports(after)
            if self.NETWORKS in changed:
                steps += self._steps_of_interfaces(server, after)
            steps.append(step.Step(lambda: self._set_groups(after)))
        if changed & {self.FLOATING_NETWORK, self.NETWORKS}:
            steps.append(step.Step(lambda: self._direct_floating_ip(after)))
        return steps

    def _steps_of_interfaces(self, server, after) -> list[step.Step]:
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
        ports = {each[self.NETWORK_PORT]: each for each in known}
        return [ports.get(interface.port_id) or {
            self.NETWORK_PORT: interface.port_id,
            self.NETWORK_ID: interface.net_id} for interface in interfaces]

    def _disconnection(self, port: str) -> list[step.Step]:
        plugin = self.client_plugin()

        def is_gone() -> bool:
            # Nova deletes those that it has made.
            with self.client_plugin('neutron').ignore_not_found:
                return plugin.check_interface_detach(self.resource_id, port)
            return True

        return [
            step.Step(
                lambda: plugin.interface_detach(self.resource_id, port),
                is_gone),
            step.Step(lambda: self._forget_port(port))]

    def _connection(self, port_id=None, **wanted) -> step.Step:
        plugin = self.client_plugin()
        return step.Step(
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

    def _step_of(self, progress) -> step.Step:
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

        return step.Step(start, check)

    def _attachment(self, mounted: mount.Mount) -> step.Step:
        return step.Step(
            lambda: self._attach(mounted.volume),
            lambda: self.client('cinder').volumes.get(
                mounted.volume).status == 'in-use')

    def _attach(self, volume: str) -> bool:
        plugin = self.client_plugin()
        return (not plugin.check_detach_volume_complete(self.resource_id,
                                                        volume)
                or bool(plugin.attach_volume(self.resource_id, volume, None)))

    def _detachment(self, mounted: mount.Mount) -> step.Step:
        plugin = self.client_plugin()
        return step.Step(
            lambda: plugin.detach_volume(self.resource_id, mounted.volume),
            lambda: plugin.check_detach_volume_complete(self.resource_id,
                                                        mounted.volume))

    def _update_metadata(self, known: frozenset[str], after) -> bool:
        server = self._fetch()
        if server is None:
            return False
        servers, wanted = self.client().servers, self._metadata(after)
        gone = sorted((known & server.metadata.keys()) - wanted.keys())
        if gone:
            servers.delete_meta(self.resource_id, gone)
        if wanted:
            servers.set_meta(self.resource_id, wanted)
        return True

    def _rebuilding(self, after) -> step.Step:
        stopped = False

        def start() -> bool:
            nonlocal stopped
            server = self._fetch()
            if server is None:
                return False
            stopped = server.status == 'SHUTOFF'
            self.data_delete(nova.LOGS_HEAD_KEY)
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

        return step.Step(start, check)

    def _start_again(self, after) -> bool:
        """Start what has ended, unless it has ended as it should."""
        server = self._fetch()
        if server is None:
            return False
        observed = nova.observation(server)
        if observed.state == 'exited' and (
                observed.exit_code is None
                or observed.exit_code != nova.wanted(after).exit_code):
            self.client().servers.delete_meta(
                self.resource_id, [key for key in server.metadata
                                   if key in readiness.ENDED])
            server.start()
        return True
