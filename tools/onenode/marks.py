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

"""Marks of finished steps, and files that are either whole or absent."""

import hashlib
import os
import pathlib
import typing as ty

from onenode import plan


def write(path: pathlib.Path, text: str, mode: int = 0o644,
          group: int = 0) -> bool:
    """Make ``path`` hold ``text``; return whether anything changed."""
    try:
        status = path.stat()
        if (path.read_text() == text and status.st_gid == group
                and status.st_mode & 0o7777 == mode):
            return False
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + '.new')
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
                   'w') as file:
        file.write(text)
        os.fchown(file.fileno(), 0, group)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    return True


def get(layout: plan.Layout, step: str) -> ty.Optional[str]:
    """What the step was finished with, None if it was not."""
    try:
        return (layout.done / step).read_text()
    except FileNotFoundError:
        return None


def put(layout: plan.Layout, step: str, fingerprint: str = '') -> None:
    write(layout.done / step, fingerprint)


def drop(layout: plan.Layout, step: str) -> None:
    (layout.done / step).unlink(missing_ok=True)


def fingerprint(*paths: pathlib.Path) -> str:
    """Digest of files and of the trees below directories."""
    digest = hashlib.sha256()
    for path in paths:
        tree = [path] if path.is_file() else sorted(
            file for file in path.rglob('*')
            if file.is_file() and '__pycache__' not in file.parts)
        for file in tree:
            content = file.read_bytes()
            digest.update(f'{file} {len(content)}\n'.encode())
            digest.update(content)
    return digest.hexdigest()
