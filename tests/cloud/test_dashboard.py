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

"""Containers in Horizon, in a real browser.

What the window showed is kept in ``.stestr/dashboard``.
"""

import json
import tempfile
import uuid

from selenium.webdriver.common.by import By
import yaml

from tests import archives
from tests.cloud import base
from tests.cloud import browser
from tests.cloud import stacks

_SECRET = 'tell-nobody-7731'
_METADATA = {
    'container:command': '/bin/sh -c "echo says $GREETING; sleep 1000000"',
    'container:env:DB_PASSWORD': _SECRET,
    'container:env:GREETING': 'hello',
    'container:stop_signal': 'KILL',
}
_HEALTHY = {'Test': ['CMD', '/bin/true'], 'Interval': 10 ** 9}
_CONFIRM = '.modal-footer .btn-primary, .modal-footer .btn-danger'


class DashboardTestCase(base.CloudTestCase):
    """One window, of the demo user."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = browser.Browser(base.cloud()['dashboard'])
        cls.addClassCleanup(cls.browser.close)
        cls.password = base.cloud()['auth']['demo']['password']
        cls.browser.log_in('demo', cls.password)

    def setUp(self):
        super().setUp()
        self.name = f'board-{uuid.uuid4().hex[:6]}'

    def upload_file(self, selector: str, content: bytes, suffix: str) -> None:
        """Choose a file in a form."""
        file = self.enterContext(tempfile.NamedTemporaryFile(suffix=suffix))
        file.write(content)
        file.flush()
        self.browser.driver.find_element(
            By.CSS_SELECTOR, selector).send_keys(file.name)

    def act(self, row: str, text: str, confirm: str = '') -> None:
        """An action of a row's menu, and the question that follows."""
        def attempt():
            action = self.browser.seen(f'{row} .dropdown-menu a, '
                                       f'{row} .dropdown-menu button', text)
            if action is None:
                # Not open, or closed again: Horizon draws rows anew.
                self.browser.driver.find_element(
                    By.CSS_SELECTOR, f'{row} .dropdown-toggle').click()
                return False
            action.click()
            return True
        self.browser.wait(attempt)
        if confirm:
            self.browser.click(_CONFIRM, confirm)

    def assert_nobody_else_asked(self) -> None:
        """The pages since the last call came from this cloud alone."""
        self.assertEqual(set(), {
            host for host in self.browser.hosts()
            if host.split(':')[0] not in ('127.0.0.1', '172.31.1.1')})


class InstanceTest(DashboardTestCase):

    def test_life_of_a_container(self):
        window = self.browser
        self.upload_image()
        self.launch()
        self.log()
        self.console()
        self.container_tab()
        self.snapshot()

        self.instance('Pause Instance')
        self.status_is('PAUSED', 'Paused')
        window.picture('paused')
        self.instance('Resume Instance')
        self.status_is('ACTIVE', 'Active')
        self.reboot()

        self.instance('Attach Interface')
        window.choose('network', 'private')
        window.picture('attach-interface')
        window.click(_CONFIRM, 'Attach Interface')
        window.wait(lambda: len(list(self.user.compute.server_interfaces(
            self.server_id))) == 2)
        if base.cloud()['volumes']:
            self.attach_and_detach()

        self.instance('Delete Instance', 'Delete Instance')
        window.wait(lambda: self.server() is None)
        self.assert_nobody_else_asked()

    def server(self):
        return next(iter(self.user.compute.servers(name=self.name)), None)

    def image(self, name: str):
        """An image, once it can be used."""
        window = self.browser
        image = window.wait(lambda: next(iter(
            self.user.image.images(name=name)), None))
        self.addCleanup(self.user.image.delete_image, image)
        window.wait(lambda: self.user.image.get_image(image).status
                    == 'active')
        return self.user.image.get_image(image)

    def upload_image(self) -> None:
        """Images, Create Image, with the format Docker."""
        window = self.browser
        window.open('/project/images/')
        window.click('button', 'Create Image')
        window.field('name', self.name)
        self.upload_file('input[type="file"]', base.busybox_archive(
            archives.files({'etc/motd': b'welcome'}),
            config={'Cmd': ['/bin/sh'], 'Healthcheck': _HEALTHY}), '.tar')
        window.choose('format', 'Docker')
        window.picture('image-upload')
        window.click('.modal-footer button.finish')
        image = self.image(self.name)
        self.assertEqual(('docker', 'raw'), (image.container_format,
                                             image.disk_format))
        window.open('/project/images/')
        window.find('hz-resource-table tr', self.name)
        window.picture('images')

    def _allocate(self, text: str) -> None:
        """Move a row of the wizard up to what is chosen."""
        window = self.browser

        def attempt():
            for row in window.driver.find_elements(
                    By.CSS_SELECTOR, '.transfer-available tr'):
                if row.is_displayed() and text in row.text.split():
                    row.find_elements(By.TAG_NAME, 'button')[-1].click()
                    return True
            return False
        window.wait(attempt)

    def launch(self) -> None:
        """Instances, Launch Instance: every step that a container needs."""
        window = self.browser
        window.open('/project/instances/')
        window.click('#instances__action_launch-ng, a', 'Launch Instance')
        window.field('name', self.name)
        for step, wanted in (('Source', self.name), ('Flavor', 'c1.tiny'),
                             ('Networks', 'private')):
            window.click('.wizard-nav a', step)
            if not window.seen('.transfer-allocated tr', wanted):
                self._allocate(wanted)
            window.picture(f'launch-{step.lower()}')
        window.click('.wizard-nav a', 'Metadata')
        for key, value in _METADATA.items():
            window.field('customItem', key)
            window.click('.input-group-btn button .fa-plus')
            window.find('li.active input[name="property"]').send_keys(value)
        window.picture('launch-metadata')
        window.click('.modal-footer button.finish')
        server = window.wait(self.server)
        self.addCleanup(self.delete, server)
        self.server_id = server.id
        server = self.active(server)
        self.assertEqual(_METADATA, {key: server.metadata[key]
                                     for key in _METADATA})
        address = server.addresses['private'][0]['addr']
        window.wait(lambda: address in self.row().text
                    and 'Active' in self.row().text)
        window.picture('instances')

    def row(self):
        """The container in the list of instances."""
        return self.browser.find(f'#instances__row__{self.server_id}')

    def instance(self, text: str, confirm: str = '') -> None:
        """An action of the container's menu in the list."""
        self.browser.open('/project/instances/')
        self.act(f'#instances__row__{self.server_id}', text, confirm)

    def tab(self, name: str) -> None:
        """A tab of the container's page."""
        self.browser.open(f'/project/instances/{self.server_id}/'
                          f'?tab=instance_details__{name}')

    def log(self) -> None:
        self.tab('log')
        self.browser.find('pre.logs', 'says hello')
        self.browser.picture('log')

    def console(self) -> None:
        """The serial console, as large as it is in the window."""
        window = self.browser
        self.tab('console')
        window.driver.switch_to.frame(window.find('#console_embed'))
        window.find('body', 'Status: Open')
        window.find('.terminal', '#')
        size = [window.find('#terminalNode').get_dom_attribute(name)
                for name in ('termrows', 'termcols')]
        window.find('.terminal').click()
        window.keys('stty size; echo typed $((6*7))', browser.ENTER)
        window.find('.terminal', 'typed 42')
        self.assertIn(' '.join(size), window.find('.terminal').text)
        window.driver.switch_to.default_content()
        window.picture('console')

    def container_tab(self) -> None:
        """The driver's own tab."""
        window = self.browser

        def healthy():
            self.tab('container')
            return 'healthy' in window.find('.nova-container-health').text
        window.wait(healthy)
        text = window.find('.tab-content').text
        for wanted in ('echo says $GREETING', 'hello', 'DB_PASSWORD',
                       'has not ended yet', '2 layers', 'sha256:'):
            self.assertIn(wanted, text)
        # Overview, another tab of the page, shows all metadata.
        self.assertNotIn(_SECRET, window.driver.find_element(
            By.ID, 'instance_details__container').get_attribute('outerHTML'))
        graphs = window.find('#nova-container-graphs')
        window.wait(lambda: int(graphs.get_dom_attribute('data-drawn')
                                or 0) >= 2)
        figures = graphs.find_elements(By.TAG_NAME, 'figure')
        self.assertEqual(7, len(figures))
        self.assertIn('256 MiB', figures[1].text)
        self.assertGreaterEqual(int(figures[6].text.split()[-1]), 2)
        window.picture('container')
        # By keyboard alone: the button is reached, and pauses the graphs.
        button = graphs.find_element(By.TAG_NAME, 'button')
        for _ in range(80):
            window.keys(browser.TAB)
            if window.driver.switch_to.active_element == button:
                break
        else:
            self.fail('the keyboard does not reach the button')
        window.keys(browser.ENTER)
        self.assertEqual('Go on', button.text)

    def snapshot(self) -> None:
        window = self.browser
        window.open('/project/instances/')
        window.click(f'#instances__row__{self.server_id} a', 'Create Snapshot')
        window.field('name', f'{self.name}-snapshot')
        window.click(_CONFIRM, 'Create Snapshot')
        image = self.image(f'{self.name}-snapshot')
        self.assertEqual('docker', image.container_format)

    def reboot(self) -> None:
        """Its process ends and starts; the tab tells how it has ended."""
        window = self.browser
        self.instance('Soft Reboot Instance', 'Soft Reboot Instance')
        window.wait(lambda: any(
            action.action == 'reboot' for action in
            self.user.compute.server_actions(self.server_id)))
        self.status_is('ACTIVE', 'Active')

        def ended():
            self.tab('container')
            return '137' in window.find('.nova-container').text
        window.wait(ended)

    def attach_and_detach(self) -> None:
        """A volume comes and goes while the container runs."""
        window = self.browser
        storage = self.user.block_storage
        volume = storage.create_volume(size=1, name=self.name, wait=True)
        self.addCleanup(storage.delete_volume, volume)
        for action, status in (('Attach Volume', 'in-use'),
                               ('Detach Volume', 'available')):
            self.instance(action)
            window.choose('volume', self.name)
            window.picture(action.lower().replace(' ', '-'))
            window.click(_CONFIRM, action)
            window.wait(lambda: storage.get_volume(volume).status == status)

    def status_is(self, status: str, shown: str) -> None:
        """Both Nova and the list say so."""
        self.status(self.user.compute.get_server(self.server_id), status)
        self.browser.open('/project/instances/')
        self.browser.wait(lambda: shown in self.row().text)


class PanelTestCase(DashboardTestCase, stacks.StackTestCase):
    """Stacks in the Orchestration panel."""

    def launch(self, template: str):
        """The stack of a template, once the list shows it as complete."""
        window = self.browser
        window.open('/project/stacks/')
        window.click('a', 'Launch Stack')
        window.find('[name="template_upload"]')
        self.upload_file('[name="template_upload"]', template.encode(),
                         '.yaml')
        window.picture('stack-template')
        window.click(_CONFIRM, 'Next')
        window.field('stack_name', self.name)
        window.field('password', self.password)
        window.picture('stack-launch')
        window.click(_CONFIRM, 'Launch')
        (stack,) = window.wait(lambda: list(
            self.user.orchestration.stacks(name=self.name)))
        self.addCleanup(self.remove, stack)
        self.complete(stack, 'CREATE')
        window.find(self.row(stack), 'Create Complete')
        window.picture('stacks')
        return stack

    @staticmethod
    def row(stack) -> str:
        return f'[data-object-id="{stack.id}"]'

    def topology(self, stack) -> dict[str, str]:
        """What the picture of a stack shows: names and states."""
        window = self.browser
        window.open(f'/project/stacks/stack/{stack.id}/')
        window.find('#stack_box', 'Create Complete')
        window.find('g.node image')
        places: list[list[str]] = [[]]

        def drawn():
            places.append([
                node.get_dom_attribute('transform') for node in
                window.driver.find_elements(By.CSS_SELECTOR, 'g.node')])
            return places[-1] == places[-2]
        window.wait(drawn)
        nodes = json.loads(window.driver.find_element(
            By.ID, 'd3_data').get_dom_attribute('data-d3_data'))['nodes']
        window.picture('stack-topology')
        self.assert_nobody_else_asked()
        return {node['name']: node['status'] for node in nodes
                if node['name'] != self.name}

    def visit(self, stack) -> None:
        """Follow the link that a stack has as its only output."""
        self.browser.open(f'/project/stacks/stack/{stack.id}/'
                          '?tab=stack_details__overview')
        self.browser.driver.get(self.browser.find(
            '#stack_details__overview dd a').get_attribute('href'))


class StackTest(PanelTestCase):

    def test_template(self):
        """Launched, seen, visited and deleted."""
        template = yaml.safe_load(self.template(web=self.container(
            'mkdir /w; echo served >/w/index.html; httpd -h /w; '
            + stacks.SLEEP, expose=['80'], floating_network='public')))
        template['outputs'] = {'site': {'value': {'str_replace': {
            'template': 'http://ADDRESS/',
            'params': {'ADDRESS': {'get_attr': ['web', 'floating_ip']}}}}}}
        stack = self.launch(yaml.safe_dump(template))
        self.assertEqual({'web': 'CREATE_COMPLETE'}, self.topology(stack))
        self.visit(stack)
        self.browser.find('body', 'served')

        self.browser.open('/project/stacks/')
        self.act(self.row(stack), 'Delete Stack', 'Delete Stack')
        self.browser.wait(lambda: not list(
            self.user.orchestration.stacks(name=self.name)))
