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

"""Extra specs of the namespace ``container``, as Nova's API validates them.

Entry point ``nova.api.extra_spec_validators``. With one name of a namespace
registered, Nova refuses every other name in it, so a typo is told when the
flavor is made. The ``quota`` namespace is Nova's own.
"""

from nova.api.validation.extra_specs import base

EXTRA_SPEC_VALIDATORS = [
    base.ExtraSpecValidator(
        name='container:pids_limit',
        description=(
            'The largest number of processes and threads of a container. '
            'The compute node\'s option ``[container] pids_limit`` holds '
            'where it is not set. Only supported by the container virt '
            'driver.'
        ),
        value={'type': int, 'min': 1, 'max': 4194304},
    ),
    base.ExtraSpecValidator(
        name='container:open_files',
        description=(
            'The largest number of files that a process of a container may '
            'have open (``RLIMIT_NOFILE``). The compute node\'s own limit '
            'holds where it is less. Only supported by the container virt '
            'driver.'
        ),
        value={'type': int, 'min': 16, 'max': 1 << 30},
    ),
    base.ExtraSpecValidator(
        name='container:privileged',
        description=(
            'Whether a container has every capability and no filter of '
            'system calls, within its user namespace. Needs the compute '
            'node\'s option ``[container] privileged_allowed``. Only '
            'supported by the container virt driver.'
        ),
        value={'type': bool},
    ),
    base.ExtraSpecValidator(
        name='container:nesting',
        description=(
            'Whether a container runtime can work inside a container. Needs '
            'the compute node\'s option ``[container] nesting_allowed``. '
            'Only supported by the container virt driver.'
        ),
        value={'type': bool},
    ),
]


def register() -> list[base.ExtraSpecValidator]:
    """What Nova calls."""
    return EXTRA_SPEC_VALIDATORS
