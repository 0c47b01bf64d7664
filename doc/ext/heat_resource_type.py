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

"""``.. heat-resource-type:: TYPE``: a section about a resource type of Heat.

It is made of the class that Heat loads: its docstring, and the schemata by
which Heat itself judges a template.
"""

import collections.abc as cabc
import inspect
import json
import typing as ty

from docutils import nodes
from heat.engine import constraints
from heat.engine import support
from sphinx.application import Sphinx
from sphinx.util import docutils
from sphinx.util import logging

from heat_plugin.plugins import nova_container as plugin

_LOG = logging.getLogger(__name__)


def _literal(value: ty.Any) -> nodes.literal:
    text = value if isinstance(value, str) else json.dumps(value)
    return nodes.literal(text, text)


def _listed(words: cabc.Iterable[ty.Any]) -> list[nodes.Node]:
    """Literals with commas between them."""
    found: list[nodes.Node] = []
    for word in words:
        found += [nodes.Text(', '), _literal(word)]
    return found[1:]


def _allowed(schema: constraints.Schema
             ) -> cabc.Iterator[tuple[str, list[nodes.Node]]]:
    """What its constraints say, as names and bodies of fields."""
    for constraint in schema.constraints:
        match constraint:
            case constraints.AllowedValues():
                yield 'One of', _listed(constraint.allowed)
            case constraints.AllowedPattern():
                yield 'Pattern', [_literal(constraint.pattern)]
            case constraints.CustomConstraint():
                yield 'Refers to', [_literal(constraint.name)]
            case _:
                yield 'Value', [nodes.Text(str(constraint))]


def _children(schema: constraints.Schema
              ) -> cabc.Mapping[str, constraints.Schema]:
    """Schemata of the keys of a map, or of the maps in a list."""
    found = schema.schema
    if schema.type == schema.LIST and found:
        found = found[0].schema
    return found or {}


def _type(schema: constraints.Schema) -> str:
    if schema.type == schema.LIST and schema.schema:
        return f'list of {schema.schema[0].type}s'.lower()
    return (schema.type or 'any').lower()


class ResourceType(docutils.SphinxDirective):
    """Describe a resource type of the plugin."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        try:
            described = plugin.resource_mapping()[name]
        except KeyError:
            raise self.error(f'the plugin has no resource type {name}')
        section = self._section(
            name, name, *self.parse_text_to_nodes(inspect.getdoc(described)))
        section += self._section(
            'Properties', f'{name} properties', self._schemata(
                described.properties_schema, f'{name} property',
                lambda key, schema: self._property(described, key, schema)))
        section += self._section(
            'Attributes', f'{name} attributes', self._schemata(
                {**described.attributes_schema,
                 **described.base_attributes_schema}, f'{name} attribute'))
        return [section]

    def _section(self, title: str, name: str,
                 *content: nodes.Node) -> nodes.section:
        section = nodes.section('', nodes.title(title, title), *content,
                                ids=[nodes.make_id(name)])
        self.set_source_info(section)
        return section

    def _schemata(self, schemata: cabc.Mapping[str, constraints.Schema],
                  name: str,
                  fields: cabc.Callable[..., cabc.Iterator[tuple[
                      str, list[nodes.Node]]]] | None = None
                  ) -> nodes.definition_list:
        """A list of properties, of their keys, or of attributes.

        :param fields: further fields, by key and schema
        """
        found = nodes.definition_list()
        for key, schema in schemata.items():
            if schema.support_status.status != support.SUPPORTED:
                continue
            if not schema.description:
                _LOG.warning('%s %s has no description', name, key,
                             location=self.get_location())
            body = [nodes.paragraph('', schema.description or '')]
            stated = list(_allowed(schema))
            if fields is not None:
                stated += fields(key, schema)
            if stated:
                body.append(nodes.field_list('', *(nodes.field(
                    '', nodes.field_name(label, label),
                    nodes.field_body('', nodes.paragraph('', '', *content)))
                    for label, content in stated)))
            children = _children(schema)
            if children:
                body.append(self._schemata(children, f'{name} {key}',
                                           self._default))
            item = nodes.definition_list_item(
                '', nodes.term('', '', _literal(key), ids=[
                    nodes.make_id(f'{name} {key}')]),
                nodes.classifier('', _type(schema)),
                nodes.definition('', *body))
            self.set_source_info(item)
            found += item
        return found

    def _default(self, key: str, schema: constraints.Schema
                 ) -> cabc.Iterator[tuple[str, list[nodes.Node]]]:
        if schema.required:
            yield 'Required', [nodes.Text('yes')]
        elif schema.default not in (None, [], {}):
            yield 'Default', [_literal(schema.default)]

    def _property(self, described: type, key: str, schema: constraints.Schema
                  ) -> cabc.Iterator[tuple[str, list[nodes.Node]]]:
        yield from self._default(key, schema)
        effect = 'in place' if schema.update_allowed else 'by replacement'
        if key in getattr(described, 'REBUILDING', ()):
            effect = 'in place: Nova builds the server anew'
        yield 'Update', [nodes.Text(effect)]


def setup(app: Sphinx) -> dict[str, ty.Any]:
    """What Sphinx calls."""
    app.add_directive('heat-resource-type', ResourceType)
    return {'parallel_read_safe': True}
