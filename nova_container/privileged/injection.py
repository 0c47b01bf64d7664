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

"""Files that a user has written into a server, once, as the container's root.
"""

import json
import os
import pathlib

from nova_container.privileged import confined
from nova_container.privileged import place
from nova_container.spec import container as container_spec
from nova_container.spec import idmap


def inject(spec: container_spec.ContainerSpec, root: str,
           ids: idmap.IdMap) -> None:
    """Write the files of a spec into its root file system, if they never were.

    :param root: where that is mounted
    :raises InvalidSpec: a path leads through what is no directory
    """
    done = place.container_state(spec.id, 'injected')
    if not spec.injected or os.path.exists(done):
        return
    files = {path: file.content for file in spec.injected
             for path in file.paths}
    with open(os.memfd_create('injected'), 'w+b') as wish:
        wish.write(json.dumps(files).encode())
        wish.seek(0)
        confined.run(f'container {spec.id}: injected file', ids, root,
                     wish.fileno(), job='inject')
    pathlib.Path(done).touch()
