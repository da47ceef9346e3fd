"""The engine protocol: where layers are built and sandboxes run.

An engine is a transport. The builder asks for a workspace on a stack of layers, executes commands in it,
puts files there, and commits it under a key; everybody else starts sandboxes from stacks. All verbs are
coroutines; `sandboxfile.testing.conformance` states what each promises, and every engine passes it.

A stack is an ordered sequence of layer keys, lowest first. All of them must be present in the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import DebianBase, Definition, LayerKey, RootfsBase, TreeEntry
from sandboxfile.declared import dataclass
from sandboxfile.engine.files import SandboxFiles

if TYPE_CHECKING:
    from sandboxfile.core.manifest import Entry
    from sandboxfile.store.sandboxes import SandboxInfo

Stack = Sequence[LayerKey]
Output = Callable[[str, bytes], None]
"""Called with `stdout` or `stderr` and a piece of output, in the order it arrived."""


class Capability(StrEnum):
    """What an engine may lack. Asking for a missing one raises MissingCapability, never does less."""

    BOOTSTRAP_DEBIAN = "bootstrap-debian"
    ROOTFS_TAR = "rootfs-tar"
    UNPACK_PACKAGES = "unpack-packages"
    MOUNTS = "mounts"
    TTY = "tty"
    NETWORK_FULL = "network-full"
    NETWORK_FILTERED = "network-filtered"
    EXPOSE_PORT = "expose-port"
    KEEP_WORKSPACE = "keep-workspace"
    DIFF_ID = "diff-id"
    HARD_MEMORY = "hard-memory"
    HARD_CPU = "hard-cpu"
    HARD_PIDS = "hard-pids"
    HARD_DISK = "hard-disk"
    VOLUME_CAPACITY = "volume-capacity"
    DETACHED = "detached"


@dataclass(frozen=True)
class Mount:
    """A directory or file of this machine, seen read-only at `target` while a command runs. It is never
    part of a layer; the mount point itself is removed again when it did not exist."""

    origin: Path
    target: str


@dataclass(frozen=True)
class Command:
    """One process to run.

    argv:    program and arguments; the program is looked up in the PATH of `env`
    env:     the whole environment, nothing is inherited
    user:    `name`, `uid`, `user:group`; resolved in the stack's /etc/passwd and /etc/group
    network: `none` or `full`
    secrets: name -> value, each readable by the user at /run/secrets/<name> on a tmpfs
    timeout: seconds until the whole process tree is killed

    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    user: str = "root"
    network: str = "none"
    mounts: tuple[Mount, ...] = ()
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    timeout: float | None = None


@dataclass(frozen=True)
class Completed:
    """How a command ended. `exit_code` is 128 + signal when a signal ended it; `limit` names the limit that
    stopped it (`timeout`, `memory`, `output`), None when none did."""

    exit_code: int
    timed_out: bool = False
    out_of_memory: bool = False
    seconds: float = 0.0
    limit: str | None = None


@dataclass(frozen=True)
class Committed:
    """A committed layer. `size` is the bytes of its files, `entries` their number, `diff_id` None where
    the engine cannot read content back. `unreproducible` names paths no rule can make equal."""

    key: LayerKey
    diff_id: Digest | None
    size: int
    entries: int
    unreproducible: tuple[str, ...] = ()


class Workspace(Protocol):
    """The writable state between prepare and commit."""

    id: str

    async def execute(self, command: Command, output: Output, *, stdin: bytes = b"") -> Completed:
        """Run a command as a build step and wait for it. Raises EngineError when it cannot be started."""
        ...

    async def place(self, entries: Sequence[TreeEntry]) -> None:
        """Write entries, in order; a `file` takes its bytes from `origin`. Missing parents are made."""
        ...

    async def read(self, path: str) -> bytes:
        """The bytes of a regular file, symlinks resolved inside the workspace. FileNotFoundError."""
        ...

    async def remove(self, path: str) -> None:
        """Remove a file or a tree; nothing happens when it does not exist."""
        ...

    async def unpack_packages(self, directory: Path, names: Sequence[str]) -> Mapping[str, str]:
        """Unpack Debian packages, the files `names` in a directory that every user may read, and record them
        in dpkg's database, so that the workspace is as `dpkg --unpack` of them in this order leaves it. No
        script of theirs is run. Those that cannot be unpacked like this are left alone: the reason for each,
        by name. Needs Capability.UNPACK_PACKAGES."""
        ...

    async def commit(self, definition: Definition, key: LayerKey) -> Committed:
        """Normalise what was written, seal it and publish it under `key`, atomically. Idempotent: when the
        key is already there, that layer stays and this workspace goes. The workspace is gone afterwards."""
        ...

    async def abort(self, *, keep: bool = False) -> None:
        """Give up. With `keep`, what was written stays and can be opened again by `reopen(id)`."""
        ...


@dataclass(frozen=True)
class Limits:
    """Limits of a sandbox; None is the engine's default. Bytes, counts, cores, seconds.

    disk:       bytes of the throw-away layer; how many files it can hold follows from them
    open_files: descriptors of one process
    output:     bytes of stdout and stderr together that a command may write through `execute`
    timeout:    seconds until the sandbox ends, with every process in it
    """

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    disk: int | None = None
    timeout: float | None = None
    open_files: int | None = None
    output: int | None = None


@dataclass(frozen=True)
class SandboxOptions:
    """How a sandbox is started.

    workspace:   id of a kept workspace that it stands on
    volume:      id of the volume that its root writes to; None writes to a throw-away layer
    mounts:      volumes by the absolute path where each is seen, writable
    privileges:  `none`, or `sudo`: setuid programs work inside
    best_effort: limits that cannot be enforced are watched over, or left, instead of refused
    timeout:     seconds until the sandbox ends by itself, with every process in it
    """

    limits: Limits = field(default_factory=Limits)
    network: str = "none"
    workspace: str | None = None
    volume: str | None = None
    mounts: Mapping[str, str] = field(default_factory=dict)
    privileges: str = "none"
    best_effort: bool = False
    timeout: float | None = None


@dataclass(frozen=True)
class Detachment:
    """What a sandbox needs that outlives its client.

    info:      what is listed of it; its id is what others connect to
    layers:    every layer that it needs, to be kept from gc as long as it lives
    about:     what clients that connect are told, as JSON
    variables: the first ones of its `variables`
    locks:     descriptors that stay open as long as it lives; the caller keeps its own
    command:   what it is for: it ends when that ends, whose output is kept as its `log`
    """

    info: SandboxInfo
    layers: tuple[LayerKey, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    locks: tuple[int, ...] = ()
    command: Command | None = None


@dataclass(frozen=True)
class Terminal:
    """The size of a terminal a process is given."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True)
class Stdio:
    """File descriptors of the caller that a process gets as its own. -1 is /dev/null."""

    stdin: int = -1
    stdout: int = -1
    stderr: int = -1


class Process(Protocol):
    """A command running in a sandbox."""

    async def wait(self) -> Completed:
        """Wait for the end. May be called again, with the same answer."""
        ...

    async def kill(self, signal: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        ...

    async def resize(self, terminal: Terminal) -> None:
        """Tell it its terminal's new size."""
        ...


class Sandbox(Protocol):
    """A running environment with a throw-away layer, or a volume, on top of a stack.

    stack:    the layers below what it writes to, lowest first
    warnings: one sentence for each limit that was asked for and is not strictly enforced, and for what a
              network lacks
    """

    id: str
    stack: tuple[LayerKey, ...]
    warnings: tuple[str, ...]

    @property
    def alive(self) -> bool:
        """Whether it still runs: nobody closed it, its time is not over, and its init has not died."""
        ...

    @property
    def pid(self) -> int | None:
        """The process id of its init on this machine, None where it has none or has ended."""
        ...

    @property
    def fs(self) -> SandboxFiles:
        """Its files, from outside."""
        ...

    async def execute(self, command: Command, output: Output, *, stdin: bytes = b"") -> Completed:
        """Run a command and wait for it, passing its output on as it comes."""
        ...

    async def spawn(self, command: Command, stdio: Stdio, *, terminal: Terminal | None = None) -> Process:
        """Start a command on the caller's descriptors; with `terminal`, on a pseudo-terminal that is
        bridged to them."""
        ...

    async def expose(self, port: int, *, host: str = "127.0.0.1", host_port: int = 0) -> str:
        """Make the sandbox's loopback port reachable at the URL that is returned, while it lives."""
        ...

    async def connect(self, port: int) -> int:
        """A connected TCP socket (descriptor, the caller's to close) to a loopback port of the sandbox.
        ConnectionRefusedError while nothing listens."""
        ...

    async def extend(self, timeout: float) -> None:
        """Let it end by itself `timeout` seconds from now, whatever was said before."""
        ...

    async def snapshot(
        self, definition: Definition, key: LayerKey, *, mount: str | None = None
    ) -> tuple[Committed, float]:
        """Commit what was written since the start as a layer under `key`, while the sandbox runs on: its
        processes are frozen for the time of the copy, whose seconds are returned. With `mount`, what the
        volume mounted there holds above its stack."""
        ...

    def when_ended(self, tell: Callable[[], None]) -> None:
        """Call `tell`, in the event loop, once it has ended for whatever reason and its volumes are free."""
        ...

    async def close(self) -> None:
        """End every process and drop what was written, except to volumes. May be called twice."""
        ...


class DetachedSandbox(Sandbox, Protocol):
    """A sandbox that does not end with the client that made it, as one of its clients has it. `close` ends
    it. What a client starts in it ends with that client; `extend` never takes time away; the ports that it
    exposes stay exposed. `alive` is also False once this client has let go of it.

    about: what its maker said, for other clients
    """

    about: Mapping[str, Any]

    @property
    def variables(self) -> dict[str, str]:
        """Variables that are the same for all clients, as they are now: what `set_variables` said, on top of
        what its maker said."""
        ...

    @property
    def completed(self) -> Completed | None:
        """How the command ended that the sandbox was made for, once that has ended the sandbox."""
        ...

    async def keep(self) -> None:
        """Let it outlive its maker. Until that was said it ends with its maker, so that what is half made
        never stays."""
        ...

    async def set_variables(self, changes: Mapping[str, str | None]) -> None:
        """Set variables, or unset those that are None, for all clients."""
        ...

    async def log(self) -> bytes:
        """The last of what the command wrote that the sandbox was made for."""
        ...

    async def leave(self) -> None:
        """Let go of it: it goes on, what this client has started in it ends. May be called twice."""
        ...


class Engine(Protocol):
    """Where layers are built and sandboxes run."""

    name: str
    capabilities: frozenset[Capability]

    async def have(self, keys: Sequence[LayerKey]) -> frozenset[LayerKey]:
        """Which of the keys are committed here."""
        ...

    async def bootstrap(self, base: DebianBase, packages: Mapping[str, Path], output: Output) -> Workspace:
        """A workspace with no parent that holds a Debian base of exactly these packages (files by sha256
        hex, already checked). Raises BuildError when the result's package set is another."""
        ...

    async def unpack(self, base: RootfsBase, archive: Path, output: Output) -> Workspace:
        """A workspace with no parent that holds a root filesystem tar's content."""
        ...

    async def prepare(self, stack: Stack) -> Workspace:
        """A workspace on top of a stack (empty for scratch)."""
        ...

    async def reopen(self, workspace: str) -> Workspace:
        """A kept workspace. Raises EngineError when it is gone."""
        ...

    async def start(
        self,
        stack: Stack,
        *,
        limits: Limits | None = None,
        network: str = "none",
        workspace: str | None = None,
        options: SandboxOptions | None = None,
    ) -> Sandbox:
        """Boot a sandbox from a stack. `options` says everything at once; the other keywords are its fields,
        for callers who need no more. With `workspace`, it stands on a kept workspace and writes into a
        throw-away layer above it. Raises LimitNotEnforceable."""
        ...

    async def detach(self, stack: Stack, options: SandboxOptions, detachment: Detachment) -> DetachedSandbox:
        """Boot a sandbox that outlives this client, once `keep` was said. Raises as `start` does."""
        ...

    async def connect(self, sandbox: str) -> DetachedSandbox:
        """A detached sandbox that this or another client of the same user and store made. NoSuchSandbox."""
        ...

    async def create_volume(
        self, volume: str, capacity: int | None, stack: Stack, *, best_effort: bool = False
    ) -> None:
        """Make an empty volume of that id, to be used on `stack`. `capacity` is the bytes that can be written
        to it. Raises LimitNotEnforceable when that cannot be enforced, unless `best_effort` is enough."""
        ...

    async def remove_volume(self, volume: str) -> None:
        """Delete a volume that no sandbox uses; nothing happens when there is none."""
        ...

    async def freeze_volume(self, volume: str, definition: Definition, key: LayerKey) -> Committed:
        """Make a layer of what a volume holds that no sandbox uses, in a time that does not depend on its
        size. The volume is empty afterwards and has to be used on its stack with the new layer on top."""
        ...

    async def measure(self, key: LayerKey) -> Digest | None:
        """The digest of a committed layer's content as it is now: its `diff_id` while nobody has touched it.
        None where content cannot be read back. EngineError when the layer is not there."""
        ...

    async def manifests(self, stack: Stack, *, start: int = 0) -> tuple[tuple[Entry, ...], ...]:
        """What each layer of a stack holds as it is placed there, lowest first, from number `start` on;
        entries by path. Needs the capability DIFF_ID."""
        ...

    async def remove(self, keys: Sequence[LayerKey]) -> None:
        """Drop committed layers. Layers in use by a running sandbox go when it ends."""
        ...

    async def close(self) -> None:
        """End every sandbox and release everything this client holds."""
        ...
