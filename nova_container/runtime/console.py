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

"""The console log: what the container's processes wrote.

conmon's k8s-file format is a line ``TIMESTAMP STREAM TAG TEXT``, TAG ``F`` for
a full line and ``P`` for a part whose rest follows (kubernetes CRI logging).
"""

from nova_container.privileged import console_log
from nova_container.runtime import schedule


def text(container_id: str, limit: int) -> bytes:
    """The last of what was written, about ``limit`` bytes of the log."""
    return plain(console_log.read_tail(container_id, limit), limit)


def head(container_id: str, limit: int) -> bytes:
    """The first of what was ever written, about ``limit`` bytes of the log.
    """
    log = console_log.read_head(container_id, limit)
    if not log.endswith(b'\n'):
        log = log[:log.rfind(b'\n') + 1]
    return plain(log, len(log) + 1)


def plain(log: bytes, limit: int) -> bytes:
    """The text of log lines, without a first line that was cut."""
    lines = log.split(b'\n')
    if len(log) >= limit:
        del lines[0]
    out = bytearray()
    for line in lines:
        parts = line.split(b' ', 3)
        if len(parts) == 4 and parts[2] in (b'F', b'P'):
            out += parts[3]
            if parts[2] == b'F':
                out += b'\n'
    return bytes(out)


class LogKeeper:
    """Has the files kept that conmon leaves behind; see ``console_log``."""

    _PAUSE = 10.0

    def __init__(self) -> None:
        self._schedule = schedule.Schedule(self._keep, 'container-logs')
        self._schedule.after(0, None)

    def stop(self) -> None:
        """End the thread."""
        self._schedule.stop()

    def _keep(self, _: None) -> None:
        self._schedule.after(self._PAUSE, None)
        console_log.keep_all()
