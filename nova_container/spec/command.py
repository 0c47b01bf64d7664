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

"""A command to run in a container that runs already."""

import dataclasses

from nova_container.spec import container


@dataclasses.dataclass(frozen=True)
class Command:
    """What to run beside the container's own process.

    :param args: command and arguments, at least one
    :param env: pairs of name and value, added to the container's
    :param cwd: absolute directory; None for the container's own
    :param user: ``user[:group]``; None for the container's own
    """

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    user: str | None = None

    def within(self, process: container.Process) -> container.Process:
        """The whole process, completed from the container's own.

        :raises ProcessInvalid: the command makes no sense
        """
        return dataclasses.replace(
            process, args=self.args,
            env=(*process.env, *self.env),
            cwd=process.cwd if self.cwd is None else self.cwd,
            user=process.user if self.user is None else self.user)
