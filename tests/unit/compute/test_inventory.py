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

import os
import unittest
from unittest import mock

import os_traits

from nova_container.compute import inventory
from nova_container.compute import numa


class TraitsTest(unittest.TestCase):

    def traits(self, *flags, threads=False):
        with mock.patch.object(inventory, '_flags', autospec=True,
                               return_value=frozenset(flags)), \
                mock.patch.object(numa, 'has_threads', autospec=True,
                                  return_value=threads):
            return inventory.traits()

    def test_processors_by_the_names_that_flavors_have(self):
        found = self.traits('pni', 'sse4_2', 'avx2', 'fma', 'aes', 'sha_ni',
                            'avx512_vnni', 'constant_tsc')
        self.assertEqual(
            {os_traits.HW_CPU_X86_SSE3, os_traits.HW_CPU_X86_SSE42,
             os_traits.HW_CPU_X86_AVX2, os_traits.HW_CPU_X86_FMA3,
             os_traits.HW_CPU_X86_AESNI, os_traits.HW_CPU_X86_SHA,
             os_traits.HW_CPU_X86_AVX512VNNI,
             f'HW_ARCH_{os.uname().machine.upper()}'},
            {name for name, there in found.items() if there})

    def test_every_name_is_one_of_placements(self):
        for name in inventory._FLAGS.values():
            self.assertIn(f'HW_CPU_X86_{name}', os_traits.get_traits())

    def test_threads_of_a_core(self):
        for threads in (True, False):
            self.assertIs(threads, self.traits(threads=threads)[
                os_traits.HW_CPU_HYPERTHREADING])
        with mock.patch.object(numa, '_siblings', autospec=True) as siblings:
            siblings.return_value = [{0}, {1}]
            self.assertFalse(numa.has_threads())
            siblings.return_value = [{0, 2}, {1, 3}]
            self.assertTrue(numa.has_threads())
