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
import nova.conf
from nova import exception as nova_exception
from nova.image import glance

from nova_container.compute import layer_images
from nova_container import exception
from nova_container.image import store
from nova_container.image import thin
from nova_container.runtime import engine

CONF = nova.conf.CONF

# Seconds that one pass over unused images may take.
_PASS = 60


class Images:
    """The image store, fed by Nova's Glance client.

    :ivar store: the store
    """

    def __init__(self, images: store.ImageStore):
        self.store = images
        self._glance = glance.API()

    def ensure(self, context, instance, image_meta) -> store.Image:
        """The image of a server, unpacked on this host.

        Glance is asked with the user's own token.

        :param image_meta: nova.objects.ImageMeta
        :raises UserError: not an image of ours, or larger than the flavor, or
            one whose layers the user may not read
        """
        if not instance.image_ref:
            raise exception.InvalidSpec(
                'boot from volume is not supported yet by the container '
                'driver; boot from an image')
        _check_format(instance.image_ref, image_meta.container_format,
                      image_meta.disk_format)
        root_gb = instance.flavor.root_gb

        def owner():
            if 'owner' in image_meta and image_meta.owner:
                return image_meta.owner
            return self._glance.get(context, instance.image_ref)['owner']

        return self.store.ensure(
            instance.image_ref,
            lambda file: self.download(context, instance.image_ref, file,
                                       instance.trusted_certs),
            size=image_meta.size or None, max_bytes=(root_gb << 30) or None,
            source=layer_images.LayerImages(context, owner))

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
            source=layer_images.LayerImages(context, lambda: image['owner']))
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
        except (cryptography.exceptions.InvalidSignature,
                cursive_exception.SignatureVerificationError,
                nova_exception.CertificateValidationFailed) as e:
            raise exception.ImageInvalid(
                f'its signature is not valid: {e or "wrong signature"}; sign '
                'the image again, or trust its certificate')

    def expire(self, instances) -> None:
        """Remove what no server has used for as long as Nova says
        ([image_cache] remove_unused_original_minimum_age_seconds).

        :param instances: nova.objects.InstanceList, all of this host
        """
        if CONF.image_cache.remove_unused_base_images:
            self.store.expire(
                {instance.image_ref for instance in instances},
                engine.layers_in_use(),
                CONF.image_cache.remove_unused_original_minimum_age_seconds,
                time.monotonic() + _PASS)

    def disk_gb(self) -> int:
        """Disk that the layers of this host use, once each, GiB."""
        size = sum(layer.size for layer in self.store.layers())
        return -(-size // (1 << 30))

    def cached(self, image_ref: str) -> store.Image | None:
        """The image, if it is on this host already."""
        return self.store.get(image_ref)


def _check_format(image_id: str, container_format: str,
                  disk_format: str) -> None:
    given = (container_format, disk_format)
    if given != (thin.CONTAINER_FORMAT, thin.DISK_FORMAT):
        raise exception.ImageInvalid(
            f'image {image_id}: container format {given[0]!r} and disk '
            f'format {given[1]!r}; upload it with --container-format '
            f'{thin.CONTAINER_FORMAT} --disk-format {thin.DISK_FORMAT}')
