# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""What runs, and what the APIs say of it."""

import typing as ty

from onenode import credentials
from onenode import plan
from onenode import rest
from onenode import services
from onenode import supervisor


def api_report(cloud: plan.Plan) -> list[dict[str, str]]:
    """What Nova, Neutron and Cinder say of their services.

    :raises Failure: an API does not answer.
    """
    session = rest.Session(cloud.layout)
    nova = session.get('nova-api', '/v2.1/os-services')
    neutron = session.get('neutron-api', '/v2.0/agents')
    report = [{'service': s['binary'], 'host': s['host'],
               'state': s['state']} for s in nova['services']]
    report += [{'service': agent['agent_type'], 'host': agent['host'],
                'state': 'up' if agent['alive'] else 'down'}
               for agent in neutron['agents']]
    if cloud.volumes:
        cinder = session.get('cinder-api', '/v3/os-services')
        report += [{'service': s['binary'], 'host': s['host'],
                    'state': s['state']} for s in cinder['services']]
    return report


def missing(cloud: plan.Plan, report: list[dict[str, str]]) -> list[str]:
    """What the APIs should report as up and do not."""
    wanted = {('nova-conductor', 'controller'),
              ('nova-scheduler', 'controller')}
    if cloud.volumes:
        wanted |= {('cinder-scheduler', 'controller'),
                   ('cinder-volume', 'controller@rbd'),
                   ('cinder-volume', 'controller@nfs')}
    for node in cloud.nodes:
        wanted.add(('nova-compute', node.name))
        wanted.add(('OVN Controller Gateway agent' if node.is_gateway
                    else 'OVN Controller agent', node.name))
        wanted.add(('OVN Metadata agent', node.name))
    up = {(entry['service'], entry['host']) for entry in report
          if entry['state'] == 'up'}
    down = {(entry['service'], entry['host']) for entry in report} - up
    return sorted(f'{service} on {host}'
                  for service, host in (wanted - up) | down)


def collect(cloud: plan.Plan) -> dict[str, ty.Any]:
    """Everything ``tools/cloud status`` can tell."""
    layout = cloud.layout
    client = supervisor.Client(layout)
    processes = ({p['name']: p for p in client.programs()}
                 if client.is_running() else {})
    rows = []
    for service in services.of(cloud):
        process = processes.get(service.name)
        running = process is not None and process['statename'] == 'RUNNING'
        rows.append({
            'name': service.name,
            'state': process['statename'] if process else 'STOPPED',
            'pid': process['pid'] if running else None,
            'uptime': process['now'] - process['start'] if running else None,
            'log': str(layout.log_of(service.name)),
            'node': service.node.name if service.node else None})
    problems = [f'{row["name"]} is {row["state"]}' for row in rows
                if row['state'] != 'RUNNING']
    report: list[dict[str, str]] = []
    if processes:
        try:
            report = api_report(cloud)
            problems += [f'{what} is not up'
                         for what in missing(cloud, report)]
        except plan.Failure as error:
            problems.append(str(error))
    return {
        'dir': str(layout.root), 'venv': str(layout.venv),
        'dashboard': f'http://127.0.0.1:{plan.PORTS["horizon"]}',
        'driver': cloud.driver, 'volumes': cloud.volumes,
        'key_manager': cloud.key_manager,
        'ok': not problems, 'problems': problems,
        'clouds_yaml': str(layout.clouds_yaml),
        'nodes': [{
            'name': node.name, 'netns': str(node.netns),
            'mntns': str(node.mntns),
            'config': str(node.config), 'state_path': str(node.state_path),
            'run_path': str(node.run_path),
            'cgroup_parent': node.cgroup_parent,
            'ovsdb': f'unix:{node.ovsdb}'} for node in cloud.nodes],
        'services': rows, 'agents': report,
        'auth': {user: credentials.of(layout, user)
                 for user in credentials.USERS},
    }


def text(found: dict[str, ty.Any]) -> str:
    """The same for people."""
    lines = []
    for row in found['services']:
        uptime = '' if row['uptime'] is None else f'{row["uptime"]} s'
        lines.append(f'{row["name"]:<34} {row["state"]:<9} '
                     f'{row["pid"] or "":>8} {uptime:>9}  {row["log"]}')
    lines.append('')
    for entry in found['agents']:
        lines.append(f'{entry["service"]:<30} {entry["host"]:<12} '
                     f'{entry["state"]}')
    lines.append('')
    if found['problems']:
        lines += [f'PROBLEM: {problem}' for problem in found['problems']]
    else:
        lines.append(f'All services run; {len(found["nodes"])} compute '
                     f'node(s), driver {found["driver"]}.')
    return '\n'.join(lines)
