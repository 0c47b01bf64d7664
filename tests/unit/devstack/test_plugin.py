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

"""The phases of the DevStack plugin, in DevStack's order.

Programs that would change the machine are replaced by ones that note how they
were called. The shell functions of DevStack, among them those that enable a
plugin and call its phases, are its own where DEVSTACK_DIR says where a clone
is, and ``stand_ins.sh`` elsewhere.
"""

import configparser
import os
import pathlib
import subprocess
import tempfile
import unittest

from nova.conf import compute as nova_compute
from oslo_config import cfg

from nova_container import conf

_REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
_URL = 'https://opendev.org/openstack/nova-container'
# What stack.sh, unstack.sh and clean.sh call, and in which order.
_SETTINGS = ('override_defaults', 'source')
_STACK = (*_SETTINGS, 'stack pre-install', 'stack install',
          'stack post-config', 'stack extra', 'stack test-config')
_UNSTACK = (*_SETTINGS, 'unstack')
_CLEAN = ('source', 'clean')
_CIRROS = 'https://github.com/cirros-dev/cirros-0.6.3-x86_64-disk.img'

# Owners are root's, which a test that is not root's cannot set.
_SUDO = """\
words=()
for word in "$@"; do
    case "$word" in
        -o|-g|root) ;;
        *) words+=("$word") ;;
    esac
done
case "${words[0]}" in
    */tools/demo-image) touch "${words[2]}" ;;
    *) exec "${words[@]}" ;;
esac
"""
# "show" finds what was created. An upload that fails leaves the image.
_OPENSTACK = """\
name=${!#}
case "$*" in
    *" show "*) cat "$WORLD/made/$name" ;;
    *" delete "*) rm "$WORLD/made/$name" ;;
    *" image create "*"$UPLOAD_FAILS") echo queued >"$WORLD/made/$name"
                                       exit 1 ;;
    *" create "*) echo active >"$WORLD/made/$name" ;;
esac
"""


class PluginTest(unittest.TestCase):

    def setUp(self):
        super().setUp()
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.world = pathlib.Path(temporary.name)
        for name in ('bin', 'made', 'nova', 'heat', 'files', 'data', 'stack',
                     'venv/bin'):
            (self.world / name).mkdir(parents=True)
        # Where DevStack clones plugins to.
        (self.world / 'stack/nova-container').symlink_to(_REPOSITORY)
        self.nova_conf = self.world / 'nova/nova.conf'
        self.nova_conf.write_text('[DEFAULT]\ndebug = True\n')
        self.heat_conf = self.world / 'heat/heat.conf'
        self.heat_conf.write_text('[DEFAULT]\n')
        self.program('sudo', _SUDO)
        self.program('openstack', _OPENSTACK)
        self.program('uname', 'echo "${KERNEL:-6.1.0-13-amd64}"')
        (self.world / 'venv/bin/python3').write_text(
            '#!/bin/bash\necho "python3 $*" >>"$WORLD/calls"\n')
        (self.world / 'venv/bin/python3').chmod(0o755)

    def program(self, name: str, body: str) -> None:
        path = self.world / 'bin' / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"$WORLD/calls"\n'
                        f'{body}\n')
        path.chmod(0o755)

    def run_phases(self, *phases: str, check: bool = True, **localrc: str):
        """Phases as stack.sh, unstack.sh and clean.sh call them."""
        functions = pathlib.Path(__file__).with_name('stand_ins.sh')
        if os.environ.get('DEVSTACK_DIR'):
            functions = pathlib.Path(os.environ['DEVSTACK_DIR'], 'functions')
        lines = ['set -o errexit', 'declare -A GITREPO GITDIR GITBRANCH',
                 f'source {functions}',
                 'setup_develop() { echo "setup_develop $*" '
                 '>>"$WORLD/calls"; }',
                 'stop_process() { echo "stop_process $*" '
                 '>>"$WORLD/calls"; }',
                 'is_ubuntu() { true; }',
                 'verify_disabled_services() { true; }',
                 f'enable_plugin nova-container {_URL}',
                 *(f'run_phase {phase}' for phase in phases),
                 'echo "VIRT_DRIVER=$VIRT_DRIVER"',
                 'echo "IMAGE_URLS=$IMAGE_URLS"']
        done = subprocess.run(
            ['bash', '-c', '\n'.join(lines)], text=True, capture_output=True,
            env={'PATH': f'{self.world}/bin:{os.environ["PATH"]}',
                 'WORLD': str(self.world), 'DEST': f'{self.world}/stack',
                 'TOP_DIR': str(self.world), 'STACK_USER': 'stack',
                 'DATA_DIR': f'{self.world}/data',
                 'FILES': f'{self.world}/files',
                 'NOVA_CONF_DIR': f'{self.world}/nova',
                 'NOVA_CONF': str(self.nova_conf),
                 'HEAT_CONF': str(self.heat_conf),
                 'TEMPEST_CONFIG': f'{self.world}/data/tempest.conf',
                 'GLOBAL_VENV': 'True', 'UPLOAD_FAILS': 'no',
                 'DEVSTACK_VENV': f'{self.world}/venv',
                 'ENABLED_SERVICES': 'g-api,n-api,n-cpu,h-eng,tempest',
                 'VIRT_DRIVER': 'libvirt', 'IMAGE_URLS': _CIRROS,
                 'DEFAULT_IMAGE_FILE_NAME': 'cirros-0.6.3-x86_64-disk.img',
                 'NOVA_CONTAINER_RUN_PATH': f'{self.world}/run',
                 **localrc})
        if check:
            self.assertEqual(0, done.returncode, done.stderr)
        return done

    def calls(self) -> list[str]:
        path = self.world / 'calls'
        text = path.read_text() if path.exists() else ''
        path.unlink(missing_ok=True)
        return text.splitlines()

    def files(self) -> set[str]:
        return {str(path.relative_to(self.world))
                for path in self.world.rglob('*')}

    def test_nova_is_configured(self):
        done = self.run_phases(*_STACK)
        nova = cfg.ConfigOpts()
        conf.register_opts(nova)
        nova_compute.register_opts(nova)
        nova([], default_config_files=[str(self.nova_conf)])

        self.assertEqual('nova_container.ContainerDriver',
                         nova.compute_driver)
        self.assertEqual(f'{self.world}/data/nova-container',
                         nova.container.state_path)
        self.assertEqual(f'{self.world}/run', nova.container.run_path)
        self.assertIn('debug = True', self.nova_conf.read_text())
        self.assertEqual(
            (_REPOSITORY / 'etc/nova/rootwrap.d/nova-container.filters')
            .read_bytes(),
            (self.world / 'nova/rootwrap.d/nova-container.filters')
            .read_bytes())
        self.assertIn('VIRT_DRIVER=container', done.stdout.splitlines())
        self.assertIn(f'setup_develop {self.world}/stack/nova-container heat',
                      self.calls())

    def test_without_heat(self):
        self.run_phases(*_STACK, ENABLED_SERVICES='g-api,n-api,n-cpu')
        self.assertIn(f'setup_develop {self.world}/stack/nova-container',
                      self.calls())
        self.assertNotIn('plugin_dirs', self.heat_conf.read_text())

    def test_heat_finds_the_resource_types(self):
        """And all that they import: the extra is one of the package."""
        setup = configparser.ConfigParser()
        setup.read(_REPOSITORY / 'setup.cfg')
        self.assertIn('heat', setup['options.extras_require'])
        self.run_phases(*_STACK)
        self.assertIn(f'setup_develop {self.world}/stack/nova-container heat',
                      self.calls())
        self.assertIn(
            f'{self.world}/stack/nova-container/heat_plugin/plugins',
            self.heat_conf.read_text())

    def test_twice_is_like_once(self):
        self.run_phases(*_STACK)
        calls, files = self.calls(), self.files()
        settings = self.nova_conf.read_bytes(), self.heat_conf.read_bytes()
        for kind in ('flavor', 'image'):
            self.assertTrue(any(f'{kind} create' in call for call in calls))

        self.run_phases(*_STACK)

        self.assertFalse([call for call in self.calls()
                          if ' create ' in call])
        self.assertEqual(files - {'calls'}, self.files() - {'calls'})
        self.assertEqual(settings, (self.nova_conf.read_bytes(),
                                    self.heat_conf.read_bytes()))

    def test_an_upload_that_failed_is_done_again(self):
        done = self.run_phases(*_STACK, check=False, UPLOAD_FAILS='nginx')
        self.assertNotEqual(0, done.returncode)
        self.calls()

        self.run_phases(*_STACK)

        calls = self.calls()
        self.assertTrue(any('image delete nginx' in call for call in calls))
        self.assertEqual('active\n',
                         (self.world / 'made/nginx').read_text())

    def test_what_the_machine_lacks_is_said(self):
        (self.world / 'venv/bin/python3').write_text(
            '#!/bin/bash\necho "missing conmon"\nexit 1\n')
        done = self.run_phases(*_STACK, check=False)
        self.assertNotEqual(0, done.returncode)
        self.assertIn('missing conmon', done.stdout)
        self.assertIn('mend what is called missing', ' '.join(
            (done.stdout + done.stderr).split()))
        self.assertFalse(list((self.world / 'made').iterdir()))

    def test_unstack_and_clean_leave_nothing(self):
        before = self.files()
        self.run_phases(*_STACK)
        for name in ('data/nova-container/layers', 'run/c'):
            (self.world / name).mkdir(parents=True)
        self.calls()

        self.run_phases(*_UNSTACK)
        calls = self.calls()
        stop = calls.index('stop_process n-cpu')
        halt = next(number for number, call in enumerate(calls)
                    if 'nova_container.cli halt-all' in call)
        self.assertLess(stop, halt)
        self.run_phases(*_CLEAN)
        self.assertIn('python3 -m nova_container.cli destroy-all '
                      f'--config-file {self.nova_conf}', self.calls())

        # DevStack itself removes the directories of Nova and Tempest.
        self.assertEqual(
            before, self.files() - {
                'nova/rootwrap.d', 'data/tempest.conf', 'made/c1.small',
                'made/nginx'})

    def test_clean_without_stack(self):
        self.nova_conf.unlink()
        self.run_phases(*_UNSTACK)
        self.run_phases(*_CLEAN)
        self.assertFalse([call for call in self.calls() if '-all' in call])

    def test_only_the_image_of_a_virtual_machine_is_dropped(self):
        mine = 'http://images/mine.tar'
        done = self.run_phases(*_SETTINGS, IMAGE_URLS=f'{mine},{_CIRROS}')
        self.assertIn(f'IMAGE_URLS={mine}', done.stdout.splitlines())
        done = self.run_phases(*_SETTINGS)
        self.assertIn('IMAGE_URLS=', done.stdout.splitlines())

    def test_beside_another_driver(self):
        done = self.run_phases(*_STACK, NOVA_CONTAINER_COMPUTE='False')
        self.assertIn('VIRT_DRIVER=libvirt', done.stdout.splitlines())
        self.assertIn(f'IMAGE_URLS={_CIRROS}', done.stdout.splitlines())
        self.assertNotIn('compute_driver', self.nova_conf.read_text())
        self.assertIn(f'setup_develop {self.world}/stack/nova-container heat',
                      self.calls())

    def test_an_old_kernel_is_refused_at_once(self):
        done = self.run_phases(*_STACK, check=False, KERNEL='5.15.0-91-lowlat')
        self.assertNotEqual(0, done.returncode)
        self.assertIn('needs Linux 5.19 or later, and this is 5.15.0-91',
                      done.stdout + done.stderr)
        self.assertNotIn('compute_driver', self.nova_conf.read_text())

    def test_heat_after_this_plugin_is_refused(self):
        self.heat_conf.unlink()
        done = self.run_phases(*_STACK, check=False)
        self.assertNotEqual(0, done.returncode)
        self.assertIn('put enable_plugin heat before', ' '.join(
            (done.stdout + done.stderr).split()))
