# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Running the modules of ``onenode.api``, in the virtualenv."""

import json
import pathlib
import typing as ty

from onenode import command
from onenode import plan

_TOOLS = plan.REPOSITORY / 'tools'


def call(layout: plan.Layout, module: str, wanted: dict[str, ty.Any],
         log: pathlib.Path) -> dict[str, ty.Any]:
    """What a module does; its answer, {} if it has none.

    :raises Failure: it ended with an error
    """
    before = log.stat().st_size if log.exists() else 0
    command.run([layout.bin / 'python', '-m', f'onenode.api.{module}'],
                stdin=json.dumps(wanted), log=log,
                env=command.environment(PYTHONPATH=str(_TOOLS), NO_PROXY='*',
                                        no_proxy='*'))
    with open(log, 'rb') as file:
        file.seek(before)
        last = file.read().splitlines()[-1]
    return json.loads(last) if last.startswith(b'{') else {}
