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

"""The wheel, installed where Nova is: beside it, in a clone, elsewhere.

Nova here is the real one, in a copy.
"""

import ast
import configparser
import hashlib
import importlib.metadata
import itertools
import os
import pathlib
import re
import shutil
import sys
import tarfile
import tempfile
import unittest
import zipfile

import nova

from tests import wheels

_LOAD = """
from nova.virt import driver
found = driver.load_compute_driver(None, 'nova_container.ContainerDriver')
import nova_container
print(nova_container.__file__)
"""


def _files(directory: pathlib.Path) -> dict[str, str]:
    """Digests of the files below a directory, but for compiled ones."""
    return {str(path.relative_to(directory)):
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in directory.rglob('*')
            if path.is_file() and path.suffix != '.pyc'}


class SourceTest(unittest.TestCase):

    def test_all_is_there_without_git(self):
        """Made of an archive that a forge offers, for instance."""
        source = pathlib.Path(self.enterContext(
            tempfile.TemporaryDirectory()))
        held = wheels.held()
        self.assertIn('tests/unit/test_package.py', held)
        for path in held:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(wheels.REPOSITORY / path, source / path)
        wheels.run(
            sys.executable, '-c', 'from pbr import build; '
            'build.build_sdist("dist")', cwd=source, PBR_VERSION='0.1.1',
            GIT_CEILING_DIRECTORIES=str(source.parent))
        with tarfile.open(source / 'dist/nova_container-0.1.1.tar.gz'
                          ) as archive:
            packed = {name.partition('/')[2] for name in archive.getnames()}
        self.assertEqual(set(), held - packed)


class PackageTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.world = pathlib.Path(temporary.name)
        wheels.copy(cls.world / 'source')
        cls.old, cls.new = (
            wheels.build(cls.world / 'source', cls.world / 'dist', version)
            for version in ('0.0.9', '0.1.1'))
        cls.nova = cls.world / 'nova-source'
        cls.nova.mkdir()
        shutil.copytree(
            pathlib.Path(nova.__file__).parent, cls.nova / 'nova',
            ignore=lambda path, names: {'tests', '__pycache__'} | (
                {'nova_container'} if path.endswith('nova/virt') else set()))

    def environment(self, name: str) -> tuple[pathlib.Path, pathlib.Path]:
        """A virtualenv with Nova's dependencies, and no Nova.

        :returns: its Python, and its site-packages
        """
        root = self.world / name
        wheels.run(sys.executable, '-m', 'venv', '--without-pip', root)
        site, = root.glob('lib/python3*/site-packages')
        own = pathlib.Path(nova.__file__).parents[1]
        (site / 'zz-dependencies.pth').write_text(f'{own}\n')
        return root / 'bin/python', site

    def assert_works(self, name: str, add_nova, *versions) -> None:
        python, site = self.environment(name)
        place = add_nova(site)
        before = _files(place), _files(site.parents[2])

        for version in versions:
            wheels.pip(python, 'install', '--no-deps', '--no-index', version)
        found = wheels.run(python, '-c', _LOAD, cwd='/').strip()
        self.assertTrue(found.startswith(str(site)), found)
        # Neither changed nor shadowed.
        after = _files(place)
        self.assertEqual(before[0], {path: after[path] for path in before[0]})
        self.assertEqual(['nova_container-0.1.1.dist-info'], [
            path.name for path in site.glob('nova_container-*')])

        wheels.pip(python, 'uninstall', '--yes', 'nova-container')
        self.assertEqual(before, (_files(place), _files(site.parents[2])))

    def test_beside_nova(self):
        def add_nova(site):
            shutil.copytree(self.nova / 'nova', site / 'nova',
                            copy_function=os.link)
            return site
        self.assert_works('beside', add_nova, self.old, self.new)

    def test_nova_in_a_clone(self):
        def add_nova(site):
            (site / '__editable__.nova.pth').write_text(f'{self.nova}\n')
            return self.nova
        self.assert_works('clone', add_nova, self.new)

    def test_nova_of_the_distribution(self):
        def add_nova(site):
            system = site.parents[2] / 'dist-packages'
            shutil.copytree(self.nova / 'nova', system / 'nova',
                            copy_function=os.link)
            (site / 'distribution.pth').write_text(f'{system}\n')
            return system
        self.assert_works('distribution', add_nova, self.new)

    def test_nothing_of_nova_is_in_the_wheel(self):
        names = zipfile.ZipFile(self.new).namelist()
        self.assertEqual(['nova/virt/nova_container/__init__.py'],
                         [name for name in names if name.startswith('nova/')])
        self.assertEqual(set(), {name.split('/')[0] for name in names} - {
            'nova', 'nova_container', 'nova_container.pth',
            'nova_container_dashboard', 'heat_plugin',
            'nova_container-0.1.1.dist-info', 'nova_container-0.1.1.data'})
        self.assertLess({'container.html', 'usage.js', 'images.js'},
                        {name.split('/')[-1] for name in names})
        for name in ('licenses/LICENSE', 'licenses/NOTICE',
                     'entry_points.txt'):
            self.assertIn(f'nova_container-0.1.1.dist-info/{name}', names)
        for name in ('nova/rootwrap.d/nova-container.filters',
                     'sudoers.d/nova-container',
                     'systemd/system/nova-compute.service.d/'
                     'nova-container.conf'):
            self.assertIn(f'nova_container-0.1.1.data/data/etc/{name}', names)

    def test_source_archive(self):
        """A wheel of the unpacked archive is the wheel of the sources."""
        source = self.world / 'source'
        for words in (['init', '--quiet'], ['add', '.'],
                      ['commit', '--quiet', '--message=Sources']):
            wheels.run('git', '-C', source, '-c', 'user.name=test',
                       '-c', 'user.email=test@localhost', *words)
        wheels.run(
            sys.executable, '-c', 'import os, sys; os.chdir(sys.argv[1]); '
            'from pbr import build; build.build_sdist(sys.argv[2])', source,
            self.world / 'dist', PBR_VERSION='0.1.1')
        shutil.unpack_archive(
            self.world / 'dist/nova_container-0.1.1.tar.gz',
            self.world / 'unpacked')
        wheel = wheels.build(
            self.world / 'unpacked/nova_container-0.1.1',
            self.world / 'again', '0.1.1')

        self.assertEqual(set(zipfile.ZipFile(self.new).namelist()),
                         set(zipfile.ZipFile(wheel).namelist()))


class RequirementsTest(unittest.TestCase):

    def test_what_is_imported_is_required(self):
        required = {_canonical(re.match(r'[\w.-]+', line)[0])
                    for line in (wheels.REPOSITORY / 'requirements.txt')
                    .read_text().splitlines() if line[0] != '#'}
        providers = importlib.metadata.packages_distributions()
        for path in (wheels.REPOSITORY / 'nova_container').rglob('*.py'):
            for module in _imported(path) - sys.stdlib_module_names:
                with self.subTest(f'{path.name}: {module}'):
                    self.assertTrue(required & set(map(
                        _canonical, providers[module])))

    def test_packages_of_a_compute_host(self):
        """The same ones by bindep, from Debian's packages, with DevStack."""
        def lines(name):
            return (wheels.REPOSITORY / name).read_text().splitlines()

        ours = lines('bindep.txt')
        first = ours.index('# The driver on a compute host') + 1
        wanted = set(itertools.takewhile(bool, ours[first:]))
        stanza, = re.findall('(?ms)^Package: nova-compute-container$.*?^$',
                             '\n'.join(lines('debian/control')))
        # Every Debian has it.
        self.assertEqual(set(), wanted - {'util-linux'} - set(
            re.findall(r'[\w.+-]+', stanza)))
        self.assertEqual(set(), wanted - {
            line.split()[0] for line in lines('devstack/files/bindep.txt')})


def _canonical(name: str) -> str:
    return re.sub('[-_.]+', '-', name).lower()


def _imported(path: pathlib.Path) -> set[str]:
    """The top-level modules that a file imports, but for its own package."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return {name.split('.')[0] for name in names} - {
        'nova_container', '_typeshed'}


class InstalledTest(unittest.TestCase):
    """What the configuration files that are shipped say."""

    def test_commands_exist(self):
        scripts = importlib.metadata.entry_points(group='console_scripts')
        ours = [script for script in scripts
                if script.value.startswith('nova_container.')]
        self.assertTrue(ours)
        for script in ours:
            self.assertTrue(callable(script.load()), script.name)

    def test_unit_drop_in(self):
        unit = configparser.RawConfigParser(strict=True)
        unit.optionxform = str
        unit.read(wheels.REPOSITORY / 'etc/systemd/system'
                  '/nova-compute.service.d/nova-container.conf')
        self.assertEqual('mixed', unit['Service']['KillMode'])
