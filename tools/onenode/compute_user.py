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

"""The ordinary user nova-compute runs as, and what it may do as root."""

import grp
import os
import pathlib
import pwd

from onenode import command
from onenode import marks
from onenode import plan
from onenode import template

SUDOERS = pathlib.Path('/etc/sudoers.d/nova-container-cloud')
_MARK = 'created-user'


def group_of(user: str) -> int:
    """The primary group of a user.

    :raises Failure: there is no such user.
    """
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        raise plan.Failure(f'user {user} does not exist')


def create(layout: plan.Layout, log: pathlib.Path) -> bool:
    """Create the user if it is missing."""
    try:
        group_of(plan.COMPUTE_USER)
        return False
    except plan.Failure:
        # Before the act: a user we may have made is ours to remove.
        marks.put(layout, _MARK)
    command.run(['useradd', '--system', '--user-group', '--no-create-home',
                 '--home-dir', '/nonexistent', '--shell', '/usr/sbin/nologin',
                 plan.COMPUTE_USER], log=log)
    return True


def remove(layout: plan.Layout, log: pathlib.Path) -> None:
    """Remove the user if ``create`` made it, and its rights."""
    SUDOERS.unlink(missing_ok=True)
    if marks.get(layout, _MARK) is None:
        return
    try:
        group_of(plan.COMPUTE_USER)
    except plan.Failure:
        return
    command.run(['userdel', plan.COMPUTE_USER], log=log)
    marks.drop(layout, _MARK)


def allow_rootwrap(cloud: plan.Plan, log: pathlib.Path) -> bool:
    """Let the user run nova-rootwrap with our filters as root."""
    layout = cloud.layout
    text = template.render('sudoers', {
        'compute_user': plan.COMPUTE_USER, 'etc': layout.etc,
        'stand_ins': f'{layout.stand_ins}:' if cloud.volumes else '',
        'venv': layout.venv})
    try:
        if SUDOERS.read_text() == text:
            return False
    except FileNotFoundError:
        pass
    # A broken file here would lock everybody out of sudo: check it first.
    candidate = layout.etc / 'sudoers'
    marks.write(candidate, text, 0o440)
    command.run(['visudo', '--check', '--file', candidate], log=log)
    return marks.write(SUDOERS, text, 0o440)


def own(path: pathlib.Path, mode: int) -> None:
    """Make ``path`` a directory of the compute user's."""
    user = pwd.getpwnam(plan.COMPUTE_USER)
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, user.pw_uid, grp.getgrgid(user.pw_gid).gr_gid)
    path.chmod(mode)
