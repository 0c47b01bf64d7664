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

"""Directories that a layer has only because of what it has below them.

A tar need not name them. Unpacked over the layers below ("Applying
Changesets", layer.md of the OCI image specification) they stay what they are
there; in an overlay the one made for this layer would hide their owner and
mode. So the writable layer of a new container gets them as they should be.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import os
import stat

from nova_container.layer import diff

# In the work directory, a directory that is not yet what it is to be.
UNFINISHED = 'unfinished'


@dataclasses.dataclass(frozen=True)
class Layer:
    """A directory of an overlay.

    :param tree: its path; nobody changes it meanwhile
    :param implied: the directories it was not told of
    """

    tree: str
    implied: frozenset[str] = frozenset()


def provide(layers: Sequence[Layer], upper: str, work: str,
            shift: int) -> None:
    """Make the directories in ``upper`` that layers hide by mistake.

    What is in ``upper`` already counts, and is not changed. To be called while
    the overlay is not mounted; again is as good as once.

    :param layers: from top to bottom
    :param work: a directory beside ``upper`` that nobody else writes to
    :param shift: from the owner's id in a layer to that in ``upper``
    """
    stack = (Layer(upper), *layers)
    paths = set[str]().union(*(layer.implied for layer in layers))
    for path in sorted(paths):
        if _hidden(stack, path) is None:
            continue
        for each in _from_the_top(path):
            if _look(upper, each)[0] is None:
                _make(os.path.join(upper, each), work,
                      _hidden(stack, each) or _top(stack, each), shift)


def _from_the_top(path: str) -> Iterator[str]:
    parts = path.split('/')
    for number in range(len(parts)):
        yield '/'.join(parts[:number + 1])


def _hidden(stack: Sequence[Layer], path: str) -> os.stat_result | None:
    """What a directory should be that is made up, and something else."""
    shown = None
    for layer in stack:
        found, hides = _look(layer.tree, path)
        if found is not None:
            shown = shown or found
            if path not in layer.implied:
                return None if _same(shown, found) else found
        if hides:
            break
    return None


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return ((one.st_mode, one.st_uid, one.st_gid)
            == (other.st_mode, other.st_uid, other.st_gid))


def _top(stack: Sequence[Layer], path: str) -> os.stat_result:
    """What a directory is, of which there is at least one."""
    return next(found for found, _ in (
        _look(layer.tree, path) for layer in stack) if found is not None)


def _look(tree: str, path: str) -> tuple[os.stat_result | None, bool]:
    """A directory in a tree, and whether the tree hides those below it.

    What an opaque directory hides is its content, not what it is itself.
    """
    found, hides = None, False
    for each in _from_the_top(path):
        hides = hides or (found is not None and diff.is_opaque(
            os.fsencode(os.path.join(tree, os.path.dirname(each)))))
        try:
            found = os.lstat(os.path.join(tree, each))
        except FileNotFoundError:
            return None, hides
        if not stat.S_ISDIR(found.st_mode):
            return None, True
    return found, hides


def _make(path: str, work: str, wanted: os.stat_result, shift: int) -> None:
    """A directory, whole or not at all."""
    unfinished = os.path.join(work, UNFINISHED)
    with contextlib.suppress(FileExistsError):
        os.mkdir(unfinished, 0o700)
    # The file system may have been in a tenant's hands.
    fd = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                 | os.O_CLOEXEC)
    try:
        os.chown(fd, wanted.st_uid + shift, wanted.st_gid + shift)
        os.chmod(fd, stat.S_IMODE(wanted.st_mode))
        os.utime(fd, ns=(wanted.st_atime_ns, wanted.st_mtime_ns))
    finally:
        os.close(fd)
    parent = os.path.dirname(path)
    before = os.stat(parent)
    os.rename(unfinished, path)
    os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
