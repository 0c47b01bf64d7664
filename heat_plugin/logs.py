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

"""What a container's process wrote, as attributes and reasons show it."""

# Characters of a log in the reason of a failure, and lines.
_REASON_CHARACTERS = 1000
_REASON_LINES = 10


def _lines(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.strip()]


def first_line(log: str) -> str:
    """The first line that is not empty; '' if there is none."""
    return next(iter(_lines(log)), '').strip()


def last_line(log: str) -> str:
    """The last line that is not empty; '' if there is none."""
    return next(reversed(_lines(log)), '').strip()


def end(log: str) -> str:
    """The last lines, without what a terminal would obey."""
    text = '\n'.join(_lines(log)[-_REASON_LINES:])[-_REASON_CHARACTERS:]
    return ''.join(c for c in text if c.isprintable() or c == '\n')
