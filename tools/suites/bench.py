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


"""The command ``tools/bench``: what it needs, then ``benchmarks`` in tox."""

import os
import sys

from onenode import command
from onenode import plan

from suites import environment
from suites import suite

# Not among SUITES: it measures, and says neither passed nor failed.
_BENCH = suite.Suite('bench', 'figures', profile='bench', host=True)


def main(argv: list[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    suite.RESULTS.mkdir(exist_ok=True)
    try:
        environment.prepare(_BENCH, _BENCH.log)
        # tox itself would write of the exit status into the JSON.
        command.run([environment.TOX, 'run', '--notest', '-e', _BENCH.name],
                    log=_BENCH.log, env=command.environment())
    except plan.Failure as failure:
        print(f'tools/bench: {failure}', file=sys.stderr)
        return 1
    python = suite.REPOSITORY / '.tox' / _BENCH.name / 'bin' / 'python'
    tools = suite.REPOSITORY / 'tools'
    os.chdir(suite.REPOSITORY)
    os.execve(python, [python, '-m', 'benchmarks', *words],
              command.environment(
                  PYTHONPATH=f'{tools}:{suite.REPOSITORY}',
                  PYTHONDONTWRITEBYTECODE='1', PYTHONWARNINGS='ignore'))
