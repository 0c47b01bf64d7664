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

"""The directive ``resource-type``: a type of Heat's, as its class has it."""

from collections.abc import Iterator

from heat.engine import constraints
from heat_plugin.plugins import nova_container
from sphinx.util import docutils
from sphinx.util import rst


def _constraint(constraint: constraints.Constraint) -> str:
    match constraint:
        case constraints.AllowedValues():
            return 'one of ' + ', '.join(
                f'``{value}``' for value in constraint.allowed)
        case constraints.AllowedPattern():
            return f'matches ``{constraint.pattern}``'
        case constraints.Range() | constraints.Length():
            bounds = ', '.join(
                f'{word} {bound}' for word, bound in (
                    ('at least', constraint.min), ('at most', constraint.max))
                if bound is not None)
            return ('' if isinstance(constraint, constraints.Range)
                    else 'length ') + bounds
        case constraints.CustomConstraint():
            return constraint.name
    raise ValueError(f'{constraint} is not known here')


def _facts(schema) -> str:
    words = [str(schema.type).lower()]
    if schema.required:
        words.append('required')
    if schema.default is not None:
        words.append(f'default ``{schema.default}``')
    words += map(_constraint, schema.constraints or ())
    if schema.update_allowed:
        words.append('can be updated')
    return '; '.join(words)


def _property(name: str, schema) -> Iterator[str]:
    yield f'``{name}``'
    yield f'    {_facts(schema)}'
    yield ''
    yield f'    {rst.escape(str(schema.description or ""))}'
    yield ''
    for inner, its in (schema.schema or {}).items():
        # A list has one schema, of whatever is in it.
        yield from (f'    {line}' for line in (
            _property(inner, its) if inner != '*' else (
                line for key, value in (its.schema or {}).items()
                for line in _property(key, value))))


class ResourceType(docutils.SphinxDirective):
    """Properties and attributes of the type that is the argument."""

    required_arguments = 1

    def run(self):
        cls = nova_container.resource_mapping()[self.arguments[0]]
        lines = ['.. rubric:: Properties', '']
        for name in cls.PROPERTIES:
            lines += _property(name, cls.properties_schema[name])
        lines += ['.. rubric:: Attributes', '']
        for name in cls.ATTRIBUTES:
            lines += (f'``{name}``', '    ' + rst.escape(str(
                cls.attributes_schema[name].description)), '')
        return self.parse_text_to_nodes('\n'.join(lines))


def setup(app):
    """What Sphinx calls."""
    app.add_directive('resource-type', ResourceType)
    return {'parallel_read_safe': True}
