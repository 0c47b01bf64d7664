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

import gzip
import json
import os
import pathlib
import subprocess

from tests import archives
from tests.cloud import base
from tests.functional import base as functional


class BadImageTest(base.CloudTestCase):
    """Each gives a fault that says what is wrong, once, and leaves nothing.
    """

    def refused(self, archive: bytes, *words: str, flavor='c1.tiny',
                **fields) -> None:
        image = self.upload(archive)
        server = self.boot(image, flavor, **fields)
        message = self.fault(server)
        for word in words:
            self.assertIn(word, message)
        self.assertNotIn('Exhausted all hosts', message)
        self.assertLess(len(message), 255, 'cut by Nova')

    def test_not_an_archive(self):
        self.refused(b'#!/bin/sh\necho hello\n' * 1000, 'not')

    def test_truncated(self):
        archive = base.busybox_archive()
        self.refused(archive[:len(archive) // 2], 'damaged')

    def test_layer_of_another_digest(self):
        layers = (functional.busybox_layer(),)
        config = archives.config(layers)
        self.refused(archives.docker_archive(
            archives.tar(archives.entry('x', b'y')), raw_config=config),
            'digest')

    def test_another_architecture(self):
        self.refused(base.busybox_archive(architecture='s390x'), 's390x',
                     archives.ARCHITECTURE)

    def test_no_command(self):
        self.refused(base.busybox_archive(config={}), 'container:command')

    def test_path_traversal(self):
        self.refused(base.busybox_archive(
            archives.tar(archives.entry('../../etc/cron.d/x', b'evil'))),
            '../../etc/cron.d/x')
        self.assertFalse(pathlib.Path('/etc/cron.d/x').exists())

    def test_flavor_too_small(self):
        zeros = archives.tar(archives.entry('zeros', bytes(1 << 20) * 1100))
        layers = (functional.busybox_layer(), zeros)
        archive = archives.OciArchive()
        self.refused(archive.save(archive.image(
            *layers, compression='gzip')), 'flavor')

    def test_unknown_user(self):
        self.refused(base.busybox_archive(
            config={'Cmd': ['/bin/id'], 'User': 'postgres'}), "'postgres'")

    def test_command_not_found(self):
        self.refused(base.busybox_archive(config={'Cmd': ['/opt/nothing']}),
                     '/opt/nothing')

    def test_unknown_word(self):
        self.refused(base.busybox_archive(), 'container:comand', 'command',
                     'env:NAME',
                     metadata={'container:comand': 'x'})

    def test_wrong_container_format(self):
        image = self.upload(base.busybox_archive(), container_format='bare')
        self.assertIn('--container-format docker',
                      self.fault(self.boot(image)))

    def test_gzipped_archive_of_rubbish(self):
        self.refused(gzip.compress(json.dumps({'a': 1}).encode()), 'gzip',
                     'not a tar archive')


class HostTroubleTest(base.CloudTestCase):
    """What is nobody's fault but the host's, and then works again."""

    def test_full_disk(self):
        archive = base.busybox_archive(archives.tar(
            archives.entry('filler', os.urandom(1 << 20) * 2)))
        image = self.upload(archive)
        spools = [f'{node["state_path"]}/spool'
                  for node in base.cloud()['nodes']]
        for spool in spools:
            subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m,mode=777',
                            'none', spool], check=True)
        try:
            message = self.fault(self.boot(image))
        finally:
            for spool in spools:
                subprocess.run(['umount', spool], check=True)
        self.assertRegex(message, 'room|Insufficient compute resources')
        self.active(self.boot(image))

    def test_port_that_cannot_be_bound(self):
        network = self.admin.network.create_network(
            name='test-nowhere', shared=True, provider_network_type='flat',
            provider_physical_network='nowhere')
        self.addCleanup(self.admin.network.delete_network, network)
        self.admin.network.create_subnet(
            network_id=network.id, ip_version=4, cidr='10.99.0.0/24')
        server = self.boot(self.busybox(), networks=[{'uuid': network.id}])
        self.assertRegex(self.fault(server),
                         'Binding failed for port|Exhausted all hosts')

    def test_glance_gone_half_way(self):
        image = self.upload(base.busybox_archive(archives.tar(
            archives.entry('filler', os.urandom(64 << 20)))))
        pid = base.service_pid('glance')
        server = self.boot(image)
        for _ in base.utils.iterate_timeout(60, 'no download', wait=0.01):
            if base.spooled():
                break
        base.kill_group(pid)
        base.await_new_pid('glance', pid)
        # Nova's client asks again: it may have come through all the same.
        if self.settled(server) == 'ERROR':
            self.assertRegex(self.fault(server),
                             'Glance|Exhausted all hosts')
        self.active(self.boot(image))
