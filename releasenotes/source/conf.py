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

from reno import scanner

extensions = [
    'openstackdocstheme',
    'reno.sphinxext',
]

project = 'nova-container release notes'
copyright = 'nova-container developers'
root_doc = 'index'

html_theme = 'openstackdocs'
openstackdocs_auto_name = False
openstackdocs_auto_version = False
pygments_style = 'native'


class _Aggregator(scanner._ChangeAggregator):
    """Takes merges that changed a note, as the history has some.

    Such a change is told once for each parent, and reno 4.1 gives up where
    the note was new to one of them.
    """

    def aggregate_changes(self, walk_entry, changes):
        return super().aggregate_changes(walk_entry, [
            next((each for each in change if each.type == 'modify'), change[0])
            if isinstance(change, list) else change for change in changes])


scanner._ChangeAggregator = _Aggregator
