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

"""What goes wrong, in the client's words."""

from collections.abc import Iterator
import contextlib

from osc_lib import exceptions

from nova_container import exception


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Our errors, and the system's, as errors of the client's."""
    try:
        yield
    except exception.ContainerError as e:
        raise exceptions.CommandError(str(e))
    except OSError as e:
        raise exceptions.CommandError(f'{e.strerror}: {e.filename}')
