"""What the helper is asked to do, as values: each can be printed before, and instead of, being done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from typing import Any, ClassVar

from sandboxfile.declared import dataclass


@dataclass(frozen=True)
class Operation:
    """One thing for the helper to do. `op` is the name of the method that does it."""

    op: ClassVar[str]

    def message(self) -> dict[str, Any]:
        """The operation as the helper reads it."""
        return {"op": self.op} | vars(self)

    def describe(self) -> str:
        """One line for people."""
        parts = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
        return f"{self.op} {' '.join(parts)}"


@dataclass(frozen=True)
class OverlayMount(Operation):
    """An overlay at `target`: `lowers` topmost first, `upper` and `work` empty for a read-only view."""

    op: ClassVar[str] = "overlay"
    target: str
    lowers: Sequence[str]
    upper: str = ""
    work: str = ""

    def describe(self) -> str:
        return f"mount overlay on {self.target}: {len(self.lowers)} layers below {self.upper or 'nothing'}"


@dataclass(frozen=True)
class MemoryMount(Operation):
    """A file system in memory; `size` in bytes, None for half of the memory. How many files it can hold
    follows from the size."""

    op: ClassVar[str] = "tmpfs"
    target: str
    size: int | None = None


@dataclass(frozen=True)
class BindMount(Operation):
    """A file or directory of this machine, seen at `target` as well."""

    op: ClassVar[str] = "bind"
    source: str
    target: str
    readonly: bool = True


@dataclass(frozen=True)
class Unmount(Operation):
    """Take away all mounts at or below `target`, and the directory of the helper that is left."""

    op: ClassVar[str] = "unmount"
    target: str


@dataclass(frozen=True)
class MakeDirectory(Operation):
    """A directory owned by the helper, or by user 0 of the sandboxes when `guest`."""

    op: ClassVar[str] = "mkdir"
    path: str
    mode: int = 0o755
    guest: bool = False


@dataclass(frozen=True)
class WriteFile(Operation):
    """A small file below the helper's memory."""

    op: ClassVar[str] = "write"
    path: str
    content: str = field(repr=False)
    mode: int = 0o644


@dataclass(frozen=True)
class WriteSecret(Operation):
    """A file only `owner` (ids in the sandbox) can read; `content` is base64 and never described."""

    op: ClassVar[str] = "secret"
    path: str
    content: str = field(repr=False)
    owner: Sequence[int] = (0, 0)


@dataclass(frozen=True)
class RemoveTree(Operation):
    """Remove a directory that the helper made."""

    op: ClassVar[str] = "rmtree"
    path: str


@dataclass(frozen=True)
class Rename(Operation):
    """Rename within one file system."""

    op: ClassVar[str] = "rename"
    source: str
    target: str


@dataclass(frozen=True)
class ReadText(Operation):
    """Read a small regular file below a root directory; links never lead out of it."""

    op: ClassVar[str] = "read_text"
    root: str
    path: str
    limit: int = 1 << 20


@dataclass(frozen=True)
class ReadModes(Operation):
    """The modes of paths below a root directory."""

    op: ClassVar[str] = "modes"
    root: str
    paths: Sequence[str]


@dataclass(frozen=True)
class MakePoints(Operation):
    """Make the mountpoints (`path`, is it a directory) that are missing below a root directory."""

    op: ClassVar[str] = "make_points"
    root: str
    points: Sequence[tuple[str, bool]]


@dataclass(frozen=True)
class DropPoints(Operation):
    """Remove mountpoints that were made."""

    op: ClassVar[str] = "drop_points"
    root: str
    paths: Sequence[str]


@dataclass(frozen=True)
class MakeNamespaces(Operation):
    """A user namespace and a network namespace in it, held by files `user` and `net` in `path`. With
    `processes`, the user namespace never holds more of them."""

    op: ClassVar[str] = "namespaces"
    path: str
    processes: int | None = None


@dataclass(frozen=True)
class Spawn(Operation):
    """Start a program. `stdio` are indexes of descriptors sent along, -1 for /dev/null.

    own_stdio: ids those descriptors are given to, so that the program can open /dev/stdout again
    pid_file:  where the runtime writes the process of the sandbox that signals are meant for
    cgroup:    the sandbox whose control groups it starts in, empty for none
    sealed:    start it from a sealed copy in memory
    adopt:     a job for the process in `pid_file`, which is `Watch`ed when the program has ended well
    """

    op: ClassVar[str] = "spawn"
    job: int
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    stdio: Sequence[int] = (-1, -1, -1)
    own_stdio: Sequence[int] = ()
    pid_file: str = ""
    cgroup: str = ""
    sealed: bool = False
    adopt: int = 0

    def describe(self) -> str:
        return "run " + " ".join(self.argv)


@dataclass(frozen=True)
class Limit(Operation):
    """Make the control groups a sandbox's limits need: bytes, cores, processes; None is no limit."""

    op: ClassVar[str] = "limit"
    name: str
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None


@dataclass(frozen=True)
class Unlimit(Operation):
    """Remove a sandbox's control groups; with no name, all that nobody uses."""

    op: ClassVar[str] = "unlimit"
    name: str = ""


@dataclass(frozen=True)
class LimitEvents(Operation):
    """How often control groups acted on a sandbox: processes ended for want of memory, and processes that
    were not made because there were enough."""

    op: ClassVar[str] = "limit_events"
    name: str


@dataclass(frozen=True)
class Freeze(Operation):
    """Stop every process of the pid namespace of `pid`, at once; how many there are."""

    op: ClassVar[str] = "freeze"
    name: str
    pid: int


@dataclass(frozen=True)
class Thaw(Operation):
    """Let what was frozen under that name go on."""

    op: ClassVar[str] = "thaw"
    name: str


@dataclass(frozen=True)
class Deadline(Operation):
    """Kill a job `seconds` from now, whatever becomes of the client meanwhile; None takes that back."""

    op: ClassVar[str] = "deadline"
    job: int
    seconds: float | None


@dataclass(frozen=True)
class CountProcesses(Operation):
    """How many processes are in the pid namespace of `pid`."""

    op: ClassVar[str] = "count"
    pid: int


@dataclass(frozen=True)
class Usage(Operation):
    """Bytes of memory that the processes of the pid namespace of `pid` take, shared pages in parts."""

    op: ClassVar[str] = "usage"
    pid: int


@dataclass(frozen=True)
class Watch(Operation):
    """Report the end of the process that a runtime wrote to `pid_file`."""

    op: ClassVar[str] = "watch"
    job: int
    pid_file: str


@dataclass(frozen=True)
class Signal(Operation):
    """Send a signal to a job; with `tree`, end it with everything it started."""

    op: ClassVar[str] = "signal"
    job: int
    signal: int
    tree: bool = False


@dataclass(frozen=True)
class Work(Operation):
    """Fork a worker for a task. `dirs` are opened before its ids change; `mapped` says whether they do."""

    op: ClassVar[str] = "worker"
    job: int
    task: str
    args: Mapping[str, Any] = field(repr=False)
    dirs: Mapping[str, str] = field(default_factory=dict)
    mapped: bool = True


@dataclass(frozen=True)
class NamespaceSocket(Operation):
    """A TCP socket in a network namespace; its descriptor comes back with the answer."""

    op: ClassVar[str] = "socket"
    net: str
    v6: bool = False


@dataclass(frozen=True)
class Listen(Operation):
    """Take one terminal that a runtime sends to the socket `path`."""

    op: ClassVar[str] = "listen"
    job: int
    path: str
