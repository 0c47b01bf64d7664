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

"""The only code that runs as root.

nova-compute is an ordinary user. What needs root is a function of this package
decorated with ``@context.entrypoint``; oslo.privsep carries the call to a
daemon that started with the capabilities below. Each function takes ids and
plain values, never a path: where things are on disk comes from the
configuration, which only root can write. Each one checks its arguments again,
since a caller that was taken over can say anything.

Threads of the daemon enter mount and network namespaces one operation at a
time (see ``namespace``); nothing is forked in Python.
"""

from oslo_config import cfg
from oslo_privsep import capabilities as caps

from nova_container import conf
from nova_container.privileged import helper

conf.register_opts(cfg.CONF)

# What runc itself needs to build a container, and what building its root file
# system and wiring its interfaces takes.
context = helper.Context(
    'nova_container',
    cfg_section='nova_container_privileged',
    pypath=__name__ + '.context',
    capabilities=[
        caps.CAP_AUDIT_WRITE,
        caps.CAP_CHOWN,
        caps.CAP_DAC_OVERRIDE,
        caps.CAP_DAC_READ_SEARCH,
        caps.CAP_FOWNER,
        caps.CAP_FSETID,
        caps.CAP_KILL,
        caps.CAP_MKNOD,
        caps.CAP_NET_ADMIN,
        caps.CAP_NET_BIND_SERVICE,
        caps.CAP_NET_RAW,
        caps.CAP_SETFCAP,
        caps.CAP_SETGID,
        caps.CAP_SETPCAP,
        caps.CAP_SETUID,
        caps.CAP_SYS_ADMIN,
        caps.CAP_SYS_CHROOT,
        # To move a monitor, whose capabilities are more than ours, to another
        # cpuset.
        caps.CAP_SYS_NICE,
        caps.CAP_SYS_PTRACE,
    ],
)

# Waiting for a layer or for a process to end must not hold up the others:
# a thread per processor, oslo.privsep's default, is too few.
cfg.CONF.set_default('thread_pool_size', 32, group=context.cfg_section)
