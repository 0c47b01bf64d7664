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

"""skopeo, which copies images between transports.

containers-transports(5) lists them: ``docker-archive:FILE``,
``oci-archive:FILE``, ``oci:DIRECTORY``, ``dir:DIRECTORY``,
``docker://REGISTRY/NAME``, ``containers-storage:NAME``, ``tarball:FILE``.
"""

import subprocess

from nova_container import exception

_TAG = 'image'

# By this it finds the image in a layout.
REFERENCE = {'org.opencontainers.image.ref.name': _TAG}


def _copy(source: str, target: str, *options: str) -> None:
    try:
        done = subprocess.run(
            ['skopeo', 'copy', '--quiet', *options, '--', source, target],
            stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        raise exception.HostUnsupported(
            'skopeo is not installed; install the package skopeo')
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ['it says nothing']
        raise exception.ImageInvalid(
            f'skopeo cannot copy {source} to {target}: {_reason(lines[-1])}')


def _reason(line: str) -> str:
    """The message in one of logrus' lines."""
    _, found, message = line.partition('msg="')
    return message.rstrip('"').replace('\\"', '"') if found else line


def fetch(source: str, directory: str, compression: str | None = None,
          architecture: str | None = None, tls_verify: bool = True,
          authfile: str | None = None) -> None:
    """Copy an image into an OCI layout.

    :param compression: gzip or zstd, for all layers; None keeps those that
        are compressed as they are, byte by byte, and takes gzip for others
    :param architecture: which of several, in Go's words; None for this host's
    :raises ImageInvalid: skopeo cannot; carries its own words
    """
    options = []
    if compression is not None:
        options.append(f'--dest-compress-format={compression}')
    if architecture is not None:
        options.insert(0, f'--override-arch={architecture}')
    if not tls_verify:
        options.append('--src-tls-verify=false')
    if authfile is not None:
        options.append(f'--src-authfile={authfile}')
    _copy(source, f'oci:{directory}:{_TAG}', *options)


def store(directory: str, target: str, tls_verify: bool = True,
          authfile: str | None = None) -> None:
    """Copy the image of an OCI layout to somewhere else.

    :raises ImageInvalid: skopeo cannot; carries its own words
    """
    options = []
    if not tls_verify:
        options.append('--dest-tls-verify=false')
    if authfile is not None:
        options.append(f'--dest-authfile={authfile}')
    _copy(f'oci:{directory}:{_TAG}', target, *options)
