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

"""The process that reads and writes the trees of layers; see ``confined``.

Run as a script, so that nothing of the package above is imported: neither a
configuration nor a channel to the daemon is ever in this process. It gives up
every privilege before it reads the first byte of a tenant's: it is root of a
user namespace that owns nothing but the directory it works in, with an empty
network and no sight of any other file.

standard input
    the archive to read, or what else the job takes
working directory
    the tree to fill, or to read
descriptor ``userns``
    the user namespace
standard output
    one JSON object: the result, or ``error`` (a class of
    ``nova_container.exception``) and ``message``
"""

import base64
import contextlib
import ctypes
import dataclasses
import errno
import json
import os
import pathlib
import resource
import signal
import sys

# With python -I the script's own package is not on the path.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from nova_container import exception  # noqa: E402
from nova_container.layer import diff  # noqa: E402
from nova_container.layer import extract  # noqa: E402
from nova_container.layer import output  # noqa: E402
from nova_container.layer import stream  # noqa: E402
from nova_container.layer import survey  # noqa: E402
from nova_container.layer import tar  # noqa: E402
from nova_container.layer import tarwriter  # noqa: E402

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_MNT_DETACH = 2
_MS_BIND = 4096
_MS_REC = 16384
_MS_SLAVE = 1 << 19
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

# Python, its libraries and threads, the largest zstd window, and a header
# that lies about its size; all far apart.
_ADDRESS_SPACE = 768 << 20

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: int | bytes) -> None:
    if getattr(_libc, name)(*(
            arg if isinstance(arg, bytes) else ctypes.c_ulong(arg)
            for arg in args)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f'{name}: {os.strerror(code)}')


def _leave_file_systems() -> None:
    """Have the working directory for a root that nothing is above.

    Root of a user namespace leaves one of chroot(2). In a mount namespace of
    the host's it has no right to mount.
    """
    _call('unshare', _CLONE_NEWNS)
    _call('mount', b'none', b'/', b'', _MS_REC | _MS_SLAVE, b'')
    _call('mount', b'.', b'.', b'', _MS_BIND | _MS_REC, b'')
    os.chdir(os.getcwd())
    # pivot_root(2): the old root then lies over the new one.
    _call('pivot_root', b'.', b'.')
    _call('umount2', b'.', _MNT_DETACH)
    os.chdir('/')


def _enter_sandbox(userns: int) -> None:
    _leave_file_systems()
    # Only a process with one thread may enter a user namespace.
    _call('setns', userns, _CLONE_NEWUSER)
    os.close(userns)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _call('unshare', _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS)
    os.umask(0)
    _call('prctl', _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # A change of user cleared it. The helper's death is this process's.
    _call('prctl', _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for limit, value in ((resource.RLIMIT_AS, _ADDRESS_SPACE),
                         (resource.RLIMIT_CORE, 0),
                         (resource.RLIMIT_NOFILE, 64)):
        resource.setrlimit(limit, (value, value))


@dataclasses.dataclass(frozen=True)
class Unpack:
    """Fill the tree from an archive.

    :param extract: False: only compute the digests
    :param max_bytes: limit of what is on disk in the end
    :param max_stream: limit of the decompressed stream
    :param exact: see ``extract.Extractor``
    """

    offset: int
    size: int
    compression: str
    extract: bool
    max_bytes: int
    max_stream: int
    exact: bool = False

    def run(self) -> dict[str, object]:
        layer = stream.LayerStream(sys.stdin.fileno(), self.offset, self.size,
                                   self.compression, self.max_stream)
        result = extract.Result()
        if self.extract:
            result = extract.Extractor(tar.Reader(layer),
                                       self.max_bytes, self.exact).run()
        layer.drain()
        return {'diff_id': layer.digest, 'blob_digest': layer.blob_digest,
                'stream': layer.size, **dataclasses.asdict(result)}


@dataclasses.dataclass(frozen=True)
class Survey:
    """Tell what an archive holds that starts where the file does.

    :param max_stream: limit of the decompressed stream
    """

    size: int
    compression: str
    max_stream: int

    def run(self) -> dict[str, object]:
        layer = stream.LayerStream(sys.stdin.fileno(), 0, self.size,
                                   self.compression, self.max_stream)
        found = survey.survey(tar.Reader(layer))
        layer.drain()
        return {'diff_id': layer.digest, **dataclasses.asdict(found)}


@dataclasses.dataclass(frozen=True)
class Pack:
    """Make a layer of the tree.

    :param output: descriptor of the file to write to
    :param exact: see ``extract.Extractor``
    :param patient: others need the processors more
    """

    output: int
    compression: str
    exact: bool = False
    patient: bool = False

    def run(self) -> dict[str, object]:
        if self.patient:
            os.nice(19)
        layer = output.LayerOutput(self.output, self.compression)
        result = diff.Diff(tarwriter.Writer(layer), self.exact).run()
        layer.close()
        return {'diff_id': layer.digest, 'blob_digest': layer.blob_digest,
                'size': layer.blob_size, 'stream': layer.size,
                **dataclasses.asdict(result)}


@dataclasses.dataclass(frozen=True)
class Inject:
    """Write files into the tree, whatever has their names there.

    Standard input is a JSON object: paths, and contents in Base64.
    """

    def run(self) -> dict[str, object]:
        os.umask(0o022)
        for path, content in json.load(sys.stdin).items():
            directory, name = os.path.split(f'/{path}')
            temporary = os.path.join(directory, f'.{name[:200]}.injected')
            try:
                os.makedirs(directory, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    # Of one that was killed.
                    os.unlink(temporary)
                with open(temporary, 'xb') as file:
                    file.write(base64.b64decode(content))
                os.replace(temporary, os.path.join(directory, name))
            except OSError as e:
                if e.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise exception.InvalidSpec(
                    f'/{path} cannot be written: {e.strerror}')
        return {}


_JOBS = {'unpack': Unpack, 'survey': Survey, 'pack': Pack, 'inject': Inject}


def main() -> None:
    wish = json.loads(sys.argv[1])
    userns = wish.pop('userns')
    job = _JOBS[wish.pop('job')](**wish)
    _enter_sandbox(userns)
    try:
        answer = job.run()
    except exception.ContainerError as e:
        answer = {'error': type(e).__name__, 'message': e.message}
    except MemoryError:
        answer = {'error': 'ImageInvalid',
                  'message': 'its headers or directories take too much memory'}
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        answer = {'error': 'NoSpace', 'message': 'the file system is full'}
    json.dump(answer, sys.stdout)
    sys.stdout.flush()
    # A thread may still wait to hand over a block.
    os._exit(0)


if __name__ == '__main__':
    main()
