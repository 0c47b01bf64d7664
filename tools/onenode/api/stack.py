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

"""A demo: its images in Glance, and its stack.

Reads a JSON object from stdin: demo (keyword arguments of
``openstack.connect``), images (name to path and digest), stack, template (a
path), parameters. Prints a JSON object: outputs.
"""

import json
import sys
import time
import typing as ty

import openstack
from openstack.orchestration.util import template_utils

# The digest of what an image was built from.
_SOURCE = 'nova_container_source'
_TIMEOUT = 900


def upload(demo: openstack.connection.Connection, name: str, path: str,
           digest: str) -> None:
    """Upload an image, unless the one of that name is the same."""
    found = list(demo.image.images(name=name, owner=demo.current_project_id))
    if any(image.status == 'active'
           and image.properties.get(_SOURCE) == digest for image in found):
        return
    demo.image.create_image(
        name, filename=path, disk_format='raw', container_format='docker',
        wait=True, allow_duplicates=True,
        **{'img_hv_type': 'docker', _SOURCE: digest})
    # A name that two images have is none.
    for image in found:
        demo.image.delete_image(image)


def settled(demo: openstack.connection.Connection, name: str) -> ty.Any:
    """The stack, once nothing is in progress; None if there is none."""
    end = time.monotonic() + _TIMEOUT
    while time.monotonic() < end:
        found = next(iter(demo.orchestration.stacks(name=name)), None)
        if found is None:
            return None
        # With DELETE_COMPLETE it still has its name for a moment.
        if (not found.status.endswith('IN_PROGRESS')
                and found.status != 'DELETE_COMPLETE'):
            return demo.orchestration.get_stack(found.id)
        time.sleep(1)
    sys.exit(f'stack {name} is still at work after {_TIMEOUT} s')


def reasons(demo: openstack.connection.Connection, stack: ty.Any) -> str:
    """Why its resources have failed."""
    return '\n'.join(
        [stack.status_reason, *(
            f'{resource.name}: {resource.status_reason}'
            for resource in demo.orchestration.resources(stack)
            if resource.status.endswith('FAILED'))])


def bring_up(demo: openstack.connection.Connection, name: str, template: str,
             parameters: dict[str, ty.Any]) -> ty.Any:
    """Have a stack that is as its template says."""
    files, content = template_utils.get_template_contents(
        template_file=template)
    stack = settled(demo, name)
    if stack is not None and stack.status.startswith(('CREATE_F', 'DELETE')):
        demo.orchestration.delete_stack(stack)
        if settled(demo, name) is not None:
            sys.exit(f'stack {name} cannot be deleted')
        stack = None
    if stack is None:
        demo.orchestration.create_stack(name=name, template=content,
                                        files=files, parameters=parameters)
    else:
        demo.orchestration.update_stack(stack, template=content, files=files,
                                        parameters=parameters)
    stack = settled(demo, name)
    if stack is None or not stack.status.endswith('COMPLETE'):
        sys.exit(f'stack {name}: ' + reasons(demo, stack))
    return stack


def main(wanted: dict[str, ty.Any]) -> None:
    demo = openstack.connect(**wanted['demo'])
    for name, image in wanted['images'].items():
        upload(demo, name, image['path'], image['digest'])
    stack = bring_up(demo, wanted['stack'], wanted['template'],
                     wanted['parameters'])
    print(json.dumps({'outputs': {
        entry['output_key']: entry['output_value']
        for entry in stack.outputs}}))


if __name__ == '__main__':
    main(json.load(sys.stdin))
