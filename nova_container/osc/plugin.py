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

"""What the OpenStack client loads (entry point ``openstack.cli.extension``).

The contract is that of osc-lib: "Plugins" in the documentation of
python-openstackclient.
"""

import argparse

from nova_container.osc import glance

API_NAME = 'container_image'
API_VERSION_OPTION = 'os_container_image_api_version'
DEFAULT_API_VERSION = '1'
API_VERSIONS = {'1': 'nova_container.osc.glance.Glance'}


def make_client(instance) -> glance.Glance:
    """The client of all commands.

    :param instance: the client manager of the OpenStack client
    """
    return glance.Glance(instance.sdk_connection)


def build_option_parser(parser: argparse.ArgumentParser
                        ) -> argparse.ArgumentParser:
    """No options of its own: there is one version."""
    return parser
