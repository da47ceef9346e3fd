"""The OCI runtime configuration of a sandbox. Pure: from values to a document that can be printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import cache
from typing import Any

from sandboxfile.declared import dataclass
from sandboxfile.engines.linux.seccomp import Use, profile
from sandboxfile.engines.linux.users import Identity

HOSTNAME = "sandbox"
BUILD_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
RUN_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETUID",
)
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_TTY_GROUP = 5


@dataclass(frozen=True)
class Host:
    """What the configuration has to know of the host: its hard limit on open files, its architecture, and
    for runtimes that want to hear the mapping of a namespace they are told to join, its first ids.

    filters: for runtimes that take them, the system call profiles compiled beforehand, base64 by use
    joins:   whether the runtime can enter a user namespace that is there; another makes its own
    """

    open_files: int
    machine: str
    told_ids: tuple[int, int] | None = None
    filters: Mapping[Use, str] = field(default_factory=dict, repr=False)
    joins: bool = True


@dataclass(frozen=True)
class GuestProcess:
    """One process: who, what and where. `terminal` is (rows, columns) or None."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    identity: Identity
    terminal: tuple[int, int] | None = None


@dataclass(frozen=True)
class BoundMount:
    """A directory or file below the helper's memory, seen at `target`; read-only unless `writable`."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Container:
    """Everything a configuration is made from.

    namespaces: a directory with files `user` and `net` that the sandbox joins
    build:      a build step; otherwise a sandbox, with fewer capabilities and no new privileges
    pids:       the largest number of processes, None for no limit
    privileges: of a sandbox: `none`, or `sudo`, where set-user-id programs work
    open_files: the most descriptors of one process, None for the host's limit
    """

    root: str
    namespaces: str
    process: GuestProcess
    build: bool
    host: Host
    mounts: tuple[BoundMount, ...] = ()
    memory_mounts: tuple[str, ...] = field(default=())
    pids: int | None = None
    privileges: str = "none"
    open_files: int | None = None

    @property
    def use(self) -> Use:
        """Which system calls it needs."""
        return _use(self.build, self.privileges)


def config(container: Container) -> dict[str, Any]:
    """The document `config.json`."""
    return {
        "ociVersion": "1.0.2",
        "hostname": HOSTNAME,
        "root": {"path": container.root, "readonly": False},
        "process": process(
            container.process,
            container.host,
            build=container.build,
            pids=container.pids,
            privileges=container.privileges,
            open_files=container.open_files,
        ),
        "mounts": [*_STANDARD_MOUNTS, *_extra_mounts(container.memory_mounts, container.mounts)],
        "linux": {
            "namespaces": [
                _joined("user", f"{container.namespaces}/user", container.host),
                _joined("network", f"{container.namespaces}/net", container.host),
                {"type": "pid"},
                {"type": "mount"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "cgroup"},
            ],
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
            "seccomp": _profile(container.host.machine, container.use),
            **_mappings(container.host.told_ids),
        },
        **_filter(container.host.filters.get(container.use)),
    }


@cache
def _profile(machine: str, use: Use) -> dict[str, Any]:
    return profile(machine, use)


def _filter(compiled: str | None) -> dict[str, Any]:
    """crun takes the compiled profile; the profile itself always stands beside it, for other runtimes."""
    return {"annotations": {"run.oci.seccomp_bpf_data": compiled}} if compiled else {}


def _use(build: bool, privileges: str) -> Use:
    if build:
        return Use.BUILD
    return Use.SUDO if privileges == "sudo" else Use.RUN


def _joined(kind: str, path: str, host: Host) -> dict[str, Any]:
    return {"type": kind, "path": path} if host.joins else {"type": kind}


def _mappings(ids: tuple[int, int] | None) -> dict[str, Any]:
    if ids is None:
        return {}
    names = ("uidMappings", "gidMappings")
    return {
        name: [{"containerID": 0, "hostID": first, "size": 65536}]
        for name, first in zip(names, ids, strict=True)
    }


def process(
    wanted: GuestProcess,
    host: Host,
    *,
    build: bool,
    pids: int | None = None,
    privileges: str = "none",
    open_files: int | None = None,
) -> dict[str, Any]:
    """The `process` of a configuration, also what is given to the runtime's `exec`."""
    use = _use(build, privileges)
    capabilities = list(RUN_CAPABILITIES if use is Use.RUN else BUILD_CAPABILITIES)
    held: list[str] = capabilities if wanted.identity.uid == 0 else []
    most = host.open_files if open_files is None else min(open_files, host.open_files)
    limits = [{"type": "RLIMIT_NOFILE", "soft": min(most, 65536), "hard": most}]
    if pids is not None:
        limits.append({"type": "RLIMIT_NPROC", "soft": pids, "hard": pids})
    document: dict[str, Any] = {
        "terminal": wanted.terminal is not None,
        "user": {
            "uid": wanted.identity.uid,
            "gid": wanted.identity.gid,
            "umask": 0o022,
            "additionalGids": list(wanted.identity.groups),
        },
        "args": list(wanted.argv),
        # Without HOME the runtime would look into the guest's passwd file, maybe a pipe nobody writes to.
        "env": [f"{name}={value}" for name, value in {"HOME": wanted.identity.home, **wanted.env}.items()],
        "cwd": wanted.cwd,
        "capabilities": {
            "bounding": capabilities,
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": limits,
        "noNewPrivileges": use is Use.RUN,
    }
    if wanted.terminal:
        document["consoleSize"] = {"height": wanted.terminal[0], "width": wanted.terminal[1]}
    return document


def _mount(kind: str, target: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": list(options)}


_STANDARD_MOUNTS: tuple[dict[str, Any], ...] = (
    _mount("proc", "/proc", "nosuid", "noexec", "nodev"),
    _mount("tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
    _mount(
        "devpts",
        "/dev/pts",
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
        f"gid={_TTY_GROUP}",
    ),
    _mount("tmpfs", "/dev/shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
    _mount("mqueue", "/dev/mqueue", "nosuid", "noexec", "nodev"),
    _mount("sysfs", "/sys", "nosuid", "noexec", "nodev", "ro"),
    _mount("tmpfs", "/sys/fs/cgroup", "nosuid", "noexec", "nodev", "ro", "mode=755", "size=4k"),
)

STANDARD_POINTS = ("/proc", "/dev", "/sys")


def _extra_mounts(memory: Sequence[str], bound: Sequence[BoundMount]) -> list[dict[str, Any]]:
    mounts = [
        _mount("tmpfs", target, "nosuid", "noexec", "nodev", "mode=755", "size=16m") for target in memory
    ]
    mounts += [
        {
            "destination": each.target,
            "type": "bind",
            "source": each.source,
            "options": ["rbind", "rw" if each.writable else "ro", "nosuid", "nodev", "rprivate"],
        }
        for each in bound
    ]
    return mounts
