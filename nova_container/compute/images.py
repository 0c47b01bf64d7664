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

"""Images of Glance for the store on this host."""

import time

import cryptography.exceptions
from cursive import exception as cursive_exception
from nova.compute import vm_states
import nova.conf
from nova import exception as nova_exception
from nova.image import glance

from nova_container.compute import boot_volume
from nova_container.compute import courier
from nova_container.compute import layer_images
from nova_container import exception
from nova_container.image import archive
from nova_container.image import record
from nova_container.image import store
from nova_container.image import thin
from nova_container.image import trust
from nova_container.oci import digest
from nova_container.oci import image_config
from nova_container.runtime import engine
from nova_container.runtime import state
from nova_container.runtime import stats

CONF = nova.conf.CONF

# A layer that came with a server has no place in any archive.
_NOWHERE = 'none'

_SERVER = 'server-'

# What each message of cursive's begins with; a fault has little room.
_VERIFICATION = 'Signature verification for the image failed: '

# Seconds that one pass over unused images may take.
_PASS = 60


class Images:
    """The image store, fed by Nova's Glance client.

    :ivar store: the store
    """

    def __init__(self, images: store.ImageStore):
        self.store = images
        self._glance = glance.API()

    def ensure(self, context, instance, image_meta,
               image_id: str | None = None,
               boot: boot_volume.Archive | None = None,
               moved: bool = False) -> store.Image:
        """The image of a server, unpacked on this host.

        Glance is asked with the user's own token.

        :param image_meta: nova.objects.ImageMeta
        :param image_id: another image than the one it is made from
        :param boot: where the image is, unless in Glance
        :param moved: it comes from a host that knows its layers by their
            digests, and has checked the signature that the user asks for
        :raises UserError: not an image of ours, or larger than the flavor, or
            one whose layers the user may not read, or not signed as it has to
            be
        """
        if image_id is None and boot is not None:
            return self._ensure_from_volume(context, instance, boot)
        image_id = image_id or instance.image_ref
        if not image_id:
            raise exception.InvalidSpec(
                'it has neither an image nor a volume to boot from')
        _check_format(image_id, image_meta.container_format,
                      image_meta.disk_format)

        def owner():
            if 'owner' in image_meta and image_meta.owner:
                return image_meta.owner
            return self._glance.get(context, image_id)['owner']

        def fetch(file):
            if moved:
                # Who moves it may not be let to the user's certificates.
                with layer_images.reading(f'image {image_id}', file):
                    layer_images.download(context, image_id, file)
            else:
                self.download(context, image_id, file, instance.trusted_certs)

        return self.store.ensure(
            image_id, fetch, size=_size(image_meta),
            max_bytes=_limit(
                instance, instance.vm_state == vm_states.SHELVED_OFFLOADED),
            source=layer_images.LayerImages(context, owner),
            trust=None if moved else _trust(instance.trusted_certs))

    def _ensure_from_volume(self, context, instance, boot) -> store.Image:
        # A server of a snapshot of a volume names an image, which is empty.
        return self.store.ensure(
            _own(instance.uuid), boot.read, size=boot.size,
            max_bytes=boot.room(), source=layer_images.LayerImages(
                context, lambda: instance.project_id))

    def recover(self) -> None:
        """Rename the records of servers that an earlier version has made."""
        if any(name.startswith(_SERVER) for name in self.store.records()):
            return
        for server in (*state.ids(), *state.all_parked()):
            known = self.store.record(server)
            if known and self.store.adopt(_own(server), known):
                self.store.remove(server)

    def keep(self, instance) -> None:
        """Remember what a server is made of, whatever becomes of its image.
        """
        known = self.store.record(_source(instance))
        if known is not None:
            self.store.adopt(_own(instance.uuid), known)

    def forget(self, instance) -> None:
        """Undo ``keep``."""
        self.store.remove(_own(instance.uuid))

    def of(self, instance) -> store.Image | None:
        """What a server is made of, if it is on this host."""
        return (self.store.get(_own(instance.uuid))
                or self.store.get(_source(instance)))

    def record_of(self, instance) -> record.Record | None:
        """The record of what a server is made of."""
        return (self.store.record(_own(instance.uuid))
                or self.store.record(_source(instance)))

    def require_shelvable(self, instance) -> None:
        """Refuse to make an image that no host takes at unshelve.

        :raises ImageTooBig: it would be
        """
        limit, known = _limit(instance, True), self.of(instance)
        written = stats.disk_used(instance.uuid)
        if (limit is not None and known is not None and written is not None
                and known.size + written > limit):
            raise exception.ImageTooBig(
                f'container {instance.uuid}: its image of {known.size} bytes '
                f'and the {written} that it has written are more than the '
                f'{limit} of which a host could unshelve it; delete files '
                'that it has written, or boot an image of it with a larger '
                'flavor')

    def adopt(self, instance, raw_config: bytes) -> store.Image | None:
        """Remember what a server is made of, if all its layers are here."""
        base = self.store.record(_source(instance))
        blobs = {blob.diff_id: blob for blob in (base.layers if base else ())}
        config = image_config.ImageConfig.from_json(raw_config)
        return self.store.adopt(_own(instance.uuid), record.Record(
            raw_config, tuple(
                blobs.get(diff_id)
                or archive.LayerBlob(diff_id, 0, 0, _NOWHERE)
                for diff_id in config.diff_ids)))

    def obtainable(self, instance) -> frozenset[digest.Digest]:
        """diffIDs of the layers that any host gets from a server's image."""
        known = self.store.record(_source(instance))
        if known is not None and not instance.image_ref:
            # The volume goes where the server goes.
            return frozenset(known.config.diff_ids)
        try:
            status = self._glance.get(courier.service_context(),
                                      instance.image_ref)['status']
        except (nova_exception.ImageNotFound,
                nova_exception.ImageNotAuthorized):
            status = 'deleted'
        if known is None or status != 'active':
            return frozenset()
        return frozenset(known.config.diff_ids)

    def unpack_layer(self, spool_name: str, diff_id: str, offset: int,
                     size: int, compression: str) -> None:
        """Unpack one layer of a spool file, unless it is here."""
        self.store.unpack(spool_name, archive.LayerBlob(
            digest.Digest(diff_id), offset, size, compression), offset)

    def properties(self, context, image_id: str) -> dict[str, str]:
        """All of an image's properties; Nova's ImageMeta drops those that it
        does not know.
        """
        return self._glance.get(context, image_id).get('properties') or {}

    def cache(self, context, image_id) -> bool:
        """Have an image on this host before a server needs it.

        :returns: False if it was there
        """
        if self.store.get(image_id) is not None:
            self.store.touch(image_id)
            return False
        image = self._glance.get(context, image_id)
        _check_format(image_id, image['container_format'],
                      image['disk_format'])
        self.store.ensure(
            image_id, lambda file: self.download(context, image_id, file),
            size=image['size'] or None,
            source=layer_images.LayerImages(context, lambda: image['owner']),
            trust=_trust(None))
        return True

    def download(self, context, image_id, file, trusted_certs=None) -> None:
        """Write the data of an image, its signature checked if Nova is
        configured so.

        :param file: ``image.spool.File``
        """
        try:
            with layer_images.reading(f'image {image_id}', file):
                self._glance.download(context, image_id, data=file,
                                      trusted_certs=trusted_certs)
        except cryptography.exceptions.InvalidSignature:
            raise exception.ImageUntrusted(
                'its data is not what was signed; upload it again, and sign '
                'that')
        except (cursive_exception.SignatureVerificationError,
                nova_exception.CertificateValidationFailed) as e:
            reason = str(e).removeprefix(_VERIFICATION).rstrip('.')
            raise exception.ImageUntrusted(
                f'{reason}; sign it, or trust the certificate that signed it')

    def expire(self, instances) -> None:
        """Remove what no server has used for as long as Nova says
        ([image_cache] remove_unused_original_minimum_age_seconds).

        :param instances: nova.objects.InstanceList, all of this host
        """
        if CONF.image_cache.remove_unused_base_images:
            # What has moved may come back, and Nova counts it elsewhere.
            self.store.expire(
                {name for instance in instances
                 for name in (_source(instance), _own(instance.uuid))}
                | set(map(_own, state.all_parked())),
                engine.layers_in_use(),
                CONF.image_cache.remove_unused_original_minimum_age_seconds,
                time.monotonic() + _PASS)

    def disk_gb(self) -> int:
        """Disk that the layers of this host use, once each, GiB."""
        size = sum(layer.size for layer in self.store.layers())
        return -(-size // (1 << 30))


def _own(server: str) -> str:
    """The record of what a server is made of: no id that Glance would take,
    which a tenant may choose for an image.
    """
    return f'{_SERVER}{server}'


def _source(instance) -> str:
    """The image that a server is made of; its own record, if it has it from
    a volume.
    """
    return instance.image_ref or _own(instance.uuid)


def _limit(instance, shelved: bool) -> int | None:
    """Bytes that the image of a server may use on disk; None for any.

    :param shelved: it is made of the server: of its image and of all that it
        has written, each of which may fill the flavor's root disk
    """
    return (instance.flavor.root_gb << 30) * (2 if shelved else 1) or None


def _check_format(image_id: str, container_format: str,
                  disk_format: str) -> None:
    given = (container_format, disk_format)
    if given != (thin.CONTAINER_FORMAT, thin.DISK_FORMAT):
        raise exception.ImageInvalid(
            f'image {image_id}: container format {given[0]!r} and disk '
            f'format {given[1]!r}; upload it with --container-format '
            f'{thin.CONTAINER_FORMAT} --disk-format {thin.DISK_FORMAT}')


def _trust(trusted_certs) -> trust.Trust | None:
    """What nova.image.glance makes of its options when it downloads."""
    if trusted_certs:
        return trust.Trust(frozenset(trusted_certs.ids))
    ids = CONF.glance.default_trusted_certificate_ids
    if CONF.glance.enable_certificate_validation and ids:
        return trust.Trust(frozenset(ids))
    if not CONF.glance.verify_glance_signatures:
        return None
    # Nova takes no certificate at all for none that is trusted.
    return trust.Trust(frozenset()
                       if CONF.glance.enable_certificate_validation else None)


def _size(image_meta) -> int | None:
    """Bytes of the archive; unknown where Nova asks its own memory."""
    return image_meta.size or None if 'size' in image_meta else None
