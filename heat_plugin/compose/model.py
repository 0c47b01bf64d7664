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

"""What a Compose file asks for, as far as containers of Nova can have it.

What they cannot have is refused, by name and line, and never ignored.
"""

import collections.abc
import dataclasses
import re
import typing as ty

from heat_plugin.compose import document
from heat_plugin.compose import env_file
from heat_plugin import exposure
from heat_plugin import words

DEFAULT_NETWORK = 'default'

_Map = dict[str, ty.Any]

_UNITS = {'': 1, 'b': 1, 'k': 2 ** 10, 'kb': 2 ** 10, 'm': 2 ** 20,
          'mb': 2 ** 20, 'g': 2 ** 30, 'gb': 2 ** 30, 't': 2 ** 40,
          'tb': 2 ** 40}


# Where the specification has a boolean, it may be text: of a variable, often.
_TRUE = frozenset(('true', 'yes', 'y', 'on', '1'))
_FALSE = frozenset(('false', 'no', 'n', 'off', '0'))


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a service may use at most; None for no limit of its own.

    :param memory: bytes
    """

    cpus: float | None = None
    memory: int | None = None

    def __bool__(self) -> bool:
        return self.cpus is not None or self.memory is not None


@dataclasses.dataclass(frozen=True)
class Mount:
    """A volume's place in a container."""

    volume: str
    path: str
    read_only: bool = False


@dataclasses.dataclass(frozen=True)
class Attachment:
    """A network that a service is on."""

    network: str
    fixed_ip: str | None = None


@dataclasses.dataclass(frozen=True)
class Volume:
    """A volume of the file; an external one exists already.

    :param size: GiB; None for the default
    """

    name: str
    external: bool = False
    size: int | None = None
    type: str | None = None


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of the file; an external one exists already."""

    name: str
    external: bool = False
    cidr: str | None = None
    internal: bool = False


@dataclasses.dataclass(frozen=True)
class Service:
    """A service, and what its containers are made with.

    :param properties: of ``NovaContainer::Container``, as they are
    :param published: ports that anyone may connect to; with any, there is to
        be a floating IP
    :param depends_on: services that have to be ready before
    """

    name: str
    properties: dict[str, ty.Any]
    replicas: int
    limits: Limits
    networks: tuple[Attachment, ...]
    mounts: tuple[Mount, ...]
    published: tuple[str, ...]
    depends_on: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Application:
    """All of a file."""

    services: dict[str, Service]
    networks: dict[str, Network]
    volumes: dict[str, Volume]
    source: document.Document

    def refused(self, message: str, *path: str | int) -> document.Refused:
        """The error that something in the file is, also found out later."""
        return self.source.refused(path, message)


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a file refers to that is not in it.

    :param variables: the environment
    :param env_files: contents by name
    :param scale: replicas by service, instead of what the file says
    :param profiles: those that are active
    """

    variables: collections.abc.Mapping[str, str] = dataclasses.field(
        default_factory=dict)
    env_files: collections.abc.Mapping[str, str] = dataclasses.field(
        default_factory=dict)
    scale: collections.abc.Mapping[str, int] = dataclasses.field(
        default_factory=dict)
    profiles: frozenset[str] = frozenset()


def read(text: str, around: Surroundings) -> Application:
    """The application that a Compose file describes.

    :raises Refused: it is wrong, or asks for what cannot be done
    """
    return _Reader(document.read(text, around.variables), around).read()


def size(value: str | int) -> int:
    """Bytes, from ``512m`` or ``1.5gb``.

    :raises ValueError: it is no size
    """
    match = re.fullmatch(r'([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([a-z]{0,2})',
                         str(value).strip().lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f'{value!r} is no size such as 512m')
    return int(float(match[1]) * _UNITS[match[2]])


class _Reader:

    def __init__(self, source: document.Document,
                 around: Surroundings) -> None:
        self._source = source
        self._around = around

    def _refused(self, message: str, *path: str | int) -> document.Refused:
        return self._source.refused(path, message)

    def _only(self, known: collections.abc.Container[str],
              value: collections.abc.Mapping[str, ty.Any],
              *path: str | int) -> None:
        """Refuse what has no meaning; extensions (x-) never have any."""
        for key in value:
            if key not in known and not key.startswith('x-'):
                raise self._refused(
                    'has no meaning for a container of Nova', *path, key)

    def _is_true(self, value: bool | str, *path: str | int) -> bool:
        text = str(value).lower()
        if text not in _TRUE | _FALSE:
            raise self._refused('true or false is expected', *path)
        return text in _TRUE

    def read(self) -> Application:
        content = self._source.content
        self._only(('version', 'name', 'services', 'networks', 'volumes'),
                   content)
        networks = {name: self._network(name, value or {}) for name, value
                    in (content.get('networks') or {}).items()}
        volumes = {name: self._volume(name, value or {}) for name, value
                   in (content.get('volumes') or {}).items()}
        services = {}
        for name, value in (content.get('services') or {}).items():
            if self._is_active(value):
                services[name] = self._service(name, value)
        if not services:
            raise self._refused('there is no service', 'services')
        for name in self._around.scale:
            if name not in services:
                raise document.Refused(f'scale: there is no service {name}')
        found = Application(services, networks, volumes, self._source)
        self._check_references(found)
        self._check_cycles(services)
        return found

    def _is_active(self, value: _Map) -> bool:
        profiles = value.get('profiles') or ()
        return not profiles or bool(self._around.profiles & {*profiles})

    # What is beside the services

    def _network(self, name: str, value: _Map) -> Network:
        path = ('networks', name)
        self._only(('external', 'name', 'ipam', 'internal', 'driver'), value,
                   *path)
        if value.get('driver') not in (None, 'bridge', 'overlay', 'default'):
            raise self._refused('Neutron chooses it', *path, 'driver')
        own, external = self._external(value, path)
        cidr = None
        ipam = value.get('ipam') or {}
        self._only(('config',), ipam, *path, 'ipam')
        for index, config in enumerate(ipam.get('config') or ()):
            where = (*path, 'ipam', 'config', index)
            self._only(('subnet',), config, *where)
            if index:
                raise self._refused('one subnet is possible', *where)
            cidr = config.get('subnet')
        return Network(own or name, external, cidr,
                       self._is_true(value.get('internal', False), *path,
                                     'internal'))

    def _volume(self, name: str, value: _Map) -> Volume:
        path = ('volumes', name)
        self._only(('external', 'name', 'driver', 'driver_opts'), value,
                   *path)
        if value.get('driver') not in (None, 'local', 'cinder'):
            raise self._refused('volumes are those of Cinder', *path,
                                'driver')
        own, external = self._external(value, path)
        options = value.get('driver_opts') or {}
        self._only(('size', 'type'), options, *path, 'driver_opts')
        gib = None
        if 'size' in options:
            try:
                given = str(options['size'])
                gib = (int(given) if given.isdigit()
                       else -(-size(given) // 2 ** 30))
            except ValueError as error:
                raise self._refused(str(error), *path, 'driver_opts', 'size')
        return Volume(own or name, external, gib, options.get('type'))

    def _external(self, value: _Map,
                  path: document.Path) -> tuple[str | None, bool]:
        external = value.get('external', False)
        if isinstance(external, dict):
            return external.get('name') or value.get('name'), True
        external = self._is_true(external, *path, 'external')
        if value.get('name') and not external:
            raise self._refused('Heat names what it creates', *path, 'name')
        return value.get('name'), external

    # Services

    # Keys that become a property of the same name or another.
    _AS_THEY_ARE = {
        'command': 'command', 'entrypoint': 'entrypoint',
        'working_dir': 'working_dir', 'user': 'user', 'tty': 'tty',
        'init': 'init', 'stop_signal': 'stop_signal',
        'stop_grace_period': 'stop_grace_period', 'hostname': 'hostname',
        'container_name': 'name', 'image': 'image'}
    _READ = frozenset((
        'environment', 'env_file', 'ports', 'expose', 'volumes', 'links',
        'depends_on', 'healthcheck', 'restart', 'deploy', 'networks',
        'labels', 'scale', 'mem_limit', 'cpus', 'profiles'))

    def _service(self, name: str, value: _Map) -> Service:
        path = ('services', name)
        self._only(self._AS_THEY_ARE.keys() | self._READ, value, *path)
        if not value.get('image'):
            raise self._refused('image is missing', *path)
        properties = {ours: value[theirs] for theirs, ours
                      in self._AS_THEY_ARE.items()
                      if value.get(theirs) is not None}
        if value.get('hostname', name) != name:
            raise self._refused(
                f'the others reach it as {name}, and it has one name', *path,
                'hostname')
        replicas = self._replicas(name, value, path)
        if replicas > 1:
            for key in ('container_name', 'hostname'):
                if key in value:
                    raise self._refused(
                        f'{replicas} replicas cannot share it', *path, key)
        environment = self._environment(value, path)
        if environment:
            properties['environment'] = environment
        if (labels := self._pairs(value.get('labels'))) is not None:
            properties['metadata'] = {
                key: '' if text is None else words.text(text)
                for key, text in labels.items()}
        if (restart := self._restart(value, path)) is not None:
            properties['restart_policy'] = restart
        if value.get('healthcheck'):
            properties['health_check'] = self._health(
                value['healthcheck'], path)
        self._check_exposed(value, path)
        return Service(
            name=name, properties=properties, replicas=replicas,
            limits=self._limits(value, path),
            networks=self._networks(value, path),
            mounts=tuple(self._mounts(value, path)),
            published=self._ports(value, path),
            depends_on=self._depends_on(value, path))

    @staticmethod
    def _pairs(value: ty.Any) -> dict[str, ty.Any] | None:
        """A mapping, also from a list of NAME=VALUE."""
        if isinstance(value, list):
            return {name: text if equals else None for name, equals, text
                    in (str(item).partition('=') for item in value)}
        return value

    def _environment(self, value: _Map, path: document.Path) -> dict[str, str]:
        given = self._pairs(value.get('environment')) or {}
        # A variable of the surroundings comes before one of the same name.
        known = {**self._resolved(given), **self._around.variables}
        found: dict[str, ty.Any] = {}
        files = value.get('env_file') or []
        for index, entry in enumerate(
                files if isinstance(files, list) else [files]):
            where = (*path, 'env_file', index)
            entry = {'path': entry} if isinstance(entry, str) else entry
            self._only(('path', 'required'), entry, *where)
            content = self._around.env_files.get(entry['path'])
            if content is not None:
                try:
                    found.update(env_file.read(content, known))
                except env_file.InvalidFile as error:
                    raise self._refused(f'{entry["path"]}: {error}', *where)
            elif self._is_true(entry.get('required', True), *where,
                               'required'):
                raise self._refused(
                    f'{entry["path"]} is not in the property env_files',
                    *where)
        return self._resolved({**found, **given})

    def _resolved(self, pairs: _Map) -> dict[str, str]:
        """As text; one without a value is one of the surroundings."""
        resolved = {name: self._around.variables.get(name) if text is None
                    else words.text(text) for name, text in pairs.items()}
        return {name: text for name, text in resolved.items()
                if text is not None}

    def _restart(self, value: _Map, path: document.Path) -> str | None:
        restart = value.get('restart')
        policy = (value.get('deploy') or {}).get('restart_policy')
        if policy:
            where = (*path, 'deploy', 'restart_policy')
            self._only(('condition', 'max_attempts'), policy, *where)
            condition = policy.get('condition', 'any')
            attempts = policy.get('max_attempts')
            if condition == 'on-failure':
                return condition + (f':{attempts}' if attempts else '')
            if attempts:
                raise self._refused('is for on-failure', *where,
                                    'max_attempts')
            try:
                return {'any': 'always', 'none': 'no'}[condition]
            except KeyError:
                raise self._refused('none, on-failure or any is expected',
                                    *where, 'condition')
        # A server that a user has stopped stays so.
        return 'always' if restart == 'unless-stopped' else restart

    def _health(self, value: _Map, path: document.Path) -> dict[str, ty.Any]:
        where = (*path, 'healthcheck')
        keys = ('test', 'interval', 'timeout', 'start_period',
                'start_interval', 'retries')
        self._only((*keys, 'disable'), value, *where)
        if self._is_true(value.get('disable', False), *where, 'disable'):
            return {'test': ['NONE']}
        return {key: value[key] for key in keys if value.get(key) is not None}

    def _number(self, value: ty.Any, *path: str | int) -> int:
        if not str(value).isdigit() or len(str(value)) > 4:
            raise self._refused('a small number is expected', *path)
        return int(value)

    def _replicas(self, name: str, value: _Map, path: document.Path) -> int:
        deploy = value.get('deploy') or {}
        self._only(('mode', 'replicas', 'resources', 'restart_policy'),
                   deploy, *path, 'deploy')
        if deploy.get('mode', 'replicated') != 'replicated':
            raise self._refused('only replicated is possible', *path,
                                'deploy', 'mode')
        if name in self._around.scale:
            return int(self._around.scale[name])
        if value.get('scale') is not None:
            return self._number(value['scale'], *path, 'scale')
        return self._number(deploy.get('replicas', 1), *path, 'deploy',
                            'replicas')

    def _limits(self, value: _Map, path: document.Path) -> Limits:
        where = (*path, 'deploy', 'resources')
        resources = (value.get('deploy') or {}).get('resources') or {}
        self._only(('limits',), resources, *where)
        limits = resources.get('limits') or {}
        self._only(('cpus', 'memory'), limits, *where, 'limits')
        try:
            cpus = limits.get('cpus', value.get('cpus'))
            memory = limits.get('memory', value.get('mem_limit'))
            return Limits(None if cpus is None else float(cpus),
                          None if memory is None else size(memory))
        except ValueError as error:
            raise self._refused(str(error), *path)

    def _networks(self, value: _Map,
                  path: document.Path) -> tuple[Attachment, ...]:
        networks = value.get('networks') or [DEFAULT_NETWORK]
        if isinstance(networks, list):
            return tuple(Attachment(name) for name in networks)
        found = []
        for name, options in networks.items():
            options = options or {}
            where = (*path, 'networks', name)
            self._only(('ipv4_address',), options, *where)
            found.append(Attachment(name, options.get('ipv4_address')))
        return tuple(found)

    def _mounts(self, value: _Map, path: document.Path
                ) -> collections.abc.Iterator[Mount]:
        for index, entry in enumerate(value.get('volumes') or ()):
            where = (*path, 'volumes', index)
            if isinstance(entry, str):
                source, colon, rest = entry.partition(':')
                target, _, mode = rest.partition(':')
                if not colon:
                    raise self._refused(
                        'an anonymous volume: give it a name', *where)
                if mode not in ('', 'rw', 'ro'):
                    raise self._refused(f'option {mode} has no meaning',
                                        *where)
                entry = {'type': 'bind' if source[:1] in './~' else 'volume',
                         'source': source, 'target': target,
                         'read_only': mode == 'ro'}
            self._only(('type', 'source', 'target', 'read_only'), entry,
                       *where)
            if entry['type'] != 'volume' or not entry.get('source'):
                raise self._refused(
                    f'type {entry["type"]}: a named volume is possible, a '
                    'file of a host is not', *where)
            yield Mount(entry['source'], entry.get('target', ''),
                        self._is_true(entry.get('read_only', False), *where,
                                      'read_only'))

    def _check_port(self, port: str, *path: str | int) -> None:
        try:
            exposure.Ports.parse(port)
        except words.InvalidProperty as error:
            raise self._refused(str(error), *path)

    def _check_exposed(self, value: _Map, path: document.Path) -> None:
        """Nothing is opened: it is for services, which reach each other."""
        for index, port in enumerate(value.get('expose') or ()):
            self._check_port(str(port), *path, 'expose', index)

    def _ports(self, value: _Map, path: document.Path) -> tuple[str, ...]:
        """The ports to open."""
        found = []
        for index, entry in enumerate(value.get('ports') or ()):
            where = (*path, 'ports', index)
            if isinstance(entry, dict):
                self._only(('target', 'published', 'protocol', 'name',
                            'app_protocol'), entry, *where)
                target, published = entry.get('target'), entry.get('published')
                protocol = entry.get('protocol', 'tcp')
            else:
                ports, _, protocol = str(entry).partition('/')
                *host, published, target = ([None] + ports.split(':')
                                            if ':' not in ports
                                            else ports.split(':'))
                if host:
                    raise self._refused(
                        'an address of a host has no meaning: the container '
                        'has addresses of its own', *where)
            if published is not None and str(published) != str(target):
                raise self._refused(
                    f'port {published} for {target}: a container has its own '
                    'address, so both have to be the same', *where)
            port = f'{target}/{protocol or "tcp"}'
            self._check_port(port, *where)
            found.append(port)
        return tuple(dict.fromkeys(found))

    def _depends_on(self, value: _Map, path: document.Path) -> dict[str, str]:
        found = {}
        depends = value.get('depends_on') or {}
        if isinstance(depends, list):
            depends = dict.fromkeys(depends)
        services = self._source.content['services']
        for name, options in depends.items():
            where = (*path, 'depends_on', name)
            options = options or {}
            self._only(('condition', 'required'), options, *where)
            if not self._is_active(services.get(name, {})) and not (
                    options.get('required', True)):
                continue
            found[name] = options.get('condition', 'service_started')
        for index, link in enumerate(value.get('links') or ()):
            name, colon, alias = link.partition(':')
            if colon and alias != name:
                raise self._refused(
                    f'{alias}: a service is reached by its own name', *path,
                    'links', index)
            found.setdefault(name, 'service_started')
        return found

    # The whole

    def _check_references(self, found: Application) -> None:
        users: dict[str, str] = {}
        for service in found.services.values():
            path = ('services', service.name)
            for name in service.depends_on:
                if name not in found.services:
                    raise self._refused(f'there is no service {name}', *path,
                                        'depends_on')
            for attachment in service.networks:
                if (attachment.network not in found.networks
                        and attachment.network != DEFAULT_NETWORK):
                    raise self._refused(
                        f'there is no network {attachment.network}', *path,
                        'networks')
            for mount in service.mounts:
                if mount.volume not in found.volumes:
                    raise self._refused(
                        f'there is no volume {mount.volume}', *path,
                        'volumes')
                other = users.setdefault(mount.volume, service.name)
                if other != service.name or service.replicas > 1:
                    raise self._refused(
                        f'volume {mount.volume} can be attached to one '
                        'container', *path, 'volumes')

    def _check_cycles(self, services: dict[str, Service]) -> None:
        done: set[str] = set()

        def visit(name: str, above: tuple[str, ...]) -> None:
            if name in above:
                raise self._refused(
                    'a cycle: ' + ' -> '.join(
                        [*above[above.index(name):], name]),
                    'services', above[-1], 'depends_on')
            if name not in done:
                for other in services[name].depends_on:
                    visit(other, (*above, name))
                done.add(name)

        for name in services:
            visit(name, ())
