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

"""A container's life in Horizon, in a real browser.

What the window showed is kept in ``.stestr/dashboard``.
"""

import tempfile
import uuid

from selenium.webdriver.common.by import By

from tests.cloud import base
from tests.cloud import browser

_SECRET = 'tell-nobody-7731'


class DashboardTest(base.CloudTestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = browser.Browser(base.cloud()['dashboard'])
        cls.addClassCleanup(cls.browser.close)
        cls.browser.log_in('demo',
                           base.cloud()['auth']['demo']['password'])
        cls.name = f'board-{uuid.uuid4().hex[:6]}'

    def upload_image(self) -> None:
        """Images, Create Image, with the format Docker."""
        window = self.browser
        archive = self.enterContext(tempfile.NamedTemporaryFile(
            suffix='.tar'))
        archive.write(base.busybox_archive())
        archive.flush()
        window.open('/project/images/')
        window.click('button', 'Create Image')
        window.field('name', self.name)
        window.driver.find_element(
            By.CSS_SELECTOR, 'input[type="file"]').send_keys(archive.name)
        window.choose('format', 'Docker')
        window.picture('image-upload')
        window.click('.modal-footer button.finish')
        window.find('hz-resource-table tr', self.name)
        image = window.wait(lambda: self.user.image.find_image(self.name))
        self.addCleanup(self.user.image.delete_image, image)
        window.wait(lambda: self.user.image.get_image(image).status
                    == 'active')
        image = self.user.image.get_image(image)
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

    def launch(self):
        """Instances, Launch Instance: every step that a container needs."""
        window = self.browser
        window.open('/project/instances/')
        window.click('#instances__action_launch-ng, a', 'Launch Instance')
        window.field('name', self.name)
        for step, wanted in (('Source', self.name), ('Flavor', 'c1.tiny'),
                             ('Networks', 'private')):
            window.click('.wizard-nav .nav-item a, .wizard-nav a', step)
            if step != 'Networks' or not window.seen(
                    '.transfer-allocated tr', 'private'):
                self._allocate(wanted)
            window.picture(f'launch-{step.lower()}')
        window.click('.wizard-nav a', 'Metadata')
        for key, value in (('container:env:DB_PASSWORD', _SECRET),
                           ('container:env:GREETING', 'hello'),
                           ('container:stop_signal', 'KILL')):
            field = window.find('input[name="customItem"]')
            field.clear()
            field.send_keys(key)
            window.click('.input-group-btn button .fa-plus')
            window.find('li.active input[name="property"]').send_keys(value)
        window.picture('launch-metadata')
        window.click('.modal-footer button.finish')
        server = window.wait(
            lambda: self.user.compute.find_server(self.name))
        self.addCleanup(self.delete, server)
        self.id = server.id
        server = self.active(server)
        self.assertEqual(
            {'container:env:DB_PASSWORD': _SECRET,
             'container:env:GREETING': 'hello',
             'container:stop_signal': 'KILL'}, server.metadata)
        address = server.addresses['private'][0]['addr']
        window.wait(lambda: address in self.row().text
                    and 'Active' in self.row().text)
        window.picture('instances')
        return server

    def row(self):
        """The container in the list of instances."""
        return self.browser.find(f'#instances__row__{self.id}')

    def act(self, text: str, confirm: str = '') -> None:
        """An action of the list's menu, and the question that follows."""
        window = self.browser
        window.open('/project/instances/')
        self.row()
        window.click(f'#instances__row__{self.id} .dropdown-toggle')
        window.click(f'#instances__row__{self.id} .dropdown-menu a, '
                     f'#instances__row__{self.id} .dropdown-menu button',
                     text)
        if confirm:
            window.click('.modal-footer .btn-primary, '
                         '.modal-footer .btn-danger', confirm)

    def tab(self, name: str) -> None:
        """A tab of the container's page."""
        self.browser.open(f'/project/instances/{self.id}/'
                          f'?tab=instance_details__{name}')

    def test_life_of_a_container(self):
        window = self.browser
        self.upload_image()
        self.launch()

        self.tab('log')
        window.find('pre.logs')
        window.picture('log')

        self.tab('console')
        window.driver.switch_to.frame(window.find('#console_embed'))
        window.find('.terminal')
        window.wait(lambda: 'Status: Open' in window.driver.find_element(
            By.TAG_NAME, 'body').text)
        window.find('.terminal').click()
        window.keys('echo typed $((6*7))', browser.ENTER)
        window.wait(lambda: 'typed 42' in window.find('.terminal').text)
        window.picture('console')
        window.driver.switch_to.default_content()

        self.container_tab()

        self.act('Pause Instance')
        self.status_is('PAUSED', 'Paused')
        window.picture('paused')
        self.act('Resume Instance')
        self.status_is('ACTIVE', 'Active')
        self.act('Soft Reboot Instance', 'Soft Reboot Instance')
        window.wait(lambda: any(
            action.action == 'reboot' for action in
            self.user.compute.server_actions(self.id)))
        self.status_is('ACTIVE', 'Active')

        self.act('Attach Interface')
        window.find('.modal-footer .btn-primary', 'Attach Interface')
        window.choose('network', 'private')
        window.picture('attach-interface')
        window.click('.modal-footer .btn-primary', 'Attach Interface')
        window.wait(lambda: len(list(self.user.compute.server_interfaces(
            self.id))) == 2)

        self.act('Delete Instance', 'Delete Instance')
        window.wait(lambda: not self.user.compute.find_server(self.id))
        self.assertEqual(
            set(), {host for host in window.hosts() if not host.startswith(
                ('127.0.0.1:', base.cloud()['dashboard'].split('/')[2],
                 '172.31.1.1:'))}, 'asked hosts outside')

    def status_is(self, status: str, shown: str) -> None:
        """Both Nova and the list say so."""
        self.status(self.user.compute.get_server(self.id), status)
        self.browser.open('/project/instances/')
        self.browser.wait(lambda: shown in self.row().text)

    def container_tab(self) -> None:
        """The driver's own tab."""
        window = self.browser
        self.tab('container')
        window.find('#nova-container-usage')
        text = window.find('.tab-content').text
        self.assertIn('GREETING', text)
        self.assertIn('hello', text)
        self.assertIn('DB_PASSWORD', text)
        self.assertNotIn(_SECRET, window.driver.page_source)
        self.assertIn('1 layers', text)
        self.assertIn('sha256:', text)
        graphs = window.find('#nova-container-graphs')
        window.wait(lambda: int(graphs.get_dom_attribute('data-drawn')
                                or 0) >= 2)
        figures = graphs.find_elements(By.TAG_NAME, 'figure')
        self.assertEqual(7, len(figures))
        self.assertIn('MiB', figures[1].text)
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
