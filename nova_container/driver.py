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

"""Nova's compute driver: each method in a few lines, the work elsewhere.

The contract of each method is nova.virt.driver.ComputeDriver's.
"""

import contextlib
import dataclasses
import os
import subprocess

from nova.compute import power_state
from nova.compute import task_states
from nova.compute import vm_states
import nova.conf
from nova.virt import driver
from nova.virt import event as virtevent
from nova.virt import hardware
from oslo_log import log

from nova_container.compute import config_drive
from nova_container.compute import consoles
from nova_container.compute import courier
from nova_container.compute import device_metadata
from nova_container.compute import diagnostics
from nova_container.compute import fault
from nova_container.compute import feedback
from nova_container.compute import images
from nova_container.compute import intent
from nova_container.compute import interrupted
from nova_container.compute import inventory
from nova_container.compute import lifecycle
from nova_container.compute import maintenance
from nova_container.compute import moving
from nova_container.compute import password
from nova_container.compute import port
from nova_container.compute import quiescing
from nova_container.compute import rescue
from nova_container.compute import snapshot
from nova_container.compute import unsupported
from nova_container.compute import volume_driver
from nova_container.compute import volume_recovery
from nova_container.compute import volumes
from nova_container import conf
from nova_container import exception
from nova_container.image import store
from nova_container.privileged import place
from nova_container.runtime import console
from nova_container.runtime import engine
from nova_container.runtime import health
from nova_container.runtime import monitor
from nova_container.runtime import restart
from nova_container.runtime import state
from nova_container.runtime import stats

CONF = nova.conf.CONF
LOG = log.getLogger(__name__)

conf.register_opts(CONF)

_POWER_STATES = {
    # Held until its network is there: to a user it is not running yet.
    state.Status.CREATED: power_state.NOSTATE,
    state.Status.RUNNING: power_state.RUNNING,
    state.Status.HELD: power_state.RUNNING,
    state.Status.PAUSED: power_state.PAUSED,
    state.Status.SUSPENDED: power_state.SUSPENDED,
    state.Status.STOPPED: power_state.SHUTDOWN,
}

# What a program makes of it: Java and Go tell what their threads do, C dumps
# core, and a first process that does not handle it never sees it.
_DUMP_SIGNAL = 'SIGQUIT'

# What "nova console-log" shows at most; the API's own limit is on lines.
_CONSOLE_BYTES = 100 * 1024


class ContainerDriver(moving.MovingMixin, rescue.RescueMixin,
                      volume_driver.VolumeMixin, unsupported.UnsupportedMixin,
                      driver.ComputeDriver):
    """Runs instances as Linux containers."""

    capabilities = {
        **driver.ComputeDriver.capabilities,
        'has_imagecache': True,
        'supports_attach_interface': True,
        'supports_device_tagging': True,
        'supports_evacuate': True,
        'supports_extend_volume': True,
        'supports_image_type_raw': True,
        'supports_migrate_to_same_host': True,
        'supports_multiattach': True,
        'supports_pcpus': True,
        'supports_tagged_attach_interface': True,
        'supports_tagged_attach_volume': True,
        'supports_trusted_certs': True,
    }

    def __init__(self, virtapi):
        super().__init__(virtapi)
        self._images = None
        self._courier = None
        # Nova starts servers before its messages come in.
        self._gets_events = False
        # Spool files of containers that are resized on this host.
        self._kept = {}
        self._reporter = None
        self._monitor = None
        self._health = None
        self._feedback = None
        self._restarter = None
        self._logs = None
        self._volumes = None
        self._settler = None
        self._quiescer = None
        self._maintenance = None
        self._consoles = consoles.Consoles()

    def init_host(self, host):
        removed = engine.setup(os.getuid(), os.getgid())
        for container_id in removed:
            LOG.warning('Container %s was half made or half removed when the '
                        'service ended; the rest of it is gone now',
                        container_id)
        image_store = store.ImageStore(CONF.container.state_path)
        image_store.recover()
        volumes.recover()
        self._images = images.Images(image_store)
        self._images.recover()
        self._courier = courier.Courier()
        self._feedback = feedback.Feedback()
        self._health = health.HealthMonitor(self._feedback.health)
        self._logs = console.LogKeeper()
        self._reporter = lifecycle.ExitReporter(self._emit_stopped)
        self._restarter = restart.Restarter(self._restart,
                                            self._reporter.report)
        self._monitor = monitor.ExitMonitor(self._on_exit)
        self._volumes = volume_recovery.Finisher(self)
        self._settler = interrupted.Settler(host, _POWER_STATES,
                                            self._courier)
        self._quiescer = quiescing.Quiescer()
        self._maintenance = maintenance.Maintenance(host, self.virtapi)
        for container_id in state.ids():
            # The helper of a killed service may just have removed it.
            with contextlib.suppress(exception.ContainerNotFound):
                if os.path.exists(place.container_run(container_id)):
                    self._watch(container_id)
                elif restart.plan(container_id):
                    self._restarter.ended(container_id)

    def process_instances_at_startup(self, context, instances):
        self._settler.at_start(instances)
        self._maintenance.at_start()
        return instances

    def cleanup_host(self, host):
        for worker in (self._monitor, self._health, self._restarter,
                       self._reporter, self._feedback, self._logs,
                       self._volumes, self._settler, self._quiescer,
                       self._maintenance):
            if worker is not None:
                worker.stop()
        self._consoles.stop()

    def _watch(self, container_id):
        self._monitor.watch(container_id)
        self._health.watch(container_id)

    def _on_exit(self, container_id):
        self._feedback.ended(container_id)
        self._restarter.ended(container_id)

    @contextlib.contextmanager
    def _decided(self, instance):
        """Somebody decides about the container; its restart policy rests."""
        with lifecycle.exclusive(instance.uuid), \
                self._restarter.resting(instance.uuid):
            yield

    def _restart(self, container_id, restarts):
        """Start a container again whose process has ended."""
        with lifecycle.exclusive(container_id):
            if not self._restarter.pending(container_id):
                return
            instance = lifecycle.instance_to_restart(container_id)
            if instance is not None:
                network_info = instance.get_network_info()
                self._halt(instance, network_info, restarts=restarts)
                self._boot(instance, network_info, restarts)

    def _emit_stopped(self, container_id):
        self.emit_event(virtevent.LifecycleEvent(
            container_id, virtevent.EVENT_LIFECYCLE_STOPPED))

    # What is there

    def get_info(self, instance, use_cache=True):
        with fault.translated(instance):
            current = state.read(instance.uuid)
            if current.status is state.Status.STOPPED:
                if self._restarter.expected(instance.uuid):
                    # Nova would power off what it sees as shut down.
                    return hardware.InstanceInfo(state=power_state.NOSTATE)
                # It may just have been started again.
                current = state.read(instance.uuid)
        return hardware.InstanceInfo(state=_POWER_STATES[current.status])

    def list_instances(self):
        return state.ids()

    def list_instance_uuids(self):
        return state.ids()

    def instance_exists(self, instance):
        return state.exists(instance.uuid)

    def get_num_instances(self):
        return len(state.ids())

    def instance_on_disk(self, instance):
        return state.exists(instance.uuid)

    # Life of an instance

    def spawn(self, context, instance, image_meta, injected_files,
              admin_password, allocations, network_info=None,
              block_device_info=None, power_on=True, accel_info=None):
        with fault.translated(instance, building=True), \
                contextlib.ExitStack() as undo:
            undo.callback(volumes.disconnect_all, context, instance)
            attachments = volumes.connect_all(context, instance,
                                              block_device_info)
            image = self._images.ensure(context, instance, image_meta,
                                        boot=attachments.boot)
            # Waits for Neutron, which has worked meanwhile.
            network_info = network_info or []
            device_metadata.save(context, instance)
            spec = self._intent(
                instance, image, network_info, attachments,
                config_drive.files(instance, network_info, injected_files,
                                   admin_password),
                config_drive.injected(injected_files))
            undo.callback(self._remove, instance, network_info)
            self._images.keep(instance)
            moving.allow_smaller(instance, image_meta)
            engine.define(spec)
            if power_on:
                self._boot(instance, network_info)
            undo.pop_all()

    def _intent(self, instance, image, network_info, attachments,
                drive=None, injected=()):
        return intent.build(instance, image, network_info,
                            CONF.container.pids_limit, attachments, drive,
                            injected=injected)

    def _boot(self, instance, network_info, restarts=0):
        """Create, wire and start a defined container."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._halt, instance, network_info,
                          restarts=restarts or None)
            engine.create(instance.uuid, restarts)
            port.plug_and_wait(self.virtapi, instance, network_info,
                               events=self._gets_events)
            engine.start(instance.uuid)
            undo.pop_all()
        self._watch(instance.uuid)

    def _halt(self, instance, network_info, timeout=0, restarts=None):
        """Stop the process, then take its ports away."""
        with contextlib.ExitStack() as both:
            both.callback(port.unplug, instance, network_info)
            if timeout:
                engine.stop(instance.uuid, timeout)
            else:
                engine.halt(instance.uuid, restarts)

    def _remove(self, instance, network_info):
        with contextlib.ExitStack() as both:
            both.callback(port.unplug, instance, network_info)
            self._forget(instance)

    def _forget(self, instance):
        """Remove the container, but not one that was set aside."""
        engine.undefine(instance.uuid)
        self._drop_kept(instance)
        if not state.parked(instance.uuid):
            self._images.forget(instance)

    def _redefine(self, context, instance, network_info, block_device_info):
        """Take up what has changed in Nova since the last start."""
        attachments = volumes.connect_all(context, instance,
                                          block_device_info)
        if (instance.vm_state != vm_states.RESCUED
                and state.rescued(instance.uuid)):
            # Nova did not take note of the rescue, and would not end it.
            engine.unrescue(instance.uuid)
        image = self._images.of(instance)
        if image is not None:
            # It keeps its config drive, for which others would be asked.
            spec = self._intent(instance, image, network_info, attachments,
                                drive=())
            # Nova takes a larger flavor back if the resize to it fails.
            engine.define(dataclasses.replace(
                spec, disk=spec.disk.at_least(engine.disks(instance.uuid))))

    def destroy(self, context, instance, network_info, block_device_info=None,
                destroy_disks=True, destroy_secrets=True):
        with fault.translated(instance), self._decided(instance):
            if destroy_disks:
                self._remove(instance, network_info or [])
            else:
                self._halt(instance, network_info or [])
            volumes.disconnect_all(context, instance)

    def cleanup(self, context, instance, network_info, block_device_info=None,
                destroy_disks=True, migrate_data=None, destroy_vifs=True,
                destroy_secrets=True):
        with fault.translated(instance), self._decided(instance):
            if destroy_vifs:
                port.unplug(instance, network_info or [])
            if destroy_disks:
                self._forget(instance)
            volumes.disconnect_all(context, instance)

    def delete_instance_files(self, instance):
        engine.discard(instance.uuid)
        self._forget(instance)
        return True

    def power_off(self, instance, timeout=0, retry_interval=0):
        with fault.translated(instance), self._decided(instance):
            if (instance.task_state == task_states.REBUILDING
                    and not state.exists(instance.uuid)):
                # A rebuild that failed has left none.
                return
            self._halt(instance, instance.get_network_info(), timeout)

    def power_on(self, context, instance, network_info,
                 block_device_info=None, accel_info=None, share_info=None):
        with fault.translated(instance), self._decided(instance):
            self._complete_arrival(context, instance, network_info,
                                   block_device_info)
            current = state.read(instance.uuid)
            if current.status in (state.Status.RUNNING, state.Status.HELD):
                return
            self._halt(instance, network_info)
            self._redefine(context, instance, network_info,
                           block_device_info)
            self._boot(instance, network_info)

    def reboot(self, context, instance, network_info, reboot_type,
               block_device_info=None, bad_volumes_callback=None,
               accel_info=None, share_info=None):
        with fault.translated(instance), self._decided(instance):
            self._complete_arrival(context, instance, network_info,
                                   block_device_info)
            state.read(instance.uuid)
            if reboot_type == 'SOFT':
                self._halt(instance, network_info, CONF.shutdown_timeout)
            else:
                self._halt(instance, network_info)
                self._redefine(context, instance, network_info,
                               block_device_info)
            self._boot(instance, network_info)
            if instance.vm_state == vm_states.ERROR:
                # It may have come here, and not started then.
                volume_recovery.complete_all(context, instance,
                                             block_device_info)

    def snapshot(self, context, instance, image_id, update_task_state):
        with fault.translated(instance):
            snapshot.take(self._images, context, instance, image_id,
                          update_task_state, CONF.container.snapshot_format)

    def quiesce(self, context, instance, image_meta):
        self._quiescer.quiesce(instance)

    def unquiesce(self, context, instance, image_meta):
        with fault.translated(instance):
            self._quiescer.unquiesce(instance)

    def pause(self, instance):
        with fault.translated(instance):
            engine.pause(instance.uuid)

    def unpause(self, instance):
        with fault.translated(instance):
            engine.resume(instance.uuid)

    def suspend(self, context, instance):
        with fault.translated(instance):
            engine.suspend(instance.uuid)

    def resume(self, context, instance, network_info, block_device_info=None,
               share_info=None):
        with fault.translated(instance):
            frozen = state.read(instance.uuid).process is not None
            if frozen:
                engine.resume(instance.uuid)
        if not frozen:
            # The host was restarted meanwhile.
            self.power_on(context, instance, network_info, block_device_info)

    def trigger_crash_dump(self, instance):
        with fault.translated(instance):
            engine.send_signal(instance.uuid, _DUMP_SIGNAL)

    def set_admin_password(self, instance, new_pass):
        with fault.translated(instance):
            password.set_admin(instance, new_pass)

    def poll_rebooting_instances(self, timeout, instances):
        for instance in instances:
            # A reboot ends within the time of the stop signal and that of
            # the network: this one was cut off by the end of a service.
            LOG.warning('The reboot has taken more than %d s; reboot it hard',
                        timeout, instance=instance)

    def resume_state_on_host_boot(self, context, instance, network_info,
                                  share_info, block_device_info=None):
        if instance.task_state is not None:
            # Whoever is at work on it, here or on another host, starts it.
            return
        self.power_on(context, instance, network_info, block_device_info)

    def get_console_output(self, context, instance):
        with fault.translated(instance):
            state.read(instance.uuid)
            return console.text(instance.uuid, _CONSOLE_BYTES)

    def get_serial_console(self, context, instance):
        with fault.translated(instance):
            return self._consoles.serial(instance)

    def get_vnc_console(self, context, instance):
        with fault.translated(instance):
            return self._consoles.graphical(instance)

    def get_instance_diagnostics(self, instance):
        with fault.translated(instance):
            current = state.read(instance.uuid)
            return diagnostics.standard(
                instance, power_state.STATE_MAP[_POWER_STATES[current.status]],
                stats.read(instance.uuid))

    def get_diagnostics(self, instance):
        with fault.translated(instance):
            return diagnostics.plain(stats.read(instance.uuid))

    # Network

    def plug_vifs(self, instance, network_info):
        # Called for every instance at service start: one that is gone must
        # not keep the service down.
        if not state.exists(instance.uuid):
            LOG.warning('There is no container to plug interfaces into',
                        instance=instance)
            return
        if self._restarter.pending(instance.uuid):
            # That start plugs them, and may wait for Neutron meanwhile.
            return
        # It may be removed meanwhile, or end.
        with fault.translated(instance), lifecycle.exclusive(instance.uuid), \
                contextlib.suppress(exception.ContainerNotFound):
            if state.read(instance.uuid).process is None:
                return
            try:
                port.plug(instance, network_info)
            except exception.ContainerError as e:
                if state.read(instance.uuid).process is not None:
                    raise
                LOG.info('It ended while its interfaces were looked at: %s',
                         e, instance=instance)

    def unplug_vifs(self, instance, network_info):
        with fault.translated(instance):
            port.unplug(instance, network_info)

    def attach_interface(self, context, instance, image_meta, vif):
        with fault.translated(instance), lifecycle.exclusive(instance.uuid):
            port.attach(self.virtapi, instance, vif)
            device_metadata.save(context, instance)

    def detach_interface(self, context, instance, vif):
        with fault.translated(instance), lifecycle.exclusive(instance.uuid):
            port.unplug(instance, [vif])
            device_metadata.save(context, instance, gone=vif['address'])

    # The host

    def set_host_enabled(self, enabled):
        # Nova tells placement itself; there is no more to it.
        return 'enabled' if enabled else 'disabled'

    def host_maintenance_mode(self, host, mode):
        return self._maintenance.enter() if mode else self._maintenance.leave()

    def manage_image_cache(self, context, all_instances):
        self._images.expire(all_instances)

    def cache_image(self, context, image_id):
        return self._images.cache(context, image_id)

    def get_available_nodes(self, refresh=False):
        return [CONF.host]

    def get_available_resource(self, nodename):
        # Asked for the first time just before the service takes messages.
        self._gets_events = True
        return inventory.resources(nodename)

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        current = provider_tree.data(nodename).inventory
        provider_tree.update_inventory(nodename, inventory.inventory(
            self._get_allocation_ratios(current),
            self._get_reserved_host_disk_gb_from_config()
            + self._images.disk_gb()))
        for trait, there in inventory.traits().items():
            change = (provider_tree.add_traits if there
                      else provider_tree.remove_traits)
            change(nodename, trait)

    def get_host_cpu_stats(self):
        return inventory.cpu_times()

    def get_host_ip_addr(self):
        return CONF.my_ip

    def get_host_uptime(self):
        return subprocess.run(['uptime'], env={'LC_ALL': 'C', **place.ENV},
                              capture_output=True, text=True,
                              check=True).stdout
