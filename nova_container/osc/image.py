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

"""The commands ``openstack container image ...``."""

import argparse
import contextlib
import json
import pathlib
import sys
import tempfile

from cliff import columns
from openstack import exceptions as sdk_exceptions
from osc_lib.command import command
from osc_lib import exceptions

from nova_container import exception
from nova_container.image import thin
from nova_container.oci import digest
from nova_container.osc import glance
from nova_container.osc import layout
from nova_container.osc import skopeo
from nova_container.osc import told
from nova_container.osc import transfer
from nova_container.osc import usage

# Of layers that may be part of an image to come, in seconds.
_AGE = 86400

_VISIBILITIES = ('private', 'shared', 'community', 'public')


class Rows(columns.FormattableColumn):
    """A list of objects: a table to people, as it is to programs."""

    def human_readable(self) -> str:
        if not self._value:
            return ''
        names = list(self._value[0])
        lines = [names] + [[str(row[name]) for name in names]
                           for row in self._value]
        widths = [max(map(len, column)) for column in zip(*lines)]
        return '\n'.join('  '.join(
            cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
            for line in lines)


class Size(columns.FormattableColumn):
    """Bytes."""

    def human_readable(self) -> str:
        value = float(self._value)
        for unit in ('B', 'KiB', 'MiB'):
            if value < 1024:
                return f'{value:.4g} {unit}'
            value /= 1024
        return f'{value:.4g} GiB'


def _shown(text: str, width: int = 60) -> str:
    """One line of a text."""
    line = ' '.join(text.split())
    return line if len(line) <= width else line[:width - 1] + '…'


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition('=')
    if not equals or not name:
        raise argparse.ArgumentTypeError(f'{text!r} is not NAME=VALUE')
    return name, value


def _seconds(text: str) -> int:
    if not text.isdecimal() or int(text) > 10 ** 9:
        raise argparse.ArgumentTypeError(f'{text!r} is no number of seconds')
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 32:
        raise argparse.ArgumentTypeError(f'{text!r} is not in 1..32')
    return int(text)


class _Transfer(command.ShowOne):
    """What push and pull have in common."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--parallel', type=_positive, default=transfer.PARALLEL,
            metavar='<number>',
            help=f'Layers under way at once (default: {transfer.PARALLEL})')
        parser.add_argument(
            '--no-tls-verify', dest='tls_verify', action='store_false',
            help='Talk to a registry of docker:// without TLS or with a '
                 'certificate that nobody vouches for')
        parser.add_argument(
            '--authfile', metavar='<file>',
            help='Credentials of a registry; see containers-auth.json(5)')
        return parser


class PushImage(_Transfer):
    """Upload an image to Glance: only the layers that it lacks travel.

    Interrupted, it goes on with the layers that are missing when it is
    called again.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'source', metavar='<source>',
            help='TRANSPORT:DETAILS of skopeo: docker-archive:FILE, '
                 'oci-archive:FILE, oci:DIRECTORY, dir:DIRECTORY, '
                 'docker://REGISTRY/NAME:TAG, containers-storage:NAME, '
                 'tarball:FILE')
        parser.add_argument('name', metavar='<name>',
                            help='Name of the image in Glance')
        parser.add_argument(
            '--architecture', metavar='<arch>',
            help='Which image of several, such as amd64 or arm64 (default: '
                 "this machine's)")
        parser.add_argument(
            '--compression', choices=('gzip', 'zstd'),
            help='Of all layers (default: as they are; gzip for those that '
                 'are not compressed)')
        parser.add_argument(
            '--property', type=_pair, action='append', default=[],
            metavar='<name=value>', help='Property of the image; repeat it '
            'for more')
        return parser

    def take_action(self, parsed_args):
        store = self.app.client_manager.container_image
        with told.errors(), tempfile.TemporaryDirectory(
                prefix='container-image-') as work:
            directory = pathlib.Path(work, 'layout')
            skopeo.fetch(
                parsed_args.source, str(directory), parsed_args.compression,
                parsed_args.architecture, parsed_args.tls_verify,
                parsed_args.authfile)
            image = layout.from_directory(directory)
            moved = self._layers(store, image, directory, parsed_args.parallel)
            made = self._image(store, image, parsed_args)
            with contextlib.ExitStack() as undo:
                undo.callback(store.delete, made['id'])
                # Who deleted layers did not see the image; now all do.
                moved |= self._layers(store, image, directory,
                                      parsed_args.parallel, again=True)
                undo.pop_all()
        return zip(*{
            'id': made['id'],
            'name': made['name'],
            'layers': len(image.layers),
            'size': Size(image.size),
            'uploaded_layers': len(moved),
            'uploaded_bytes': Size(sum(layer.size for layer in moved)),
        }.items())

    @staticmethod
    def _layers(store, image, directory, parallel, again=False):
        """Upload the layers that Glance lacks; which those were."""
        layers = dict(image.layers)
        found = store.layers(layers)
        missing = {layer: thin.layer_fields(layer, diff_id)
                   for layer, diff_id in layers.items()
                   if not (found[layer.digest] if again else
                           _taken(store, found[layer.digest]))}
        with transfer.Bars() as bars:
            for layer in layers:
                if layer not in missing and not again:
                    bars.say(layer.digest, layer.size, 'already in Glance')
            transfer.upload(store, bars, missing,
                            lambda name: layout.blob(directory, name),
                            parallel)
        return missing

    @staticmethod
    def _image(store, image, parsed_args):
        data = thin.build(image.raw_config,
                          [layer for layer, _ in image.layers],
                          raw_manifest=image.raw_manifest)
        fields = {'name': parsed_args.name,
                  'container_format': thin.CONTAINER_FORMAT,
                  'disk_format': thin.DISK_FORMAT,
                  'img_hv_type': 'docker',
                  thin.PROPERTY: thin.THIN,
                  **dict(parsed_args.property)}
        return store.create(fields, transfer.Data(data))


def _taken(store: glance.Glance, holders: list[thin.LayerImage]) -> bool:
    """Whether a layer is there; the project's own is not removed for now."""
    if not holders or holders[0].owner != store.project:
        return bool(holders)
    return any(store.touch(holder) for holder in holders
               if holder.owner == store.project)


class PullImage(_Transfer):
    """Download an image from Glance, with the layers it was pushed with."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('image', metavar='<image>', help='Name or id')
        parser.add_argument(
            'target', metavar='<target>',
            help='TRANSPORT:DETAILS of skopeo, such as oci-archive:FILE, '
                 'docker-archive:FILE:NAME or docker://REGISTRY/NAME:TAG')
        return parser

    def take_action(self, parsed_args):
        store = self.app.client_manager.container_image
        with told.errors(), tempfile.TemporaryDirectory(
                prefix='container-image-') as work:
            image, found = _thin(store, parsed_args.image)
            directory = pathlib.Path(work, 'layout')
            layout.write(directory, found)
            layers = _readable(store, image, found)
            with transfer.Bars() as bars:
                transfer.download(
                    store, bars, layers,
                    lambda name: layout.blob(directory, name),
                    parsed_args.parallel)
            skopeo.store(str(directory), parsed_args.target,
                         parsed_args.tls_verify, parsed_args.authfile)
        return zip(*{
            'id': image['id'],
            'name': image['name'],
            'target': parsed_args.target,
            'layers': len(found.layers),
            'size': Size(found.size),
        }.items())


def _thin(store: glance.Glance,
          name: str) -> tuple[glance.Fields, layout.Image]:
    """The thin image of that id or name, for one architecture.

    :raises UserError: there is none
    """
    image = store.find(name)
    found = usage.read(store, image)
    if len(found) != 1:
        raise exception.UserError(
            f'image {image["id"]} has no layers of its own in Glance: it is '
            'one archive; use openstack image save, and push that'
            if not found else
            f'image {image["id"]} is for {len(found)} architectures')
    return image, found[0]


def _readable(store, image, found):
    """The layers of an image, with the images that hold them."""
    layers = dict(found.layers)
    holders = store.layers(layers, image['owner'])
    for layer in layers:
        if not holders[layer.digest]:
            raise exception.UserError(
                f'layer {layer.digest} of image {image["id"]} is gone or not '
                'for this project to read; its owner has to share it, too')
    return {layer: holders[layer.digest] for layer in layers}


class ShowImage(command.ShowOne):
    """Show an image: its layers, who else has them, and its history."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('image', metavar='<image>', help='Name or id')
        return parser

    def take_action(self, parsed_args):
        store = self.app.client_manager.container_image
        with told.errors():
            image, found = _thin(store, parsed_args.image)
            others = [usage.blobs(images)
                      for other, images in usage.thin_images(
                          store, {}, thorough=False)
                      if other['id'] != image['id']]
        config = json.loads(found.raw_config)
        return zip(*{
            'id': image['id'],
            'name': image['name'],
            'owner': image['owner'],
            'visibility': image['visibility'],
            'created_at': image['created_at'],
            'platform': str(found.config.platform),
            'command': ' '.join(found.config.entrypoint + found.config.cmd),
            'size': Size(found.size),
            'layers': Rows([{
                'digest': layer.digest,
                'size': layer.size,
                'type': layer.media_type.rpartition('.')[2],
                'shared_with': sum(layer.digest in blobs for blobs in others),
            } for layer, _ in found.layers]),
            'history': Rows([{
                'created': str(item.get('created', ''))[:19],
                'created_by': _shown(str(item.get('created_by')
                                         or item.get('comment') or '')),
                'layer': not item.get('empty_layer', False),
            } for item in config.get('history') or []]),
        }.items())


class ListImage(command.Lister):
    """List the container images in Glance."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--long', action='store_true',
            help='Also the layers; reads each image')
        return parser

    def take_action(self, parsed_args):
        store = self.app.client_manager.container_image
        names = ['ID', 'Name', 'Status', 'Visibility', 'Layout', 'Size']
        if parsed_args.long:
            names += ['Layers', 'Layers Size']
        rows = []
        with told.errors():
            for image in store.images(container_format=thin.CONTAINER_FORMAT):
                row = [image['id'], image['name'], image['status'],
                       image['visibility'],
                       image.get(thin.PROPERTY, 'archive'),
                       Size(image['size'] or 0)]
                if parsed_args.long:
                    found = self._found(store, image)
                    row += [sum(len(each.layers) for each in found) or '',
                            Size(sum(each.size for each in found))
                            if found else '']
                rows.append(row)
        return names, rows

    @staticmethod
    def _found(store, image):
        try:
            return usage.read(store, image)
        except (exception.UserError, sdk_exceptions.HttpException):
            return []


class _Removal(command.Command):
    """Layers are shown first, and deleted when that is wished."""

    _older_than: str

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--yes', action='store_true',
                            help='Do not ask')
        parser.add_argument(
            '--older-than', type=_seconds, default=_AGE, metavar='<seconds>',
            help=self._older_than + f' (default: {_AGE}, a day; 0 spares '
            'none, for when nobody pushes and no snapshot is taken)')
        return parser

    def spared(self, parsed_args: argparse.Namespace,
               layers: list[thin.LayerImage],
               since: str = '') -> list[thin.LayerImage]:
        """The layers without those that may be in use again.

        :param since: when; none was reused before
        """
        if not parsed_args.older_than:
            return layers
        since = max(since, usage.ago(parsed_args.older_than))
        old = [layer for layer in layers if layer.updated <= since]
        if len(old) < len(layers):
            self.app.stdout.write(
                f'{len(layers) - len(old)} layers stay, since a push may need '
                f'them: less than {parsed_args.older_than} s ago they were '
                'uploaded or reused (see --older-than)\n')
        return old

    def confirmed(self, parsed_args: argparse.Namespace, what: str,
                  layers: list[thin.LayerImage]) -> bool:
        """Whether to go on, after all that goes has been shown."""
        write = self.app.stdout.write
        write(f'{what}\n')
        for layer in layers:
            write(f'  layer {layer.name}  '
                  f'{Size(layer.size).human_readable()}\n')
        if parsed_args.yes:
            return True
        if not sys.stdin.isatty():
            raise exceptions.CommandError(
                'nobody is there to answer; call it with --yes')
        return input('Delete? [y/N] ').strip().lower() in ('y', 'yes')


class DeleteImage(_Removal):
    """Delete images, and the layers that no other image has.

    Layers that are public, shared or in a community stay: images of other
    projects may have them. All layers stay if an image of the project cannot
    be read.
    """

    _older_than = ('Spare layers that a push has reused since the image was '
                   'made, and less than so many seconds ago')

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('images', metavar='<image>', nargs='+',
                            help='Name or id')
        return parser

    def take_action(self, parsed_args):
        store = self.app.client_manager.container_image
        with told.errors():
            images = [store.find(name) for name in parsed_args.images]
            layers = self._layers(store, images, parsed_args)
            names = ', '.join(f'{image["name"]} ({image["id"]})'
                              for image in images)
            if self.confirmed(
                    parsed_args, f'{names}, with {len(layers)} layers that '
                    'no other image has', layers):
                if not parsed_args.yes:
                    layers = _still(layers, self._layers(store, images,
                                                         parsed_args))
                for image in images:
                    store.delete(image['id'])
                for layer in layers:
                    store.delete(layer.id)

    def _layers(self, store, images, parsed_args):
        """Those that go with the images."""
        ids = {image['id'] for image in images}
        # Before the images: one made meanwhile is then seen.
        layers = usage.layer_images(store)
        going: set[digest.Digest] = set()
        staying: set[digest.Digest] = set()
        unread: usage.Unread = {}
        for image, found in usage.thin_images(store, unread):
            (going if image['id'] in ids else staying).update(
                usage.blobs(found))
        layers = thin.unused([layer for layer in layers
                              if layer.name in going], staying)
        if unread.keys() - ids and layers:
            self.app.stdout.write(
                f'{len(layers)} layers stay, to be pruned later: '
                + '; '.join(unread[name] for name in unread.keys() - ids)
                + '\n')
            return []
        return self.spared(parsed_args, layers, max(
            image['created_at'] for image in images))


class PruneImage(_Removal):
    """Delete all layers of the project that no image has.

    None is deleted if an image of the project cannot be read. An archive that
    is large and has no property container_layout takes as long as to download
    it; container_layout=archive says that it has all its layers inside.
    """

    _older_than = ('Spare layers that were uploaded or reused less than so '
                   'many seconds ago: a push or a snapshot may need them')

    def take_action(self, parsed_args):
        store = self.app.client_manager.container_image
        with told.errors():
            layers = self._layers(store, parsed_args)
            if layers and self.confirmed(
                    parsed_args, f'{len(layers)} layers that no image has',
                    layers):
                if not parsed_args.yes:
                    layers = _still(layers, self._layers(store, parsed_args))
                for layer in layers:
                    store.delete(layer.id)

    def _layers(self, store, parsed_args):
        # Before the images: one made meanwhile is then seen.
        layers = usage.layer_images(store)
        unread: usage.Unread = {}
        needed = {blob for _, found in usage.thin_images(store, unread)
                  for blob in usage.blobs(found)}
        if unread:
            raise exception.UserError(
                'no layer is deleted: ' + '; '.join(unread.values()))
        return self.spared(parsed_args, thin.unused(layers, needed))


def _still(shown: list[thin.LayerImage],
           now: list[thin.LayerImage]) -> list[thin.LayerImage]:
    """What was shown and has not been used while the user was asked."""
    return [layer for layer in shown if layer in now]


class SetImage(command.Command):
    """Set who may use an image: its layers first, then the image."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('image', metavar='<image>', help='Name or id')
        which = parser.add_mutually_exclusive_group(required=True)
        for name in _VISIBILITIES:
            which.add_argument(f'--{name}', dest='visibility',
                               action='store_const', const=name)
        parser.add_argument(
            '--share-with', metavar='<project-id>', action='append',
            default=[], help='With --shared: a project that may use it; '
            'repeat it for more')
        return parser

    def take_action(self, parsed_args):
        store = self.app.client_manager.container_image
        if parsed_args.share_with and parsed_args.visibility != 'shared':
            raise exceptions.CommandError('--share-with goes with --shared')
        with told.errors():
            image, found = _thin(store, parsed_args.image)
            ids = []
            for holders in _readable(store, image, found).values():
                own = [holder.id for holder in holders
                       if holder.owner == image['owner']]
                if not own and parsed_args.visibility != 'private' and \
                        holders[0].visibility != 'public':
                    raise exception.UserError(
                        f'layer {holders[0].name} belongs to another project')
                ids += own
            # Taken back, the image goes first.
            ids.append(image['id'])
            if parsed_args.visibility == 'private':
                ids = ids[-1:] + self._alone(store, image, ids[:-1])
            for image_id in ids:
                store.update(image_id, visibility=parsed_args.visibility)
                for project in parsed_args.share_with:
                    store.share(image_id, project)

    @staticmethod
    def _alone(store, image, ids):
        """Those layer images that no image has which is not private."""
        unread: usage.Unread = {}
        public = {blob for other, found in usage.thin_images(store, unread)
                  if other['id'] != image['id']
                  and other['visibility'] != 'private'
                  for blob in usage.blobs(found)}
        if unread:
            raise exception.UserError(
                f'image {image["id"]} is not set to private, since others '
                'may have its layers: '
                + '; '.join(unread.values()))
        names = {layer.id: layer.name for layer in usage.layer_images(store)}
        return [image_id for image_id in ids
                if names.get(image_id) not in public]
