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


"""The command ``nova-container-status upgrade check``.

As every OpenStack service has one: before an upgrade is finished it says
whether the host is fit for the new version. oslo.upgradecheck.
"""

import sys

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from nova_container import conf
from nova_container.runtime import check

CONF = cfg.CONF


def _ask(subject: str) -> upgradecheck.Result:
    found = check.findings(subject)
    lacking = [finding for finding in found
               if finding.level is not check.Level.OK]
    if any(finding.level is check.Level.MISSING for finding in lacking):
        code = upgradecheck.Code.FAILURE
    elif lacking:
        code = upgradecheck.Code.WARNING
    else:
        code = upgradecheck.Code.SUCCESS
    return upgradecheck.Result(code, '. '.join(
        f'{finding.name}: {finding.found}; {finding.cost}'
        for finding in lacking))


class Checks(upgradecheck.UpgradeCommands):
    """The host check, as upgrade checks: one for each subject."""

    # oslo.upgradecheck calls each with the instance.
    _upgrade_checks = tuple(
        (subject, lambda self, subject=subject: _ask(subject))
        for subject in check.PROBES)


def main() -> int:
    """Entry point; 0 all well, 1 warnings, 2 failures."""
    conf.register_opts(CONF)
    return upgradecheck.main(CONF, project='nova',
                             upgrade_command=Checks())


if __name__ == '__main__':
    sys.exit(main())
