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


from nova_container.image import trust
from tests.unit import base

_ANY = trust.Trust()
_NONE, _ONE, _TWO, _BOTH = (
    trust.Trust(frozenset(ids)) for ids in ('', '1', '2', '12'))


class TrustTest(base.TestCase):

    def test_what_an_archive_has_shown_is_enough(self):
        for wanted, shown in ((_ANY, _ANY), (_ANY, _ONE), (_ONE, _ONE),
                              (_BOTH, _ONE), (_BOTH, _BOTH)):
            self.assertTrue(wanted.met_by(shown), (wanted, shown))

    def test_what_an_archive_has_shown_is_not_enough(self):
        for wanted, shown in ((_ANY, None), (_ONE, None), (_ONE, _ANY),
                              (_ONE, _TWO), (_ONE, _BOTH), (_NONE, _NONE),
                              (_NONE, _ONE), (_ONE, _NONE)):
            self.assertFalse(wanted.met_by(shown), (wanted, shown))

    def test_written_and_read(self):
        for each in (_ANY, _NONE, _BOTH):
            self.assertEqual(each, trust.Trust.of(each.as_json()))
        self.assertIsNone(trust.Trust.of(None))
