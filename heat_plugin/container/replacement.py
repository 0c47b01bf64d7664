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

"""What a container gives to its replacement, and takes back from it."""

import contextlib

from heat.common import exception
from heat.engine import resource

from heat_plugin.container import mount
from heat_plugin.container import step
from heat_plugin.container import unfinished
from heat_plugin.container import update
from heat_plugin import exposure
from heat_plugin import resolution


class Replaceable(update.Updatable):
    """A container whose names, volumes and addresses can go to another."""

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
        if isinstance(replacement, Replaceable):
            replacement._give_way()
        if isinstance(previous, Replaceable):
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
            step.carry_out(self.resource_id, [
                step.Step(lambda: True, lambda: self._find() is None)])

    def _let_go(self) -> None:
        """Give up what only one server can have.

        That is its names, its volumes, and ports and addresses that the
        template names. An interface that was made for it stays.
        """
        server = self._find()
        if server is not None and server.status == 'BUILD':
            # Its ports may come with the names until then.
            with contextlib.suppress(exception.Error):
                step.carry_out(server.id, [
                    step.Step(lambda: True, self._is_built)])
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
        mounted = [*mount.mounts(self.properties),
                   *unfinished.Unfinished.of(self).volumes]
        if mounted:
            if server.status == 'ACTIVE':
                # With its process alive a volume would be in use.
                server.stop()
            steps += [step.Step(lambda: True, self._is_stopped),
                      *map(self._detachment, mounted)]
        for port in ports:
            steps += self._disconnection(port)
        step.carry_out(server.id, steps)

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
            steps.append(step.Step(lambda: self._set_groups(props)))
        steps.append(step.Step(lambda: self._direct_floating_ip(props)))
        step.carry_out(server.id, steps)
        resolution.rename(self.client('neutron'), server.id,
                          self._hostname(props))
        mounted = mount.mounts(props)
        if mounted:
            step.carry_out(server.id, [
                *map(self._attachment, mounted),
                step.Step(lambda: self._start_again(props))])

    def _is_built(self) -> bool:
        server = self._find()
        return server is None or server.status != 'BUILD'

    def _is_stopped(self) -> bool:
        server = self._fetch()
        return server is not None and server.status == 'SHUTOFF'
