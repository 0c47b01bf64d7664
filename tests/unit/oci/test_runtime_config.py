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

import dataclasses
import json
import unittest

from nova_container.oci import runtime_config
from nova_container.oci import seccomp
from nova_container.spec import container
from nova_container.spec import idmap
from nova_container.spec import limits

SPEC = container.ContainerSpec(
    id='11111111-2222-3333-4444-555555555555', hostname='web',
    layers=('sha256:' + 'a' * 64,),
    process=container.Process(('nginx',), (('A', '1'), ('A', '2'))),
    limits=limits.Limits(cpu_quota=150000, memory=64 << 20, pids=100))
HOST = runtime_config.HostSide(
    rootfs='/run/x/rootfs', ids=idmap.IdMap(0, 1065536), cgroup='/p/x',
    identity=runtime_config.Identity(33, 33, (50,), '/var/www'),
    files=(('/run/x/files/hosts', '/etc/hosts'),), open_files_max=20000,
    machine='x86_64')


class BuildTest(unittest.TestCase):

    def setUp(self):
        super().setUp()
        self.config = runtime_config.build(SPEC, HOST)

    def test_is_json(self):
        self.assertEqual(self.config, json.loads(json.dumps(self.config)))

    def test_every_namespace_is_its_own(self):
        self.assertEqual(
            {'pid', 'network', 'ipc', 'uts', 'mount', 'cgroup', 'user'},
            {n['type'] for n in self.config['linux']['namespaces']
             if 'path' not in n})

    def test_user_and_environment(self):
        process = self.config['process']
        self.assertEqual(33, process['user']['uid'])
        self.assertIn('A=2', process['env'])
        self.assertNotIn('A=1', process['env'])
        self.assertIn('HOME=/var/www', process['env'])
        self.assertTrue(any(e.startswith('PATH=') for e in process['env']))

    def test_open_files_stay_within_the_hosts_limit(self):
        self.assertEqual(20000,
                         self.config['process']['rlimits'][0]['hard'])

    def test_limits(self):
        resources = self.config['linux']['resources']
        self.assertEqual({'quota': 150000, 'period': 100000},
                         resources['cpu'])
        # Memory and swap together: no swap.
        self.assertEqual({'limit': 64 << 20, 'swap': 64 << 20},
                         resources['memory'])
        self.assertEqual({'limit': 100}, resources['pids'])

    def test_no_capability_that_reaches_the_host(self):
        given = self.config['process']['capabilities']
        for kind in given.values():
            self.assertFalse({'CAP_SYS_ADMIN', 'CAP_SYS_MODULE',
                              'CAP_SYS_PTRACE', 'CAP_NET_ADMIN',
                              'CAP_DAC_READ_SEARCH'} & set(kind))

    def test_profile_of_the_host_where_there_is_one(self):
        self.assertNotIn('apparmorProfile', self.config['process'])
        host = dataclasses.replace(HOST, apparmor='p')
        self.assertEqual('p', runtime_config.build(
            SPEC, host)['process']['apparmorProfile'])
        nesting = dataclasses.replace(SPEC, nesting=True)
        self.assertNotIn('apparmorProfile', runtime_config.build(
            nesting, host)['process'])

    def test_contexts_of_selinux_where_it_is_at_work(self):
        self.assertNotIn('selinuxLabel', self.config['process'])
        host = dataclasses.replace(
            HOST, selinux=runtime_config.SelinuxContexts('p', 'f'))
        config = runtime_config.build(SPEC, host)
        self.assertEqual(('p', 'f'), (config['process']['selinuxLabel'],
                                      config['linux']['mountLabel']))
        nesting = dataclasses.replace(SPEC, nesting=True)
        config = runtime_config.build(nesting, host)
        self.assertNotIn('selinuxLabel', config['process'])
        self.assertEqual('f', config['linux']['mountLabel'])

    def test_no_raw_packets_past_a_limit_on_what_is_sent(self):
        def bounding(**limit):
            spec = dataclasses.replace(SPEC, limits=limits.Limits(**limit))
            return runtime_config.build(spec, HOST)['process'][
                'capabilities']['bounding']

        rate = limits.Bandwidth(1000000)
        self.assertIn('CAP_NET_RAW', bounding(network_in=rate))
        self.assertEqual({'CAP_NET_RAW'}, set(bounding()) - set(
            bounding(network_out=rate)))

    def test_devices_are_denied_first(self):
        self.assertEqual({'allow': False, 'access': 'rwm'},
                         self.config['linux']['resources']['devices'][0])

    def test_own_path_wins(self):
        spec = dataclasses.replace(SPEC, process=container.Process(
            ('x',), (('PATH', '/opt/bin'),)))
        env = runtime_config.build(spec, HOST)['process']['env']
        self.assertEqual(['PATH=/opt/bin'],
                         [e for e in env if e.startswith('PATH=')])


class SeccompTest(unittest.TestCase):

    def setUp(self):
        super().setUp()
        self.rules = seccomp.profile('x86_64')['syscalls']

    def test_refused_calls_are_not_allowed_too(self):
        allowed = {name for rule in self.rules
                   if rule['action'] == 'SCMP_ACT_ALLOW'
                   for name in rule['names']}
        refused = {name for rule in self.rules
                   if rule['action'] == 'SCMP_ACT_ERRNO'
                   for name in rule['names']}
        # By their arguments.
        self.assertEqual({'clone', 'ioctl'}, allowed & refused)
        for name in ('mount', 'bpf', 'keyctl', 'init_module', 'setns',
                     'unshare', 'io_uring_setup', 'perf_event_open',
                     'open_by_handle_at', 'userfaultfd'):
            self.assertIn(name, refused)

    def test_no_request_to_a_loop_device_but_every_other(self):
        def holds(rule, request):
            return all(request & arg['value'] == arg['valueTwo']
                       for arg in rule['args'])

        rules = [rule for rule in self.rules if rule['names'] == ['ioctl']]
        for request in (0x4C00, 0x4C01, 0x4C0A, 0x4C82, 0x4C01 | 1 << 32,
                        0x4C01 | ~0xFFFFFFFF & (1 << 64) - 1):
            self.assertEqual({'SCMP_ACT_ERRNO'}, {
                rule['action'] for rule in rules if holds(rule, request)})
        for request in (0, 0x5401, 0x4B00, 0x4D00, 0x80084C01, 0xCC004C01,
                        0xFFFFFFFF80045430):
            self.assertEqual({'SCMP_ACT_ALLOW'}, {
                rule['action'] for rule in rules if holds(rule, request)})

    def test_what_has_no_substitute_is_allowed(self):
        """Apache does not start without getrandom."""
        (allowed,) = (rule['names'] for rule in self.rules
                      if 'openat' in rule['names'])
        for name in ('getrandom', 'memfd_create', 'prlimit64', 'rseq'):
            self.assertIn(name, allowed)

    def test_each_call_is_named_once(self):
        plain = [name for rule in self.rules if 'args' not in rule
                 for name in rule['names']]
        self.assertEqual(len(plain), len(set(plain)))

    def test_what_is_not_named_is_as_if_the_kernel_had_it_not(self):
        profile = seccomp.profile('x86_64')
        self.assertEqual('SCMP_ACT_ERRNO', profile['defaultAction'])
        self.assertEqual(38, profile['defaultErrnoRet'])
