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

"""Where ``nova.virt.nova_container`` is when Nova is somewhere else.

Nova looks for drivers in ``nova.virt`` only, which is a directory: that of the
environment, where the shim is installed too; of a clone (``pip install
--editable``); or of the distribution (``/usr/lib/python3/dist-packages``
beside ``/usr/local``). Nothing is written there. A .pth file has Python import
this module when it starts, so that it imports nothing of its own.
"""

import sys

_NAME = 'nova.virt.nova_container'


class Locator:
    """A finder (importlib.abc.MetaPathFinder) of one module."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """The shim, if it was not found in the directory of ``nova.virt``."""
        if name != _NAME:
            return None
        import importlib.util
        import os
        site_packages = os.path.dirname(os.path.dirname(__file__))
        shim = os.path.join(site_packages, *_NAME.split('.'))
        return importlib.util.spec_from_file_location(
            name, os.path.join(shim, '__init__.py'),
            submodule_search_locations=[shim])


if Locator not in sys.meta_path:
    sys.meta_path.append(Locator)
