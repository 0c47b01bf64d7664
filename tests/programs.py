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


"""Static programs of one system call each, made by hand.

For what a shell cannot attempt. Each exits with 0 if the call succeeded, with
its errno otherwise. x86-64 and arm64, little-endian ELF (elf(5)).
"""

import os
import struct

_MACHINE = os.uname().machine
_BASE = 0x400000
_HEADERS = 64 + 56
_ELF_MACHINE = {'x86_64': 62, 'aarch64': 183}

# Where the two differ: number on x86-64, on arm64.
_NUMBERS = {
    'acct': (163, 89), 'add_key': (248, 217), 'bpf': (321, 280),
    'clock_settime': (227, 112), 'clone': (56, 220), 'clone3': (435, 435),
    'finit_module': (313, 273), 'fsopen': (430, 430),
    'init_module': (175, 105), 'io_uring_setup': (425, 425),
    'kcmp': (312, 272), 'kexec_load': (246, 104), 'keyctl': (250, 219),
    'mount': (165, 40), 'mount_setattr': (442, 442),
    'open_by_handle_at': (304, 265), 'open_tree': (428, 428),
    'perf_event_open': (298, 241), 'pidfd_getfd': (438, 438),
    'pivot_root': (155, 41), 'process_vm_readv': (310, 270),
    'quotactl': (179, 60), 'reboot': (169, 142), 'request_key': (249, 218),
    'setdomainname': (171, 162), 'sethostname': (170, 161),
    'setns': (308, 268), 'settimeofday': (164, 170), 'socket': (41, 198),
    'swapon': (167, 224), 'syslog': (103, 116), 'umount2': (166, 39),
    'unshare': (272, 97), 'userfaultfd': (323, 282), 'getpid': (39, 172),
}
_EXIT = (60, 93)


def _x86_64(number: int, args: tuple[int, ...]) -> bytes:
    registers = (b'\x48\xbf', b'\x48\xbe', b'\x48\xba', b'\x49\xba',
                 b'\x49\xb8', b'\x49\xb9')
    code = b'\xb8' + struct.pack('<I', number)
    for load, value in zip(registers, args):
        code += load + struct.pack('<Q', value & 0xFFFFFFFFFFFFFFFF)
    # Negative results become the exit status, others 0: an errno is < 4096.
    return code + (
        b'\x0f\x05'              # syscall
        b'\x31\xff'              # xor edi, edi
        b'\x85\xc0'              # test eax, eax
        b'\x79\x04'              # jns +4
        b'\xf7\xd8'              # neg eax
        b'\x89\xc7'              # mov edi, eax
        + b'\xb8' + struct.pack('<I', _EXIT[0]) + b'\x0f\x05')


def _aarch64(number: int, args: tuple[int, ...]) -> bytes:
    words = []
    for register, value in (*enumerate(args), (8, number)):
        value &= 0xFFFFFFFFFFFFFFFF
        words.append(0xD2800000 | (value & 0xFFFF) << 5 | register)
        for part in (1, 2, 3):
            piece = value >> 16 * part & 0xFFFF
            words.append(0xF2800000 | part << 21 | piece << 5 | register)
    words += [0xD4000001,            # svc #0
              0x7100001F,            # cmp w0, #0
              0x5A8057E0,            # csneg w0, wzr, w0, pl
              0xD2800000 | _EXIT[1] << 5 | 8, 0xD4000001]
    return b''.join(struct.pack('<I', word) for word in words)


def syscall(name: str, *args: int) -> bytes:
    """An executable that makes the call with up to six numbers."""
    column = ('x86_64', 'aarch64').index(_MACHINE)
    build = (_x86_64, _aarch64)[column]
    code = build(_NUMBERS[name][column], args + (0,) * (6 - len(args)))
    size = _HEADERS + len(code)
    return (b'\x7fELF\x02\x01\x01' + bytes(9)
            + struct.pack('<HHIQQQIHHHHHH', 2, _ELF_MACHINE[_MACHINE], 1,
                          _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
            + struct.pack('<IIQQQQQQ', 1, 5, 0, _BASE, _BASE, size, size,
                          0x1000)
            + code)
