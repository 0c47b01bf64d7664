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


"""What another process of ours is done with after it was listed."""

import os
import pathlib
from unittest import mock

from nova_container.image import record
from nova_container.image import spool
from tests.unit import base


class RecoveryTest(base.TestCase):

    def recover(self, name: str, made, lister: str) -> None:
        """Recover a directory whose only file goes once it was listed.

        :param lister: what lists it, of ``os``
        """
        file = pathlib.Path(self.directory()) / name
        file.touch()
        real = getattr(os, lister)

        def listed(path):
            found = list(real(path))
            file.unlink()
            return found

        with mock.patch.object(os, lister, listed):
            made(str(file.parent)).recover()
        self.assertFalse(file.exists())

    def test_archive(self):
        self.recover('image.part', spool.Spool, 'scandir')

    def test_record(self):
        self.recover('image.json.new', record.Images, 'listdir')
