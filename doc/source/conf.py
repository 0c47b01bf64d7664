# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

# The file is a Sphinx configuration: https://www.sphinx-doc.org

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'ext'))

extensions = [
    'cliff.sphinxext',
    'heat_resource_type',
    'openstackdocstheme',
    'oslo_config.sphinxext',
    'sphinxarg.ext',
    'sphinx_feature_classification.support_matrix',
]

project = 'nova-container'
copyright = 'nova-container developers'
root_doc = 'index'
exclude_patterns: list[str] = []

html_theme = 'openstackdocs'
openstackdocs_auto_name = False
openstackdocs_auto_version = False
openstackdocs_use_storyboard = False
pygments_style = 'native'
