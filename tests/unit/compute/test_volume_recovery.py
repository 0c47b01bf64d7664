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

import datetime
import types
from unittest import mock
import uuid

from nova.compute import instance_actions
from nova.compute import vm_states
from nova import exception as nova_exception
from nova import objects

from nova_container.compute import volume_recovery
from tests.unit import base

objects.register_all()

_BEFORE = '2020-01-01T00:00:00.000000'
_CONNECTION = '{"driver_volume_type": "rbd", "data": {}}'


def _mapping(connection_info=_CONNECTION, is_root=False):
    return mock.Mock(volume_id='volume', attachment_id='attachment',
                     is_volume=True, is_root=is_root,
                     connection_info=connection_info)


class FinisherTest(base.TestCase):
    """A start of the service, with one volume that Cinder is waiting for."""

    def setUp(self):
        super().setUp()
        self.cinder = self.patch(volume_recovery.cinder, 'API').return_value
        self.schedule = self.patch(volume_recovery.schedule,
                                   'Schedule').return_value
        self.forget = self.patch(volume_recovery.volumes, 'forget')
        self.attached = self.patch(volume_recovery.volume_runtime, 'attached')
        self.driver = mock.Mock()
        self.detach = self.patch(
            volume_recovery.driver_block_device,
            'convert_volume').return_value.detach
        self.host = volume_recovery.CONF.host
        self.patch(objects.Instance, 'get_by_uuid').side_effect = (
            lambda context, uuid: mock.Mock(
                uuid=uuid, host=self.host, task_state=None,
                vm_state=vm_states.ACTIVE))
        self.found = self.patch(objects.BlockDeviceMapping,
                                'get_by_volume_and_instance')
        self.changed = _BEFORE
        self.patch(volume_recovery.cinder, 'cinderclient'
                   ).return_value.volumes.get.side_effect = (
            lambda volume: types.SimpleNamespace(
                created_at=_BEFORE, updated_at=self.changed))

    def patch(self, *args):
        patcher = mock.patch.object(*args, autospec=True)
        self.addCleanup(patcher.stop)
        return patcher.start()

    def start(self, status, connection='attaching', has=('server',),
              attachment='attachment', **mappings):
        """:param connection: status of the attachment; None without one
        :param has: containers that have the volume
        :param attachment: what Cinder has of each server
        """
        volume = {'id': 'volume', 'status': status, 'attachments': {
            server: {'attachment_id': attachment}
            for server in mappings}}
        self.cinder.get.return_value = volume
        self.found.side_effect = (
            lambda context, volume_id, server: mappings[server])
        self.cinder.get_all.side_effect = lambda context, search_opts: (
            [volume] if search_opts['status'] == status else [])
        self.cinder.attachment_get.return_value = {
            'id': 'attachment',
            'connection_info': {'status': connection} if connection else {}}
        self.attached.return_value = {'volume': list(has)} if has else {}
        with mock.patch.object(volume_recovery.state, 'ids', autospec=True,
                               return_value=list(mappings)), \
                mock.patch.object(
                    objects.BlockDeviceMappingList, 'bdms_by_instance_uuid',
                    autospec=True, return_value={
                        server: [mapping]
                        for server, mapping in mappings.items()}):
            volume_recovery.Finisher(self.driver)._due(2)

    def assert_kept(self, mapping):
        self.forget.assert_not_called()
        self.cinder.attachment_delete.assert_not_called()
        mapping.destroy.assert_not_called()

    def test_volume_that_came_with_a_failed_move_stays(self):
        for is_root in (False, True):
            mapping = _mapping(is_root=is_root)
            self.cinder.attachment_complete.reset_mock()
            self.start('attaching', server=mapping)
            self.assert_kept(mapping)
            self.cinder.attachment_complete.assert_called_once_with(
                mock.ANY, 'attachment')

    def test_volume_that_the_container_lacks_stays(self):
        mapping = _mapping()
        self.start('reserved', None, (), server=mapping)
        self.assert_kept(mapping)
        self.cinder.attachment_complete.assert_not_called()

    def test_volume_without_a_connection_is_not_in_use(self):
        mapping = _mapping()
        self.start('reserved', None, server=mapping)
        self.assert_kept(mapping)
        self.cinder.attachment_complete.assert_not_called()

    def test_another_server_is_being_given_it(self):
        mapping = _mapping()
        self.start('attaching', 'attached', server=mapping)
        self.assert_kept(mapping)
        self.cinder.attachment_complete.assert_not_called()

    def test_server_that_starts_late_after_a_move(self):
        """Cinder's trouble with one volume is none of the others'."""
        names = [str(uuid.uuid4()) for _ in range(3)]
        self.attached.return_value = {name: ['server'] for name in names[:2]}
        self.cinder.attachment_get.side_effect = [
            nova_exception.CinderConnectionFailed(reason='gone'),
            {'connection_info': {'status': 'attaching'}}]
        volume_recovery.complete_all(
            None, mock.Mock(uuid='server'), {'block_device_mapping': [
                {'connection_info': {'serial': name},
                 'attachment_id': f'of {name}'} for name in names]})
        self.cinder.attachment_complete.assert_called_once_with(
            None, f'of {names[1]}')

    def test_volume_that_was_away_to_be_moved_is_given_back(self):
        for is_root, has in ((False, ()), (False, ('server',)), (True, ())):
            mapping = _mapping(is_root=is_root)
            self.driver.reset_mock()
            self.start('retyping', has=has, server=mapping)
            self.assert_kept(mapping)
            self.assertEqual(not has and not is_root,
                             self.driver.attach_volume.called)

    def test_volume_of_others_is_not_given_back(self):
        """Whose detaching was cut off after Cinder had done its part."""
        for status, attachment in (('available', 'attachment'),
                                   ('in-use', 'another'), ('in-use', None)):
            mapping = _mapping()
            self.start(status, has=(), attachment=attachment, server=mapping)
            self.driver.attach_volume.assert_not_called()

    def test_server_that_was_evacuated(self):
        self.host = 'elsewhere'
        for status in ('in-use', 'attaching', 'detaching'):
            mapping = _mapping(None if status == 'attaching'
                               else _CONNECTION)
            self.start(status, has=(), server=mapping)
            self.assert_kept(mapping)
            self.driver.attach_volume.assert_not_called()
            self.detach.assert_not_called()

    def test_what_was_asked_for_since_the_start(self):
        self.changed = '2999-01-01T00:00:00.000000'
        mapping = _mapping(None)
        self.start('attaching', server=mapping)
        self.assert_kept(mapping)

    def test_trouble_with_one_is_none_of_the_others(self):
        mappings = {name: _mapping(None) for name in ('one', 'two')}
        self.forget.side_effect = [OSError('no such back end'), None]
        self.start('attaching', **mappings)
        self.assertEqual(2, self.forget.call_count)
        # That one is tried again.
        self.schedule.after.assert_called_with(volume_recovery._AGAIN, 1)
        mappings['one'].destroy.assert_not_called()
        mappings['two'].destroy.assert_called_once_with()

    def test_interrupted_attaching_is_taken_back(self):
        for connection_info in (None, 'null'):
            mapping = _mapping(connection_info)
            self.forget.reset_mock()
            self.start('attaching', server=mapping)
            self.forget.assert_called_once_with(mock.ANY, 'volume')
            self.cinder.attachment_delete.assert_called_with(mock.ANY,
                                                             'attachment')
            mapping.destroy.assert_called_once_with()

    def test_root_volume_is_not_taken_away(self):
        mapping = _mapping(None, is_root=True)
        self.start('attaching', server=mapping)
        self.assert_kept(mapping)

    def test_interrupted_detaching_is_finished(self):
        mapping = _mapping()
        self.start('detaching', server=mapping)
        self.detach.assert_called_once()
        mapping.destroy.assert_called_once_with()

    def test_one_of_two_servers_goes_on_with_it(self):
        ended = datetime.datetime(2020, 1, 1)
        events = {'one': [ended], 'two': [None], 'three': []}
        self.patch(objects.InstanceActionList, 'get_by_instance_uuid'
                   ).side_effect = lambda context, uuid, limit: [
            types.SimpleNamespace(id=uuid,
                                  action=instance_actions.DETACH_VOLUME)]
        self.patch(objects.InstanceActionEventList, 'get_by_action'
                   ).side_effect = lambda context, action: [
            types.SimpleNamespace(event='compute_detach_volume',
                                  finish_time=time)
            for time in events[action]]
        mappings = {name: _mapping() for name in events}
        self.start('detaching', has=tuple(events), **mappings)
        mappings['one'].destroy.assert_not_called()
        mappings['two'].destroy.assert_called_once_with()
        mappings['three'].destroy.assert_called_once_with()
