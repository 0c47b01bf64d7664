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

"""Signals by name, as images and users write them."""

import re
import signal

from nova_container import exception


def number(name: str) -> int:
    """The number of ``SIGTERM``, ``TERM``, ``15`` or ``SIGRTMIN+3``.

    Names are those of signal(7).

    :raises ProcessInvalid: there is no such signal
    """
    text = name.strip().upper().removeprefix('SIG')
    if re.fullmatch(r'\d{1,2}', text) and 1 <= int(text) <= 64:
        return int(text)
    match = re.fullmatch(r'(RTMIN|RTMAX)([+-]\d{1,2})?', text)
    if match:
        found = getattr(signal, 'SIG' + match[1]) + int(match[2] or 0)
        if signal.SIGRTMIN <= found <= signal.SIGRTMAX:
            return found
    elif f'SIG{text}' in signal.Signals.__members__:
        return signal.Signals[f'SIG{text}'].value
    raise exception.ProcessInvalid(f'there is no signal {name!r}')


def name(number: int) -> str:
    """``SIGTERM``, ``SIGRTMIN+3``."""
    if number > signal.SIGRTMIN:
        return f'SIGRTMIN+{number - signal.SIGRTMIN}'
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'
