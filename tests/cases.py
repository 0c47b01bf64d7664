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

"""How many cases a property-based test tries.

``HYPOTHESIS_PROFILE=slow`` tries ten thousand of each.
"""

import os

import hypothesis

_SLOW = 10000


def cases(count: int) -> hypothesis.settings:
    """``count`` cases, or many more in the slow profile."""
    slow = os.environ.get('HYPOTHESIS_PROFILE') == 'slow'
    return hypothesis.settings(max_examples=_SLOW if slow else count,
                               deadline=None)
