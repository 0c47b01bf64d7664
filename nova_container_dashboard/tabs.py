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

"""The tab on the page of a server."""

import logging

from django.conf import settings
from django.utils.translation import gettext_lazy as _
from horizon import exceptions
from horizon import tabs
from openstack_dashboard import api

from nova_container_dashboard import container
from nova_container_dashboard import image as images
from nova_container_dashboard import layers
from nova_container_dashboard import rest  # noqa: F401 registers its address

LOG = logging.getLogger(__name__)


class ContainerTab(tabs.Tab):
    """Process, health, use of resources, and layers of the image."""

    name = _('Container')
    slug = 'container'
    template_name = 'nova_container_dashboard/container.html'
    preload = False

    def allowed(self, request):
        """Only for what runs on a host of the container driver."""
        return self._is_archive() or container.has_words(
            self.tab_group.kwargs['instance'].metadata)

    def _is_archive(self):
        return self._image_kind() == 'docker'

    def _image_kind(self):
        instance = self.tab_group.kwargs['instance']
        image = getattr(instance, 'image', None) or {}
        if not image.get('id'):
            return None
        if not hasattr(self, '_image'):
            try:
                self._image = api.glance.image_get(self.request, image['id'])
            except Exception:
                # It was deleted, or is another project's by now.
                self._image = None
        return self._image and self._image.container_format

    def get_context_data(self, request):
        instance = self.tab_group.kwargs['instance']
        found = []
        try:
            if self._is_archive():
                found = images.layers_of(request, self._image)
        except layers.Unreadable as e:
            LOG.info('The layers of image %s cannot be told: %s',
                     self._image.id, e)
        except Exception:
            exceptions.handle(request, _('Unable to read the layers of the '
                                         'image.'))
        return {'instance': instance, 'layers': found,
                'webroot': settings.WEBROOT,
                'size': sum(layer.size for layer in found),
                'container': container.Container.of(instance.metadata)}
