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

"""The images of the demos: Debian packages, and tools/images on top.

mmdebstrap installs the packages, for it is the only one that talks to the
mirrors, as this machine's apt does; buildah does what the Containerfile says.
"""

import pathlib
import shutil

from onenode import command
from onenode import marks
from onenode import packages
from onenode import plan

SOURCES = plan.REPOSITORY / 'tools/images'
NAMES = tuple(sorted(path.name for path in SOURCES.iterdir()))

# The keyring is for a machine that is not Debian itself.
TOOLS = ('buildah', 'debian-archive-keyring', 'gpg', 'mmdebstrap')

_EXCLUDED = 'path-exclude=/usr/share/{doc,info,locale,man}/*'


def archive(layout: plan.Layout, name: str) -> pathlib.Path:
    """Where the image is."""
    return layout.cache / 'images' / f'{name}.tar'


def fingerprint(name: str) -> str:
    """Digest of what an image is made of."""
    return marks.fingerprint(SOURCES / name)


def install_tools(log: pathlib.Path) -> bool:
    """Install what builds images."""
    return packages.install(TOOLS, log)


def _suite() -> str:
    with open('/etc/os-release') as file:
        release = dict(line.rstrip().split('=', 1) for line in file
                       if '=' in line)
    if release.get('ID', '').strip('"') == 'debian':
        return release['VERSION_CODENAME'].strip('"')
    return 'stable'


def _keep_packages(store: pathlib.Path) -> list[str]:
    """Options of mmdebstrap to download nothing twice.

    Source: mmdebstrap(1), EXAMPLES.
    """
    store.mkdir(parents=True, exist_ok=True)
    inside = '/var/cache/apt/archives'
    return ['--skip=essential/unlink',
            f'--setup-hook=mkdir -p "$1{inside}"',
            f'--setup-hook=sync-in {store} {inside}',
            f'--customize-hook=sync-out {inside} {store}']


def build(layout: plan.Layout, name: str, log: pathlib.Path) -> bool:
    """Build an image as a docker archive; False if it is there."""
    target = archive(layout, name)
    wanted = fingerprint(name)
    mark = f'image-{name}'
    if marks.get(layout, mark) == wanted and target.exists():
        return False
    marks.drop(layout, mark)
    work = layout.cache / 'images' / f'{name}.work'
    shutil.rmtree(work, ignore_errors=True)
    context = work / 'context'
    shutil.copytree(SOURCES / name, context)
    included = ','.join((SOURCES / name / 'packages').read_text().split())
    command.run(['mmdebstrap', '--quiet', '--variant=minbase',
                 f'--include={included}', f'--dpkgopt={_EXCLUDED}',
                 '--aptopt=APT::Install-Recommends "false"',
                 *_keep_packages(layout.cache / 'images' / 'packages'),
                 *(f'--customize-hook={script}'
                   for script in (SOURCES / name).glob('customize')),
                 _suite(), context / 'rootfs.tar'],
                log=log)
    buildah = ['buildah', '--storage-driver', 'vfs', '--root',
               work / 'storage', '--runroot', work / 'run']
    reference = f'localhost/nova-container/{name}'
    command.run([*buildah, 'build', '--isolation', 'chroot', '--format',
                 'docker', '--tag', reference, context], log=log)
    command.run([*buildah, 'push', reference,
                 f'docker-archive:{work}/image.tar:{reference}:latest'],
                log=log)
    (work / 'image.tar').rename(target)
    shutil.rmtree(work)
    marks.put(layout, mark, wanted)
    return True
