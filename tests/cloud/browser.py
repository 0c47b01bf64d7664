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

"""Horizon in Chromium, as its user sees it.

Elements are looked for by what is written on them, or by the names that
Horizon gives them; each wait ends.
"""

import json
import pathlib
import shutil
import tempfile
import typing as ty

from selenium.common import exceptions
from selenium import webdriver
from selenium.webdriver.chrome import service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import ui

# Where the pictures are kept; the directory of results is never committed.
PICTURES = (pathlib.Path(__file__).resolve().parents[2]
            / '.stestr/dashboard')
_TIMEOUT = 90
# Chromium's sandbox does not work as root, and it is to talk to nobody but
# the dashboard.
_FLAGS = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
          '--disable-dev-shm-usage', '--no-first-run', '--no-proxy-server',
          '--disable-background-networking', '--disable-component-update',
          '--disable-sync', '--window-size=1400,1000')


class Browser:
    """One window of Chromium."""

    def __init__(self, url: str):
        self.url = url
        self._profile = tempfile.mkdtemp(prefix='nova-container-browser-')
        options = webdriver.ChromeOptions()
        for flag in (*_FLAGS, f'--user-data-dir={self._profile}'):
            options.add_argument(flag)
        options.set_capability('goog:loggingPrefs', {'performance': 'ALL'})
        self.driver = webdriver.Chrome(
            options, service.Service(shutil.which('chromedriver')))
        self.driver.set_page_load_timeout(_TIMEOUT)
        PICTURES.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """End Chromium, and forget its profile."""
        self.driver.quit()
        shutil.rmtree(self._profile, ignore_errors=True)

    def log_in(self, user: str, password: str) -> None:
        """By the form that everyone sees first."""
        self.open('/auth/login/')
        self.field('username', user)
        self.field('password', password)
        self.find('#loginBtn').click()
        self.wait(lambda: '/auth/login' not in self.driver.current_url)

    def open(self, path: str) -> None:
        """Go to a page of the dashboard."""
        self.driver.get(self.url + path)

    def wait(self, condition: ty.Callable[[], ty.Any],
             timeout: float = _TIMEOUT) -> ty.Any:
        """What the condition gives, once it is true."""
        def attempt(_driver):
            try:
                return condition()
            except (exceptions.StaleElementReferenceException,
                    exceptions.NoSuchElementException,
                    exceptions.ElementNotInteractableException,
                    exceptions.ElementClickInterceptedException):
                return False
        try:
            return ui.WebDriverWait(self.driver, timeout, 0.3).until(attempt)
        except exceptions.TimeoutException:
            self.picture('timeout')
            raise AssertionError(
                f'{self.driver.current_url} never came to it; see '
                f'{PICTURES}/timeout.png') from None

    def find(self, selector: str, text: str = '') -> WebElement:
        """The first visible element, by CSS and what is written in it."""
        return self.wait(lambda: self.seen(selector, text))

    def seen(self, selector: str, text: str = '') -> WebElement | None:
        """As ``find``, now; None if there is none."""
        for element in self.driver.find_elements(By.CSS_SELECTOR, selector):
            # What is written on a button of a form is its value.
            if element.is_displayed() and text in (
                    element.text or element.get_attribute('value') or ''):
                return element
        return None

    def click(self, selector: str, text: str = '') -> None:
        """Click on an element as soon as nothing covers it."""
        def attempt():
            element = self.seen(selector, text)
            if element is None:
                return False
            element.click()
            return True
        self.wait(attempt)

    def field(self, name: str, value: str) -> None:
        """Fill in an input by its name."""
        def attempt():
            element = self.seen(f'[name="{name}"]')
            if element is None:
                return False
            element.clear()
            element.send_keys(value)
            return element.get_attribute('value') == value
        self.wait(attempt)

    def choose(self, name: str, text: str) -> None:
        """Choose in a list by what is written there."""
        def attempt():
            select = ui.Select(self.driver.find_element(
                By.CSS_SELECTOR, f'select[name="{name}"]'))
            for option in select.options:
                # A list that a theme has drawn anew shows none itself.
                if text in option.get_attribute('textContent'):
                    self.driver.execute_script(
                        'arguments[0].value = arguments[1];'
                        'arguments[0].dispatchEvent('
                        'new Event("change", {bubbles: true}))',
                        select._el, option.get_attribute('value'))
                    return True
            return False
        self.wait(attempt)

    def keys(self, *words: str) -> None:
        """Type where the keyboard's focus is."""
        webdriver.ActionChains(self.driver).send_keys(*words).perform()

    def picture(self, name: str) -> None:
        """Keep what the window shows, from the top of its page."""
        self.driver.execute_script('window.scrollTo(0, 0)')
        self.driver.save_screenshot(str(PICTURES / f'{name}.png'))

    def hosts(self) -> set[str]:
        """Who was asked for something since the last call."""
        found = set()
        for entry in self.driver.get_log('performance'):
            message = json.loads(entry['message'])['message']
            if message['method'] == 'Network.requestWillBeSent':
                address = message['params']['request']['url']
                if address.startswith(('http', 'ws')):
                    found.add(address.split('/')[2])
        return found


ENTER = Keys.ENTER
TAB = Keys.TAB
