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

"""Bandwidth of network interfaces: a token bucket where each packet leaves.

Towards the container that is the host's end of the pair, from the container it
is the container's own end. Both are the sending side: packets wait instead of
being lost, and it is the same for every virtual switch, also for one in user
space that takes packets before the kernel could police them. The container's
network namespace is its user namespace's, and taking the bucket away takes
CAP_NET_ADMIN there, passing it by CAP_NET_RAW (``oci.rights``).

The bucket is an HTB class of its own (tc-htb(8)): without a parent to borrow
from, it sends ``average``, and at ``peak`` while its burst lasts.
"""

from collections.abc import Iterator
import contextlib
import errno

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import TC_H_ROOT

from nova_container.spec import limits

_ROOT = 0x10000
_CLASS = 0x10001

# The largest packet that a segmenting interface hands down in one piece.
_LARGEST = 65536
# What a bucket without a given burst holds: a tenth of a second.
_BURST = 0.1
# Seconds for which a burst may last at ``average``: the kernel counts them in
# 32 bits, in units of 64 ns.
_LONGEST = 274


def _parameters(wish: limits.Bandwidth) -> dict[str, int]:
    burst = min(wish.burst or max(int(wish.average * _BURST), _LARGEST),
                wish.average * _LONGEST)
    # Without a peak, the bucket of the peak must hold the whole burst.
    peak_burst = _LARGEST if wish.peak else burst
    return {'rate': wish.average, 'ceil': wish.peak or wish.average,
            'burst': burst, 'cburst': peak_burst, 'mtu': _LARGEST,
            'quantum': _LARGEST}


def shape(index: int, wish: limits.Bandwidth | None) -> None:
    """Give an interface of this network namespace a bandwidth, or none.

    May be repeated, also with another bandwidth.

    :param index: the interface's number
    :raises NetlinkError: the kernel refused
    """
    with IPRoute() as route:
        if wish is None:
            # Without one, the kernel's words depend on its own default.
            with _suppressed(errno.ENOENT, errno.EINVAL):
                route.tc('del', index=index, handle=_ROOT, parent=TC_H_ROOT)
            return
        with _suppressed(errno.EEXIST):
            route.tc('add', 'htb', index, _ROOT, default=_CLASS)
        route.tc('replace-class', 'htb', index, _CLASS, parent=_ROOT,
                 **_parameters(wish))


@contextlib.contextmanager
def _suppressed(*codes: int) -> Iterator[None]:
    try:
        yield
    except NetlinkError as e:
        if e.code not in codes:
            raise
