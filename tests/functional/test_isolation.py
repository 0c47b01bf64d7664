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

import os
import time

from nova_container.privileged import place
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.spec import limits
from tests import archives
from tests.functional import base


class IdentityTest(base.RuntimeTestCase):

    def test_root_inside_is_nobody_outside(self):
        container_id = self.run_container('/bin/sh', '-c',
                                          'id -u; touch /srv/mine')
        self.finish(container_id)
        self.assertEqual('0', self.text(container_id).strip())
        slot = int(os.readlink(place.container_state(container_id, 'slot')))
        self.assertEqual(place.ids().base(slot),
                         os.stat(self.upper(container_id, 'srv/mine')).st_uid)

    def test_user_by_name_with_groups_and_home(self):
        out = self.shell('id; echo $HOME', user='web')
        self.assertIn('uid=33(web) gid=34(web) groups=34(web),50(extra)',
                      out.replace('groups=50(extra)',
                                  'groups=34(web),50(extra)'))
        self.assertIn('/var/www', out)

    def test_user_by_number_without_entry(self):
        self.assertIn('uid=1234 gid=0', self.shell('id', user='1234'))

    def test_group_by_name(self):
        self.assertIn('uid=33(web) gid=50(extra)',
                      self.shell('id', user='web:extra'))

    def test_passwd_that_points_out_of_the_image(self):
        image = self.add_image(archives.docker_archive(
            base.busybox_layer(),
            archives.tar(archives.entry('etc/.wh.passwd'),
                         archives.symlink('etc/passwd',
                                          '../../../../etc/shadow'))))
        out = self.shell('id -u', image=image, user='0')
        self.assertEqual('0', out.strip())

    def test_two_containers_share_no_id_and_no_file(self):
        one = self.run_container('/bin/sleep', '100')
        other = self.run_container('/bin/sleep', '100')
        maps = [open(f'/proc/{state.read(c).process.pid}/uid_map').read()
                for c in (one, other)]
        self.assertNotEqual(*maps)


class StdioTest(base.RuntimeTestCase):

    def test_any_user_may_open_its_standard_output(self):
        for user in ('', 'web'):
            out = self.shell('echo to stdout > /dev/stdout; '
                             'echo to stderr > /dev/stderr', user=user)
            self.assertEqual({'to stdout', 'to stderr'},
                             set(out.splitlines()))


class NamespacesTest(base.RuntimeTestCase):

    def test_every_namespace_is_its_own(self):
        container_id = self.run_container('/bin/sleep', '100')
        pid = state.read(container_id).process.pid
        for name in ('pid', 'net', 'ipc', 'mnt', 'uts', 'cgroup', 'user'):
            self.assertNotEqual(os.readlink(f'/proc/self/ns/{name}'),
                                os.readlink(f'/proc/{pid}/ns/{name}'), name)

    def test_container_mounts_are_not_visible_on_the_host(self):
        container_id = self.run_container('/bin/sleep', '100')
        with open('/proc/self/mountinfo') as mounts:
            self.assertNotIn(container_id, mounts.read())

    def test_monitor_sees_the_mounts_of_no_other_container(self):
        """Nor does starting one take the longer the more of them there are.
        """
        one = self.run_container('/bin/sleep', '100')
        other = self.run_container('/bin/sleep', '100')
        for own, foreign in ((one, other), (other, one)):
            monitor = state.read(own).monitor.pid
            with open(f'/proc/{monitor}/mountinfo') as mounts:
                text = mounts.read()
            self.assertIn(place.container_run(own, 'rootfs'), text)
            self.assertNotIn(foreign, text)

    def test_no_descriptor_of_the_host_leaks_in(self):
        out = self.shell('ls -l /proc/self/fd')
        links = [line.split('-> ')[1] for line in out.splitlines()
                 if '-> ' in line]
        for target in links:
            self.assertRegex(target, r'^(pipe:|/dev/null|/proc/\d+/fd)')

    def test_hostname_hosts_and_resolv_conf(self):
        out = self.shell('hostname; cat /etc/hosts /etc/hostname')
        self.assertIn('test\n', out)
        self.assertIn('127.0.0.1 localhost', out)

    def test_only_loopback_before_anything_is_plugged(self):
        self.assertEqual(['lo'], self.shell('ls /sys/class/net').split())

    def test_monitor_is_not_in_the_services_control_group(self):
        container_id = self.run_container('/bin/sleep', '100')
        pid = state.read(container_id).monitor.pid
        with open(f'/proc/{pid}/cgroup') as groups:
            self.assertIn(base.CONF.container.cgroup_parent, groups.read())


class RefusedTest(base.RuntimeTestCase):
    """What a container must not be able to do; each tries."""

    def refused(self, script: str, **options):
        out = self.shell(f'{script} && echo DONE', **options)
        self.assertNotIn('DONE', out)

    def test_mount(self):
        self.refused('mount -t tmpfs none /mnt 2>&1')

    def test_new_namespaces(self):
        self.refused('unshare -U true 2>&1')
        self.refused('unshare -m true 2>&1')

    def test_device_nodes(self):
        self.refused('mknod /tmp/sda b 8 0 2>&1 && cat /tmp/sda')

    def test_kernel_settings(self):
        self.refused('(echo 1 > /proc/sys/kernel/panic) 2>&1')
        self.refused('(echo b > /proc/sysrq-trigger) 2>&1')

    def test_sys_is_read_only(self):
        self.refused('cd /sys/fs/cgroup; [ -d memory ] && cd memory; '
                     'mkdir x 2>&1')
        self.refused('(echo 1 > /sys/kernel/mm/ksm/run) 2>&1')

    def test_masked_paths(self):
        self.assertEqual('', self.shell('cat /proc/keys /proc/timer_list '
                                        '2>/dev/null'))

    def test_host_processes_are_out_of_sight(self):
        self.assertEqual('1', self.shell('ls -d /proc/[0-9]* | grep -c '
                                         '/proc/1$').strip())
        self.refused(f'kill -0 {os.getpid()} 2>&1')

    def test_raising_own_limits(self):
        self.refused('ulimit -n 30000000 2>&1')


class LimitsTest(base.RuntimeTestCase):

    def test_memory_ends_the_process_and_is_told(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'dd if=/dev/zero of=/dev/null bs=200M count=1',
            limit=limits.Limits(memory=64 << 20))
        ended = self.finish(container_id)
        self.assertNotEqual(0, ended.exit_code)
        engine.halt(container_id)
        self.assertTrue(state.read(container_id).oom
                        or ended.exit_code == 137)

    def test_pids(self):
        out = self.shell('for i in $(seq 50); do sleep 5 & done 2>&1; '
                         'echo end', limit=limits.Limits(pids=16))
        self.assertIn('fork', out)

    def test_cpu_quota_throttles(self):
        container_id = self.run_container(
            '/bin/sh', '-c', 'while :; do :; done',
            limit=limits.Limits(cpu_quota=20000))
        group = place.cgroup(container_id)
        path = f'/sys/fs/cgroup/cpu{group}/cpu.stat'
        if not os.path.exists(path):
            path = f'/sys/fs/cgroup{group}/cpu.stat'
        throttled, deadline = 0, time.monotonic() + base._TIMEOUT
        while not throttled and time.monotonic() < deadline:
            with open(path) as stat:
                throttled = int(dict(line.split() for line in stat)[
                    'nr_throttled'])
        self.assertGreater(throttled, 0)
