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

"""A container as a server of Nova."""

import collections.abc
import contextlib
import typing as ty

from heat.common import exception
from oslo_utils import uuidutils

from heat_plugin.container import schema
from heat_plugin import logs
from heat_plugin import readiness
from heat_plugin import words

# The section of the resource's data with the first line of the log.
LOGS_HEAD_KEY = 'logs_head'


def wanted(props) -> readiness.Wanted:
    """What a container has to be for its resource to be complete.

    :raises ValueError: ``wait_for`` is no condition
    """
    return readiness.Wanted.parse(props[schema.Described.WAIT_FOR])


def observation(server: ty.Any) -> readiness.Observation:
    """What matters of a novaclient server."""
    return readiness.Observation(
        # Some clouds append words in parentheses.
        status=server.status.partition('(')[0],
        power_state=getattr(server, 'OS-EXT-STS:power_state', None),
        metadata=server.metadata)


class NovaServer(schema.Described):
    """What Nova is told of a container, and what it says."""

    def _hostname(self, props) -> str:
        """The host name: as asked for, or that of the resource."""
        return props[self.HOSTNAME] or ''.join(
            c if c.isascii() and c.isalnum() else '-'
            for c in self.name).strip('-')[:63] or 'container'

    def _metadata(self, props) -> dict[str, str]:
        return {**self.client_plugin().meta_serialize(
            props[self.METADATA] or {}), **self._said(props).metadata}

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

    def _said(self, props) -> words.Said:
        with self._named():
            return words.of(props)

    def _user_data(self, props) -> str | None:
        found = self._said(props).user_data
        return (self.get_software_config(found)
                if uuidutils.is_uuid_like(found) else found)

    def _fetch(self) -> ty.Any:
        """The server; None while Nova does not answer.

        :raises ResourceInError: it is in status ERROR
        """
        found = self.client_plugin().fetch_server(self.resource_id)
        if found is not None and found.status == 'ERROR':
            self.client_plugin()._check_active(found)
        return found

    def _find(self) -> ty.Any:
        """The server, in whatever status; None if there is none."""
        if self.resource_id is not None:
            with self.client_plugin().ignore_not_found:
                return self.client().servers.get(self.resource_id)
        return None

    def log(self) -> str:
        """What the process wrote, as far as Nova keeps it."""
        return self.client().servers.get_console_output(self.resource_id)

    def _waiting(self, props=None) -> readiness.Waiting:
        return readiness.Waiting(wanted(props or self.properties))

    def _is_ready(self, waiting: readiness.Waiting) -> bool:
        """Whether the container is what is waited for.

        :raises Error: it will not become so
        """
        server = self._fetch()
        if server is None:
            return False
        try:
            if not waiting.is_over(observation(server)):
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
        if self.data().get(LOGS_HEAD_KEY):
            return True
        first = logs.first_line(self.log())
        if first:
            self.data_set(LOGS_HEAD_KEY, first, redact=True)
        return bool(first)
