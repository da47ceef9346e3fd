"""The attempts to leave a sandbox, as data: what is tried inside, and what shows that it works elsewhere.

Words in braces are facts of the test's own on the host, see `escape_arena.Facts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Control(Enum):
    """Where the same probe is expected to go through.

    HOST:      on the host, with nothing around it
    NAMESPACE: in a user namespace of its own, as its root, without a filter
    ROOT:      as the host's root, in namespaces of its own
    STEP:      in a build step, which may gain privileges
    """

    HOST = "on the host"
    NAMESPACE = "in a user namespace"
    ROOT = "as the host's root"
    STEP = "in a build step"


@dataclass(frozen=True)
class Attempt:
    """One probe and its control. `against` are the control's words where they are others. `network` may also
    be `relayed`: `full`, connected by the relay whatever the host has."""

    name: str
    probe: tuple[str, ...]
    control: Control
    against: tuple[str, ...] | None = None
    user: str = "root"
    network: str = "none"
    program: str = "probes"


def _on_host(name: str, *probe: str, against: tuple[str, ...] | None = None, **options: str) -> Attempt:
    return Attempt(name, probe, Control.HOST, against, **options)


def _in_namespace(name: str, *probe: str, against: tuple[str, ...] | None = None, **options: str) -> Attempt:
    return Attempt(name, probe, Control.NAMESPACE, against, **options)


def _as_root(name: str, *probe: str, against: tuple[str, ...] | None = None) -> Attempt:
    return Attempt(name, probe, Control.ROOT, against)


_SPACES = {
    "user": "0x10000000",
    "mount": "0x20000",
    "process": "0x20000000",
    "network": "0x40000000",
    "ipc": "0x8000000",
    "host name": "0x4000000",
    "control group": "0x2000000",
    "time": "0x80",
}

_NAMESPACES = (
    *(_in_namespace(f"unshare: a {name} namespace", "unshare", flag) for name, flag in _SPACES.items()),
    _in_namespace("clone: a user namespace", "clone", "0x10000000"),
    _in_namespace("clone: a mount namespace", "clone", "0x20000"),
    _in_namespace("clone3: a user namespace", "clone3", "0x10000000"),
    _in_namespace("setns: a namespace entered again", "setns", "/proc/self/ns/uts"),
    _on_host("a traced call changed into unshare after the check", "ptrace_bypass"),
    _on_host("unshare by the 32-bit entry", "int80"),
    _on_host("unshare by the x32 numbers", "x32"),
)

_MOUNTS = (
    _in_namespace("mount: a tmpfs", "mount", "none", "/mnt", "tmpfs", "0", ""),
    _in_namespace("mount: one's own tree over /proc", "mount", "/tmp", "/proc", "none", "4096", ""),
    _in_namespace("mount: an overlay", "mount", "none", "/mnt", "overlay", "0", "lowerdir=/usr:/etc"),
    _in_namespace("mount: a new proc without masks", "mount", "none", "/mnt", "proc", "0", ""),
    _in_namespace("mount: sysfs, writable", "mount", "none", "/mnt", "sysfs", "0", ""),
    _in_namespace("mount: a control group hierarchy", "mount", "none", "/mnt", "cgroup2", "0", ""),
    _in_namespace("mount: message queues", "mount", "none", "/mnt", "mqueue", "0", ""),
    _in_namespace(
        "mount: /proc/sys made writable again",
        *("mount", "none", "/proc/sys", "none", "4128", ""),
        against=("mount", "none", "/proc", "none", "4128", ""),
    ),
    _in_namespace("umount: a mask taken away", "umount", "/proc/kcore", against=("umount", "/proc")),
    _in_namespace("pivot_root", "pivot_root", "/proc"),
    _in_namespace("chroot", "chroot", "/tmp"),
    _in_namespace("fsopen: a file system without mount", "fsopen"),
    _in_namespace("open_tree: a copy of a mount", "open_tree", "/proc"),
    _in_namespace("mount_setattr", "mount_setattr", "/proc"),
    _on_host("listmount", "listmount"),
)

_KERNEL = (
    _on_host("add_key", "add_key"),
    _on_host("keyctl: the session's keyring", "keyctl"),
    _on_host("request_key", "request_key"),
    _on_host("bpf: a map", "bpf"),
    _on_host("perf_event_open", "perf"),
    _on_host("io_uring_setup", "io_uring"),
    _on_host("userfaultfd", "userfaultfd"),
    _on_host("fanotify_init", "fanotify"),
    _on_host("kcmp", "kcmp"),
    _on_host("move_pages", "move_pages"),
    _on_host("personality: executable data", "personality"),
    _on_host("name_to_handle_at", "name_to_handle"),
    _on_host("open_by_handle_at: a file by its number", "open_by_handle"),
    _as_root("init_module", "init_module"),
    _as_root("finit_module", "finit_module"),
    _as_root("delete_module", "delete_module"),
    _as_root("kexec_load", "kexec"),
    _in_namespace("reboot", "reboot"),
    _as_root("swapon", "swapon"),
    _as_root("acct", "acct"),
    _on_host("syslog: the kernel's messages", "syslog"),
    _as_root("iopl", "iopl"),
    _as_root("ioperm", "ioperm"),
    _as_root("clock_settime", "clock_settime"),
    _as_root("settimeofday", "settimeofday"),
    _as_root("adjtimex", "adjtimex"),
    _in_namespace("sethostname", "sethostname"),
    _in_namespace("setdomainname", "setdomainname"),
    _on_host("a terminal's input written for its reader", "tiocsti", "0x5412"),
    _on_host("a terminal, with bits above those the kernel reads", "tiocsti", "0x700005412"),
)

_PRIVILEGES = (
    _in_namespace("capset: a capability taken", "capset"),
    _on_host("CAP_SYS_ADMIN within bounds", "bounding", "21"),
    _on_host("CAP_NET_RAW within bounds", "bounding", "13"),
    _on_host("CAP_SYS_PTRACE within bounds", "bounding", "19"),
    _on_host("CAP_MKNOD within bounds", "bounding", "27"),
    _in_namespace("prctl: securebits", "securebits"),
    _on_host("new privileges by exec", "new_privileges"),
    Attempt("a set-user-id program", ("euid",), Control.STEP, user="1000", program="rootprobes"),
    Attempt("a file's capabilities", ("effective", "0"), Control.STEP, user="1000", program="capprobes"),
    Attempt("a file given capabilities", ("file_caps", "/tmp/caps"), Control.STEP),
    _as_root("setuid: an id of the host", "setuid", "70000"),
    _as_root(
        "chown: to an id of the host",
        "chown",
        "/tmp/own",
        "70000",
        against=("chown", "{scratch}/own", "70000"),
    ),
    _as_root(
        "mknod: a disk",
        "mknod",
        "/tmp/n",
        "0x6000",
        "8",
        "0",
        against=("mknod", "{scratch}/n", "0x6000", "8", "0"),
    ),
    _as_root(
        "mknod: memory",
        "mknod",
        "/tmp/n",
        "0x2000",
        "1",
        "1",
        against=("mknod", "{scratch}/n", "0x2000", "1", "1"),
    ),
    _as_root("nice: before the host's processes", "nice"),
    _as_root("sched_setscheduler: real time", "realtime"),
    _as_root("ioprio_set: real time", "ioprio"),
)

_DEVICES = tuple(
    _on_host(f"open {device}", "open", device, "0")
    for device in (
        *("/dev/mem", "/dev/kmsg", "/dev/port", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/loop-control"),
        *("/dev/userfaultfd", "/dev/vhost-net", "/dev/uinput", "{disk}", "{pts}"),
    )
)

_FILES = (
    _as_root("core_pattern", "write_back", "/proc/sys/kernel/core_pattern"),
    _as_root("modprobe's path", "write_back", "/proc/sys/kernel/modprobe"),
    _in_namespace("a setting of the network", "write_back", "/proc/sys/net/ipv4/ip_forward"),
    _as_root("sysrq-trigger opened", "open", "/proc/sysrq-trigger", "1"),
    _as_root("an interrupt's processors", "open", "/proc/irq/default_smp_affinity", "1"),
    _as_root("kcore", "read", "/proc/kcore"),
    _on_host("the kernel's keys", "read", "/proc/keys"),
    _on_host("interrupts", "read", "/proc/interrupts"),
    _as_root("timers", "read", "/proc/timer_list"),
    _as_root("kmsg", "open", "/proc/kmsg", "0"),
    _as_root("the map of all pages", "read", "/proc/kpageflags"),
    _on_host("the firmware's tables", "list", "/sys/firmware"),
    _on_host("energy counters", "list", "/sys/devices/virtual/powercap"),
    _on_host("debugfs or tracefs", "list", "{debug}"),
    _as_root("uevent_helper", "write_back", "/sys/kernel/uevent_helper"),
    _as_root("a module's parameter", "write_back", "/sys/module/printk/parameters/time"),
    _as_root("memory merging", "write_back", "/sys/kernel/mm/ksm/run"),
    _as_root("release_agent opened", "open", "{release_agent}", "1"),
    _as_root("a control group made", "mkdir", "/sys/fs/cgroup/probe", against=("mkdir", "{cgroup}/probe")),
    _on_host("a file of the host, through every process", "find", "{sentinel}"),
    _on_host("an inherited descriptor", "descriptors"),
    _on_host(
        "a descriptor of the first process", "descriptors_of", "1", against=("descriptors_of", "{victim}")
    ),
    _on_host("the environment of the host", "environment", "{secret}"),
    _on_host("the init opened for writing", "open", "/proc/1/exe", "1", against=("open", "{program}", "1")),
    _on_host(
        "a link to the init",
        "link",
        "/run/sandboxfile/init",
        "/tmp/init",
        against=("link", "{program}", "{program}2"),
    ),
    _on_host("the host's name", "hostname_is", "{hostname}"),
)

_PROCESSES = (
    _on_host("kill: a process of the host", "kill", "{victim}"),
    _on_host("kill: the supervisor", "kill", "{helper}"),
    _on_host("pidfd_open: a process of the host", "pidfd", "{victim}"),
    _on_host("ptrace: a process of the host", "ptrace", "{victim}"),
    _on_host("process_vm_readv: a process of the host", "vm_read", "{victim}"),
    _on_host("/proc/PID/mem of a process of the host", "open", "/proc/{victim}/mem", "0"),
    _on_host("/proc/PID/root of a process of the host", "list", "/proc/{victim}/root"),
    _on_host("pidfd_getfd", "pidfd_getfd"),
    _on_host("shared memory of the host", "shm", "{shm}"),
    _on_host("a message queue of the host", "mq", "{queue}"),
)

_NETWORKS = (
    _in_namespace("a raw socket", "socket", "2", "3", "1"),
    _in_namespace("a packet socket", "socket", "17", "3", "0"),
    _on_host("a socket to the hypervisor", "socket", "40", "1", "0"),
    _on_host("the hypervisor, with bits above those the kernel reads", "socket", "0x100000028", "1", "0"),
    _on_host("a socket of the kernel's ciphers", "socket", "38", "5", "0"),
    _in_namespace("a socket of the kernel's IPsec keys", "socket", "15", "3", "2"),
    _in_namespace("an interface switched", "interface"),
    _in_namespace("an address added", "address", "127.9.9.9"),
    _on_host("an abstract socket of the host", "unix", "{abstract}"),
    _on_host("a socket file of the host", "unix", "{socket}"),
    _on_host("the host's 127.0.0.1", "tcp", "127.0.0.1", "{port}"),
    _on_host("the host's ::1", "tcp", "::1", "{port}"),
    _on_host("the host's address", "tcp", "{own}", "{port}"),
    _on_host("the host's address by a mapped one", "tcp", "::ffff:{own}", "{port}"),
    _in_namespace(
        "the address of a cloud's metadata",
        *("metadata", "169.254.169.254", "80"),
        against=("metadata", "169.254.169.254", "80", "own"),
    ),
    _on_host("a datagram to the world", "udp", "192.0.2.1", "9"),
    _on_host("with network: the host's 127.0.0.1", "tcp", "127.0.0.1", "{port}", network="full"),
    _on_host("with network: the host's ::1", "tcp", "::1", "{port}", network="full"),
    _on_host("with network: the host's address", "tcp", "{own}", "{port}", network="full"),
    _on_host("with network: an abstract socket of the host", "unix", "{abstract}", network="full"),
    _on_host("relayed: the host's 127.0.0.1", "tcp", "127.0.0.1", "{port}", network="relayed"),
    _on_host("relayed: the host's ::1", "tcp", "::1", "{port}", network="relayed"),
    _on_host("relayed: the host's address", "tcp", "{own}", "{port}", network="relayed"),
    _on_host("relayed: a mapped address", "tcp", "::ffff:{own}", "{port}", network="relayed"),
    _on_host("relayed: an abstract socket of the host", "unix", "{abstract}", network="relayed"),
    _in_namespace("relayed: an address added", "address", "198.18.0.99", network="relayed"),
    _in_namespace("relayed: a rule of nftables", "netfilter", network="relayed"),
    _in_namespace("relayed: a raw socket", "socket", "2", "3", "1", network="relayed"),
)

ATTEMPTS = (*_NAMESPACES, *_MOUNTS, *_KERNEL, *_PRIVILEGES, *_DEVICES, *_FILES, *_PROCESSES, *_NETWORKS)
