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

"""To be copied or linked into openstack_dashboard/local/enabled."""

FEATURE = 'nova_container_dashboard'
ADD_INSTALLED_APPS = ['nova_container_dashboard']
ADD_JS_FILES = ['nova_container_dashboard/images.js',
                'nova_container_dashboard/usage.js']
ADD_SCSS_FILES = ['nova_container_dashboard/container.scss']
EXTRA_TABS = {
    'openstack_dashboard.dashboards.project.instances.tabs.'
    'InstanceDetailTabs': ('nova_container_dashboard.tabs.ContainerTab',),
    'openstack_dashboard.dashboards.admin.instances.tabs.'
    'AdminInstanceDetailTabs': (
        'nova_container_dashboard.tabs.ContainerTab',),
}
