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

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import os
import stat
import typing

from nova_container import exception
from nova_container.layer import diff

# In the work directory, a directory that is not yet what it is to be.
UNFINISHED = 'unfinished'

# Each path is looked for in each layer, which takes some microseconds.
_LOOKS_MAX = 2000000


@dataclasses.dataclass(frozen=True)
class Layer:
    """A directory of an overlay.

    :param tree: its path; nobody changes it meanwhile
    :param implied: the directories it was not told of
    """

    tree: str
    implied: frozenset[str] = frozenset()


class _Place(typing.NamedTuple):
    """What a path is in a tree.

    :param found: if it is a directory
    :param hides: whether the tree hides directories of that path below it
    :param covers: whether it hides what they have in them
    """

    path: str
    found: os.stat_result | None
    hides: bool
    covers: bool


class _Tree:
    """A layer that is asked for one path after another.

    What is above the last one is known already, most of all that there is
    nothing.
    """

    def __init__(self, layer: Layer):
        self.implied = layer.implied
        self._tree = layer.tree
        self._known: list[_Place] = []

    def look(self, path: str) -> _Place:
        known = self._known
        while known and not f'{path}/'.startswith(f'{known[-1].path}/'):
            known.pop()
        for each in _from_the_top(path, len(known)):
            known.append(self._below(known[-1] if known else None, each))
        return known[-1]

    def forget(self) -> None:
        """It has changed."""
        self._known.clear()

    def _below(self, parent: _Place | None, path: str) -> _Place:
        if parent is not None and parent.found is None:
            return parent._replace(path=path)
        hides = parent is not None and parent.covers
        place = os.path.join(self._tree, path)
        try:
            found = os.lstat(place)
        except FileNotFoundError:
            return _Place(path, None, hides, hides)
        if not stat.S_ISDIR(found.st_mode):
            return _Place(path, None, True, True)
        # What an opaque directory hides is its content, not what it is
        # itself.
        return _Place(path, found, hides,
                      hides or diff.is_opaque(os.fsencode(place)))


def provide(layers: Iterable[Layer], upper: str, work: str,
            shift: int) -> None:
    """Make the directories in ``upper`` that layers hide by mistake.

    What is in ``upper`` already counts, and is not changed. To be called while
    the overlay is not mounted; again is as good as once.

    :param layers: from top to bottom
    :param work: a directory beside ``upper`` that nobody else writes to
    :param shift: from the owner's id in a layer to that in ``upper``
    :raises ImageInvalid: too many directories to look for in all layers
    """
    stack = [_Tree(Layer(upper))]
    paths = set[str]()
    for layer in layers:
        stack.append(_Tree(layer))
        paths |= layer.implied
        if len(paths) * len(stack) > _LOOKS_MAX:
            raise exception.ImageInvalid(
                f'making the root file system: the layers of the image leave '
                f'out {len(paths)} directories, too many for {len(stack)} '
                'layers or more; rebuild it with fewer layers, or with '
                'entries for directories')
    # Below one another, so that each tree knows what is above.
    for path in sorted(paths, key=lambda path: path.split('/')):
        if _hidden(stack, path) is None:
            continue
        for each in _from_the_top(path):
            if stack[0].look(each).found is None:
                _make(os.path.join(upper, each), work,
                      _hidden(stack, each) or _top(stack, each), shift)
                stack[0].forget()


def _from_the_top(path: str, start: int = 0) -> Iterator[str]:
    parts = path.split('/')
    for number in range(start, len(parts)):
        yield '/'.join(parts[:number + 1])


def _hidden(stack: Sequence[_Tree], path: str) -> os.stat_result | None:
    """What a directory should be that is made up, and something else."""
    shown = None
    for tree in stack:
        place = tree.look(path)
        if place.found is not None:
            shown = shown or place.found
            if path not in tree.implied:
                return (None if _same(shown, place.found)
                        else place.found)
        if place.hides:
            break
    return None


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return ((one.st_mode, one.st_uid, one.st_gid)
            == (other.st_mode, other.st_uid, other.st_gid))


def _top(stack: Sequence[_Tree], path: str) -> os.stat_result:
    """What a directory is, of which there is at least one."""
    return next(place.found for place in (
        tree.look(path) for tree in stack) if place.found is not None)


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
