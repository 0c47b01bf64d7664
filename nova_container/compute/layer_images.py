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

"""Layer images in Glance, asked for with a user's own token.

See ``image.thin`` for what they are.
"""

import contextlib
import errno

import glanceclient.exc
from nova import exception as nova_exception
from nova.image import glance

from nova_container import exception
from nova_container.image import thin


@contextlib.contextmanager
def reading(what: str, file):
    """Raise what can go wrong while Glance sends data as our errors.

    :param what: names the image
    :param file: ``image.spool.File`` that is being written
    """
    try:
        yield
    except (glanceclient.exc.HTTPNotFound, glanceclient.exc.HTTPForbidden,
            nova_exception.ImageNotFound,
            nova_exception.ImageNotAuthorized) as e:
        raise exception.ImageForbidden(
            f'{what} cannot be read any more: {e}')
    except (OSError, glanceclient.exc.CommunicationError,
            nova_exception.GlanceConnectionFailed) as e:
        # What requests raises is an OSError, too.
        if getattr(e, 'errno', None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise exception.ImageIncomplete(
            f'Glance broke off after {file.size} bytes of {what}: {e}; see '
            'that it runs, and try again')


def download(context, image_id: str, file) -> None:
    """Write the data of an image that is known by its digests, or the
    service's own. Nova's own download would ask for a signature.

    :param file: ``image.spool.File``, or one like it
    :raises ImageInvalid: it has no data
    """
    chunks = glance.GlanceClientWrapper().call(context, 2, 'data',
                                               args=(image_id,))
    if chunks is None or chunks.wrapped is None:
        raise exception.ImageInvalid(f'image {image_id} has no data')
    for chunk in chunks:
        file.write(chunk)


class LayerImages:
    """A ``store.LayerSource``.

    :param context: the user's
    :param owner: called for the project that the thin image belongs to
    """

    def __init__(self, context, owner=lambda: None):
        self._context = context
        self._owner = owner
        self._client = glance.GlanceClientWrapper()

    def _call(self, method, *args, **kwargs):
        return self._client.call(self._context, 2, method, args=args,
                                 kwargs=kwargs)

    def find(self, layers):
        listed = [
            thin.LayerImage.of(image)
            for filters in thin.queries(layer.blob_digest for layer in layers)
            for image in self._call('list', filters=filters)]
        owner = self._owner()
        project = self._context.project_id
        return {layer.blob_digest: thin.candidates(
            layer.blob_digest, layer.size, listed, project, owner)
            for layer in layers}

    def fetch(self, image, file):
        with reading(f'layer image {image.id}', file):
            download(self._context, image.id, file)

    def upload(self, layer, diff_id, data, member=None) -> str:
        """A new layer image; its id. None is left if that fails.

        :param layer: ``manifest.Descriptor``
        :param data: file-like, as long as ``layer`` says
        :param member: another project that may read it
        """
        fields = thin.layer_fields(layer, diff_id)
        if member is not None:
            fields['visibility'] = 'shared'
        image_id = self._call('create', **fields)['id']
        with contextlib.ExitStack() as undo:
            undo.callback(self.delete, image_id)
            if member is not None:
                self._client.call(
                    self._context, 2, 'create', controller='image_members',
                    args=(image_id, member))
            self._call('upload', image_id, data)
            # Nova's client tries again with what is left of the data.
            size = self._call('get', image_id)['size']
            if size != layer.size:
                raise exception.ImageIncomplete(
                    f'layer {layer.digest.short}: Glance has {size} of '
                    f'{layer.size} bytes; try again')
            undo.pop_all()
        return image_id

    def delete(self, image_id) -> None:
        """Succeeds if it is not there."""
        with contextlib.suppress(glanceclient.exc.HTTPNotFound):
            self._call('delete', image_id)
