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


"""The command ``nova-container``: containers of this host, for its operator.

One module for each group of commands; ``main`` puts them together. Everything
is done as root, without Nova and without a privileged helper.
"""

import warnings

# oslo.privsep imports eventlet wherever that is installed, which then warns
# of itself. Nothing here uses it.
warnings.filterwarnings('ignore', module=r'oslo_privsep\.daemon')
