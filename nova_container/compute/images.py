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

"""Glance images as layers on this host."""

import errno

from nova import exception as nova_exception
from nova.image import glance

from nova_container.compute import courier
from nova_container import exception
from nova_container.image import archive
from nova_container.image import store
from nova_container.oci import digest

_CONTAINER_FORMAT = 'docker'
_DISK_FORMAT = 'raw'


class Images:
    """The image store, fed by Nova's Glance client."""

    def __init__(self, images: store.ImageStore):
        self._store = images
        self._glance = glance.API()

    def ensure(self, context, instance, image_meta,
               image_id: str | None = None) -> store.Image:
        """The image of a server, unpacked on this host.

        Glance is asked with the user's own token.

        :param image_meta: nova.objects.ImageMeta
        :param image_id: another image than the one it is made from
        :raises UserError: not an image of ours, or larger than the flavor
        """
        image_id = image_id or instance.image_ref
        if not image_id:
            raise exception.InvalidSpec(
                'boot from volume is not supported yet by the container '
                'driver; boot from an image')
        given = (image_meta.container_format, image_meta.disk_format)
        if given != (_CONTAINER_FORMAT, _DISK_FORMAT):
            raise exception.ImageInvalid(
                f'image {image_id}: container format {given[0]!r} '
                f'and disk format {given[1]!r}; upload it with '
                f'--container-format {_CONTAINER_FORMAT} '
                f'--disk-format {_DISK_FORMAT}')

        def fetch(file):
            try:
                self._glance.download(context, image_id, data=file,
                                      trusted_certs=instance.trusted_certs)
            except (OSError, nova_exception.GlanceConnectionFailed) as e:
                # What requests raises is an OSError, too.
                if getattr(e, 'errno', None) in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise exception.ImageIncomplete(
                    f'Glance broke off after {file.size} bytes: {e}; see '
                    'that it runs, and try again')

        root_gb = instance.flavor.root_gb
        return self._store.ensure(
            image_id, fetch, size=_size(image_meta),
            max_bytes=(root_gb << 30) or None)

    def keep(self, instance) -> None:
        """Remember what a server is made of, whatever becomes of its image.
        """
        self._store.adopt(instance.uuid,
                          self._store.raw_config(instance.image_ref))

    def forget(self, instance) -> None:
        """Undo ``keep``."""
        self._store.remove(instance.uuid)

    def of(self, instance) -> store.Image | None:
        """What a server is made of, if it is on this host."""
        return (self._store.get(instance.uuid)
                or self._store.get(instance.image_ref))

    def raw_config(self, instance) -> bytes:
        """The configuration of what a server is made of, as it came."""
        found = (instance.uuid if self._store.get(instance.uuid)
                 else instance.image_ref)
        return self._store.raw_config(found)

    def adopt(self, instance, raw_config: bytes) -> store.Image | None:
        """Remember what a server is made of, if all its layers are here."""
        return self._store.adopt(instance.uuid, raw_config)

    def obtainable(self, instance) -> frozenset[digest.Digest]:
        """diffIDs of the layers that any host gets from a server's image."""
        image = self._store.get(instance.image_ref)
        try:
            status = self._glance.get(courier.service_context(),
                                      instance.image_ref)['status']
        except (nova_exception.ImageNotFound,
                nova_exception.ImageNotAuthorized):
            status = 'deleted'
        if image is None or status != 'active':
            return frozenset()
        return frozenset(image.config.diff_ids)

    def spool(self, owner: str):
        """A spool file; see ``ImageStore.spool``."""
        return self._store.spool(owner)

    def unpack_layer(self, spool: str, diff_id: str, offset: int, size: int,
                     compression: str) -> None:
        """Unpack one layer of a spool file, unless it is here."""
        self._store.unpack(spool, archive.LayerBlob(
            digest.Digest(diff_id), offset, size, compression))

    def properties(self, context, image_id: str) -> dict[str, str]:
        """All of an image's properties; Nova's ImageMeta drops those that it
        does not know.
        """
        return self._glance.get(context, image_id)['properties']


def _size(image_meta) -> int | None:
    """Bytes of the archive; unknown where Nova asks its own memory."""
    return image_meta.size or None if 'size' in image_meta else None
