"""The system calls a sandbox may make: everything else is refused. Pure.

Calls that are known and dangerous answer EPERM; calls nobody listed here, such as those of newer kernels,
answer ENOSYS, so that programs fall back to older ones. `seccomp_bpf` compiles a profile beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

_EPERM = 1
_ENOSYS = 38
_EAFNOSUPPORT = 97
_NAMESPACE_FLAGS = 0x7E020000
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0x40000, 0xFFFFFFFF)
_ADDRESS_FAMILIES = (1, 2, 10, 16)
"""Unix, IPv4, IPv6 and netlink."""
_LARGEST_FAMILY = max(_ADDRESS_FAMILIES)
_TERMINAL_INJECTIONS = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which put words into the mouth of whoever reads a terminal next."""

_FILES = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch lchown lchown32 lgetxattr link linkat listxattr llistxattr
_llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat newfstatat _newselect open
openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv removexattr rename renameat renameat2 rmdir sendfile sendfile64 setxattr splice stat stat64
statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink
unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev cachestat
"""
_MEMORY = """
brk get_mempolicy madvise mbind membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap
mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
process_madvise process_mrelease remap_file_pages set_mempolicy set_mempolicy_home_node
"""
_PROCESSES = """
alarm arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_time64
futex_wait futex_waitv futex_wake get_robust_list get_thread_area getcpu getegid getegid32 geteuid geteuid32
getgid getgid32 getgroups getgroups32 getitimer getpgid getpgrp getpid getppid getpriority getrandom
getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get
ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self modify_ldt nanosleep pause
pidfd_open pidfd_send_signal prctl prlimit64 process_vm_readv process_vm_writev ptrace restart_syscall rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp set_robust_list
set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32
setreuid setreuid32 setrlimit setsid setuid setuid32 sigaltstack signalfd signalfd4 sigprocmask sigreturn
sysinfo tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times
tkill ugetrlimit uname vfork wait4 waitid waitpid clock_getres clock_getres_time64 clock_gettime
clock_gettime64 clock_nanosleep clock_nanosleep_time64 gettimeofday adjtimex clock_adjtime
"""
_MESSAGES = """
accept accept4 bind connect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
epoll_wait epoll_wait_old eventfd eventfd2 getpeername getsockname getsockopt io_cancel io_destroy
io_getevents io_pgetevents io_setup io_submit ipc listen mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd poll ppoll
ppoll_time64 pselect6 pselect6_time64 recv recvfrom recvmmsg recvmmsg_time64 recvmsg select semctl semget
semop semtimedop semtimedop_time64 send sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget
shutdown socketcall socketpair
"""
_REFUSED = """
acct add_key bpf chroot delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick
get_kernel_syms init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load
kexec_load keyctl listmount lookup_dcookie mount mount_setattr move_mount move_pages migrate_pages
name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root quotactl
quotactl_fd reboot request_key clock_settime clock_settime64 setdomainname sethostname setns settimeofday
statmount stime swapoff swapon sysfs syslog umount umount2 unshare uselib userfaultfd ustat vhangup vm86
vm86old lsm_set_self_attr
"""
_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


class Use(StrEnum):
    """What a profile is for: a build step, a sandbox, or a sandbox where set-user-id programs work."""

    BUILD = "build"
    RUN = "run"
    SUDO = "sudo"


def profile(machine: str, use: Use) -> dict[str, Any]:
    """The profile, as `linux.seccomp` of an OCI runtime configuration.

    Where packages are installed (build steps, sandboxes with sudo) `chroot` is allowed, which dpkg needs. New
    namespaces are refused to everybody, by clone and by unshare; clone3, whose arguments a filter cannot see,
    is answered as if the kernel did not have it.
    """
    allowed = sorted({*_FILES.split(), *_MEMORY.split(), *_PROCESSES.split(), *_MESSAGES.split()})
    refused = sorted(_REFUSED.split())
    if use is not Use.RUN:
        allowed.append("chroot")
        refused.remove("chroot")
    rules: list[dict[str, Any]] = [
        {"names": allowed, "action": "SCMP_ACT_ALLOW"},
        _errno(refused, _EPERM),
        _errno(["clone3"], _ENOSYS),
        _allow("clone", 0, "SCMP_CMP_MASKED_EQ", _NAMESPACE_FLAGS, 0),
        *_sockets(),
        *_controls(),
    ]
    rules += [_allow("personality", 0, "SCMP_CMP_EQ", value) for value in _PERSONALITIES]
    known = _ARCHITECTURES.get(machine)
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _ENOSYS,
        "architectures": [known] if known else [],
        "syscalls": rules,
    }


def _sockets() -> Iterator[dict[str, Any]]:
    for family in range(_LARGEST_FAMILY + 1):
        if family in _ADDRESS_FAMILIES:
            yield _allow("socket", 0, "SCMP_CMP_EQ", family)
        else:
            yield _errno(["socket"], _EAFNOSUPPORT, _compare(0, "SCMP_CMP_EQ", family))
    yield _errno(["socket"], _EAFNOSUPPORT, _compare(0, "SCMP_CMP_GT", _LARGEST_FAMILY))


def _controls() -> Iterator[dict[str, Any]]:
    """Every ioctl but the refused ones. The kernel looks at the low half of the number only, so that is all
    that may be compared; a profile cannot say "unequal" of it, but it can list the prefixes that are."""
    for request in _TERMINAL_INJECTIONS:
        yield _errno(["ioctl"], _EPERM, _compare(1, "SCMP_CMP_MASKED_EQ", _LOW_HALF, request))
    for mask, value in _prefixes_without(_TERMINAL_INJECTIONS):
        yield _allow("ioctl", 1, "SCMP_CMP_MASKED_EQ", mask, value)


_LOW_HALF = 0xFFFFFFFF


def _prefixes_without(excluded: Sequence[int], bits: int = 32, prefix: int = 0) -> Iterator[tuple[int, int]]:
    """Masks and values that together match every 32-bit number but the excluded ones, each once."""
    mask = _LOW_HALF >> bits << bits
    below = [number for number in excluded if number & mask == prefix]
    if not below:
        yield mask, prefix
    elif bits:
        for half in (0, 1 << (bits - 1)):
            yield from _prefixes_without(below, bits - 1, prefix | half)


def _compare(index: int, operator: str, value: int, two: int | None = None) -> dict[str, Any]:
    comparison: dict[str, Any] = {"index": index, "value": value, "op": operator}
    return comparison if two is None else comparison | {"valueTwo": two}


def _allow(name: str, index: int, operator: str, value: int, two: int | None = None) -> dict[str, Any]:
    return {
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [_compare(index, operator, value, two)],
    }


def _errno(names: list[str], errno: int, comparison: dict[str, Any] | None = None) -> dict[str, Any]:
    rule = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}
    return rule if comparison is None else rule | {"args": [comparison]}
