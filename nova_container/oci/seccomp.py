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

"""The system calls a container may make.

An allowlist: what is not named here, also what a later kernel adds, answers
ENOSYS, so that a C library falls back to an older call. What is refused on
purpose (mounting, kernel modules, keyrings, bpf, perf, io_uring, new
namespaces, the clock, other processes' memory across users) answers EPERM.

The profile for nesting also allows what builds a container: mounts and
namespaces. The one for privileged containers allows all that the kernel has,
but what no profile does: to take a loop device from the file it is over. The
kernel asks for no capability there, and a volume may be such a device; its
number would be that of the next tenant's disk.

VERSION grows with every change; a container keeps the profile it was created
with until it is started again.
"""

import errno
import typing

VERSION = 4

# Names of the profiles.
DEFAULT = 'default'
NESTING = 'nesting'
PRIVILEGED = 'privileged'

_FILES = """
access chdir chmod chown chown32 chroot close close_range copy_file_range
creat dup dup2 dup3 faccessat faccessat2 fadvise64 fadvise64_64 fallocate
fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl
fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat
getcwd getdents getdents64 getxattr inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch lchown lchown32 lgetxattr link linkat
listxattr llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir
mkdirat mknod mknodat newfstatat open openat openat2 pipe pipe2 pread64
preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat
readv removexattr rename renameat renameat2 rmdir sendfile sendfile64
setxattr splice stat stat64 statfs statfs64 statx symlink symlinkat sync
sync_file_range sync_file_range2 syncfs tee truncate truncate64 umask unlink
unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev
"""

_EVENTS = """
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
epoll_wait epoll_wait_old eventfd eventfd2 poll ppoll ppoll_time64 pselect6
pselect6_time64 _newselect select signalfd signalfd4 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
io_submit
"""

_MEMORY = """
brk get_mempolicy madvise map_shadow_stack membarrier memfd_create
memfd_secret mincore
mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock
munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise
process_mrelease remap_file_pages set_mempolicy
"""

_PROCESSES = """
alarm arch_prctl arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush
capget capset execve execveat exit exit_group fork futex
futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list
get_thread_area getcpu getegid getegid32 geteuid geteuid32 getgid getgid32
getgroups getgroups32 getitimer getpgid getpgrp getpid getppid getpriority
getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage
getsid gettid getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule
landlock_create_ruleset landlock_restrict_self modify_ldt nanosleep pause
pidfd_open pidfd_send_signal prctl prlimit64 ptrace restart_syscall rseq
riscv_flush_icache rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
rt_tgsigqueueinfo s390_guarded_storage s390_runtime_instr
s390_sthyi sched_get_priority_max sched_get_priority_min sched_getaffinity
sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp set_robust_list set_thread_area
set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32 setgid
setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid
setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
setrlimit setsid setuid setuid32 sigaltstack sigprocmask sigreturn
swapcontext
sysinfo tgkill time times tkill ugetrlimit uname vfork wait4
waitid waitpid
"""

_CLOCKS = """
adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
clock_gettime
clock_gettime64 clock_nanosleep clock_nanosleep_time64 gettimeofday
timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
timer_settime timer_settime64
"""

_SOCKETS = """
accept accept4 bind connect getpeername getsockname getsockopt listen recv
recvfrom recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto
setsockopt shutdown socketcall socketpair
"""

_IPC = """
ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl
semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
"""

# Refused with EPERM: programs take that for "not allowed" and go on, where
# ENOSYS might send them to a call that is worse.
_REFUSED = """
acct add_key bpf clock_settime clock_settime64 create_module
delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick
get_kernel_syms init_module io_uring_enter io_uring_register io_uring_setup
ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind
migrate_pages mount mount_setattr move_mount move_pages name_to_handle_at
nfsservctl open_by_handle_at open_tree perf_event_open personality_other
pidfd_getfd pivot_root process_vm_readv process_vm_writev query_module
quotactl quotactl_fd reboot request_key set_mempolicy_home_node setdomainname
sethostname setns settimeofday stime swapoff swapon syslog umount umount2
unshare uselib userfaultfd ustat vhangup vm86 vm86old
"""

# What building a container takes, of the above.
_NESTING = """
add_key fsconfig fsmount fsopen fspick keyctl mount mount_setattr move_mount
name_to_handle_at open_tree pidfd_getfd pivot_root process_vm_readv
process_vm_writev request_key setdomainname sethostname setns umount umount2
unshare vhangup
"""

# Of an ioctl(2) request, 32 bits, those that say whose it is, and what they
# are for loop devices (linux/loop.h). The kernel drops the rest of the
# register.
_REQUEST_OWNER = range(8, 32)
_LOOP_REQUESTS = 0x4C00

# CLONE_NEW* of clone(2): mount, cgroup, UTS, IPC, user, PID, network.
_CLONE_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000,
                     0x10000000, 0x20000000, 0x40000000)
_AF_VSOCK = 40
_ARCHITECTURES = {
    # Programs of 32 bits run; those of x32, which nobody has, are ended.
    'x86_64': ('SCMP_ARCH_X86_64', 'SCMP_ARCH_X86'),
    'aarch64': ('SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'),
}
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)


def _rule(names: str | list[str], action: str,
          **extra: typing.Any) -> dict[str, typing.Any]:
    if isinstance(names, str):
        names = names.split()
    return {'names': names, 'action': action, **extra}


def _arg(index: int, op: str, value: int,
         mask: int = 0) -> dict[str, typing.Any]:
    return {'index': index, 'value': value, 'valueTwo': mask, 'op': op}


def profile(machine: str, name: str = DEFAULT) -> dict[str, typing.Any]:
    """``linux.seccomp`` of config.json.

    :param machine: as uname(2) names it. Only its own architectures are
        listed: the filter is compiled at each start, once for each of them.
    :param name: DEFAULT, NESTING or PRIVILEGED
    """
    allow, refuse = 'SCMP_ACT_ALLOW', 'SCMP_ACT_ERRNO'
    architectures = list(_ARCHITECTURES.get(machine, ()))
    no_loop = _rule('ioctl', refuse, errnoRet=errno.EPERM, args=[
        _arg(1, 'SCMP_CMP_MASKED_EQ', sum(1 << bit for bit in _REQUEST_OWNER),
             _LOOP_REQUESTS)])
    if name == PRIVILEGED:
        return {'defaultAction': allow, 'architectures': architectures,
                'syscalls': [no_loop]}
    # There is no "not equal" under a mask: one of the bits is another.
    ioctl = [no_loop, *(_rule('ioctl', allow, args=[
        _arg(1, 'SCMP_CMP_MASKED_EQ', 1 << bit, ~_LOOP_REQUESTS & 1 << bit)])
        for bit in _REQUEST_OWNER)]
    allowed = ' '.join((_FILES, _EVENTS, _MEMORY, _PROCESSES, _CLOCKS,
                        _SOCKETS, _IPC))
    refused = _REFUSED.split()
    # clone3 passes its flags in memory, out of a filter's reach: ENOSYS makes
    # the C library use clone.
    clone = [_rule('clone', allow, args=[
        _arg(0, 'SCMP_CMP_MASKED_EQ', sum(_CLONE_NAMESPACES), 0)])]
    # systemd goes on without namespaces of its own when they are refused.
    clone += [_rule('clone', refuse, errnoRet=errno.EPERM, args=[
        _arg(0, 'SCMP_CMP_MASKED_EQ', flag, flag)])
        for flag in _CLONE_NAMESPACES]
    if name == NESTING:
        allowed += _NESTING
        refused = [call for call in refused if call not in _NESTING.split()]
        clone = [_rule('clone clone3', allow)]
    return {
        'defaultAction': refuse,
        'defaultErrnoRet': errno.ENOSYS,
        'architectures': architectures,
        'syscalls': [
            _rule(allowed, allow),
            *clone,
            *ioctl,
            _rule('socket', allow,
                  args=[_arg(0, 'SCMP_CMP_NE', _AF_VSOCK)]),
            *(_rule('personality', allow, args=[_arg(0, 'SCMP_CMP_EQ', p)])
              for p in _PERSONALITIES),
            _rule(refused, refuse, errnoRet=errno.EPERM),
        ],
    }
