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

"""Whose signature an image must have."""

import dataclasses
from typing import Self


@dataclasses.dataclass(frozen=True)
class Trust:
    """What the signature of an archive must live up to.

    :param certificates: ids, in the key manager, of those that are trusted
        to have issued the certificate with which it was signed. None: any
        certificate will do
    """

    certificates: frozenset[str] | None = None

    @classmethod
    def of(cls, found: dict[str, list[str] | None] | None) -> Self | None:
        """From what ``as_json`` returned, if anything did."""
        if found is None:
            return None
        listed = found['certificates']
        return cls(None if listed is None else frozenset(listed))

    def as_json(self) -> dict[str, list[str] | None]:
        return {'certificates': None if self.certificates is None
                else sorted(self.certificates)}

    def met_by(self, shown: 'Trust | None') -> bool:
        """Whether an archive that has lived up to another does to this."""
        if shown is None or self.certificates is None:
            return shown is not None
        if not shown.certificates:
            return False
        # More certificates can but add to what is trusted.
        return shown.certificates <= self.certificates
