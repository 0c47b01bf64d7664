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

"""Check a container's health, and keep what was found with it."""

import json
import os

from nova_container import exception
from nova_container.privileged import cgroup
from nova_container.privileged import container
from nova_container.privileged import context
from nova_container.privileged import definition
from nova_container.privileged import execution
from nova_container.privileged import place
from nova_container.spec import codec
from nova_container.spec import command
from nova_container.spec import health

_OUTPUT_MAX = 4096


@context.entrypoint
def check(container_id: str) -> str:
    """Run the container's own check once.

    :returns: the status it has from now on
    :raises StateConflict: it does not run, is paused before the check has
        ended, or has no check
    """
    wish = definition.load(container_id).health
    if wish is None:
        raise exception.StateConflict(
            f'container {container_id} has no health check')
    init = container.require_process(container_id)
    try:
        done = execution.run(
            container_id, codec.encode(command.Command(wish.test)),
            wish.timeout, _OUTPUT_MAX)
        exit_code = done['exit_code']
        output = (done['stdout'] + done['stderr'])[:_OUTPUT_MAX].decode(
            errors='replace')
        if exit_code is None:
            output += f'no answer within {wish.timeout:g} s'
    except (exception.ProcessInvalid, exception.StateConflict,
            exception.RuntimeFailed) as e:
        exit_code, output = -1, e.message
    with definition.locked(container_id):
        # It may have ended because of the container's own end.
        if container.require_process(container_id) != init:
            raise exception.StateConflict(
                f'container {container_id} was started anew')
        if exit_code != 0 and cgroup.frozen(container_id):
            raise exception.StateConflict(
                f'container {container_id} was paused meanwhile')
        path = place.container_run(container_id, 'health.json')
        found = read(container_id).after(wish, exit_code, output,
                                         container.uptime(container_id))
        definition.write(path, json.dumps(codec.encode(found)), 0o640,
                         group=os.stat(place.state('spool')).st_gid)
    return found.status


def read(container_id: str) -> health.Health:
    """What the checks have found since the container was started."""
    try:
        with open(place.container_run(container_id, 'health.json')) as file:
            return codec.decode(health.Health, json.load(file))
    except FileNotFoundError:
        return health.Health()
