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

from nova_container import exception
from nova_container.image import store

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
                f'and disk format {given[1]!r}; upload a "docker save" or OCI '
                f'archive with --container-format {_CONTAINER_FORMAT} '
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
            image_id, fetch, size=image_meta.size or None,
            max_bytes=(root_gb << 30) or None)

    def properties(self, context, image_id: str) -> dict[str, str]:
        """All of an image's properties; Nova's ImageMeta drops those that it
        does not know.
        """
        return self._glance.get(context, image_id)['properties']

    def cached(self, image_ref: str) -> store.Image | None:
        """The image, if it is on this host already."""
        return self._store.get(image_ref)
