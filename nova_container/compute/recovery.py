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

"""Containers that a move set aside and a killed service left there."""

from nova.compute import vm_states
from nova import exception as nova_exception
from nova import objects
from oslo_log import log

from nova_container.compute import courier
from nova_container.runtime import engine
from nova_container.runtime import state

LOG = log.getLogger(__name__)


def sweep(context, host: str, transfers: courier.Courier) -> None:
    """Remove the containers set aside that nobody will ask for any more.

    :param host: of this service
    :param transfers: a server that was deleted on its way may be in there
    """
    for container_id in state.all_parked():
        try:
            instance = objects.Instance.get_by_uuid(context, container_id)
        except nova_exception.InstanceNotFound:
            wanted = False
            transfers.forget(container_id)
        else:
            # Of a move that failed early there is no other copy, whatever
            # state the server was given since.
            wanted = (instance.task_state is not None
                      or instance.vm_state in (vm_states.RESIZED,
                                               vm_states.ERROR)
                      or (instance.host == host
                          and not state.exists(container_id)))
        if not wanted:
            engine.discard(container_id)
            LOG.info('Container %s has moved from here for good; what was '
                     'kept of it is gone now', container_id)
