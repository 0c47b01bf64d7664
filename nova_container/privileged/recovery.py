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

"""Setting right at the start of the service what was left half done.

What cannot be set right is named in the log and stays for another time: the
other containers need the service.
"""

from collections.abc import Iterator
import contextlib

from oslo_log import log

LOG = log.getLogger(__name__)


@contextlib.contextmanager
def of(container_id: str) -> Iterator[None]:
    """Log what goes wrong with one container, and go on."""
    try:
        yield
    except Exception as e:
        LOG.error('Removing what was left half done of container %s failed: '
                  '%s; mend that, then restart nova-compute', container_id, e)
