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

import unittest

from nova_container.spec import idmap


class IdRangesTest(unittest.TestCase):

    def test_ranges_of_layers_and_containers_never_meet(self):
        ranges = idmap.IdRanges(1000000, 64)
        bases = [ranges.layers().outside] + [
            ranges.container(slot).outside for slot in range(1, 64)]
        self.assertEqual(64, len(set(bases)))
        for one, next_one in zip(sorted(bases), sorted(bases)[1:]):
            self.assertEqual(idmap.RANGE_SIZE, next_one - one)

    def test_shift_shows_layers_as_the_container(self):
        ranges = idmap.IdRanges(1000000, 64)
        shift = ranges.shift(3)
        self.assertEqual(ranges.layers().outside, shift.inside)
        self.assertEqual(ranges.container(3).outside, shift.outside)

    def test_slot_outside_the_range(self):
        for slot in (-1, 64):
            self.assertRaises(ValueError,
                              idmap.IdRanges(1000000, 64).base, slot)
