"""A running environment on this machine: a static init in its own namespaces, commands joined to it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sandboxfile.core.layer import Definition, LayerKey
from sandboxfile.declared import replace
from sandboxfile.engine.base import (
    Command,
    Committed,
    Completed,
    Output,
    SandboxOptions,
    Stdio,
    Terminal,
)
from sandboxfile.engines.linux.expose import Exposed, connect_inside
from sandboxfile.engines.linux.fs import LinuxFiles
from sandboxfile.engines.linux.fs_channel import FilesChannel
from sandboxfile.engines.linux.helper_client import OperationFailed
from sandboxfile.engines.linux.limits import Enforcement, Watcher
from sandboxfile.engines.linux.operations import (
    BindMount,
    CountProcesses,
    Deadline,
    DropPoints,
    Limit,
    LimitEvents,
    Listen,
    MakeDirectory,
    MakeNamespaces,
    MakePoints,
    Operation,
    OverlayMount,
    ReadModes,
    RemoveTree,
    Signal,
    Spawn,
    Thaw,
    Unlimit,
    Unmount,
    WriteFile,
)
from sandboxfile.engines.linux.outside import outside_pid
from sandboxfile.engines.linux.process import LinuxProcess
from sandboxfile.engines.linux.runtime import NOT_EXECUTABLE, Refused, runtime_environment, secret_writes
from sandboxfile.engines.linux.runtimespec import (
    STANDARD_POINTS,
    BoundMount,
    Container,
    GuestProcess,
    config,
    process,
)
from sandboxfile.engines.linux.snapshot import commit_running
from sandboxfile.engines.linux.terminal import Bridge
from sandboxfile.engines.linux.users import Identity
from sandboxfile.engines.linux.work import work
from sandboxfile.errors import EngineError, HostError

if TYPE_CHECKING:
    from sandboxfile.engines.linux.engine import LinuxEngine
    from sandboxfile.engines.linux.uppers import Uppers

_INIT = "/run/sandboxfile/init"
_BOOT_DEADLINE = 30.0
_END_DEADLINE = 10.0
_SECRETS = "/run/secrets"
_KILLED = 137
_BROKEN_PIPE = 141
_OF_RUNTIME = 3
"""How many processes the runtime needs in the sandbox to start a command."""
_ENDED = {
    "timeout": "the sandbox has ended: its time was over",
    "memory": "the sandbox has ended: it took more memory than it may",
    "disk": "the sandbox has ended: it took more disk than it may",
    "init": "the sandbox has ended: its init was ended",
}


class _TooMuchOutput(Exception):
    """A command has written more than it may."""


class LinuxSandbox:
    """A sandbox: an overlay with a throw-away upper directory or a volume's, and an init process."""

    def __init__(
        self,
        engine: LinuxEngine,
        stack: tuple[LayerKey, ...],
        lowers: list[str],
        options: SandboxOptions,
        enforcement: Enforcement,
        uppers: Uppers,
    ) -> None:
        self.id = f"s-{os.urandom(8).hex()}"
        self.stack = stack
        self.warnings = enforcement.warnings
        self._engine = engine
        self._helper = engine.helper
        self._runtime = engine.runtime
        self._lowers = lowers
        self._options = options
        self._limits = options.limits
        self._network = options.network
        self._enforcement = enforcement
        self._uppers = uppers
        self._watcher = Watcher(self._helper, self._finish)
        self._here = f"{self._helper.base}/sandboxes/{self.id}"
        self._net = f"{self._here}/net"
        self._env: dict[str, str] = {}
        self._points: list[str] = []
        self._init_job = 0
        self._init_pid = 0
        self._init_end: asyncio.Future[int] | None = None
        self._exposed: list[Exposed] = []
        self._commands = 0
        self._ends_at: float | None = None
        self._thawed: asyncio.Future[None] | None = None
        self._reason = ""
        self._closing: asyncio.Task[None] | None = None
        self._cgroup = ""
        self._killed = self._refused = 0
        self.fs = LinuxFiles(FilesChannel(self._helper, self._root_place))

    async def boot(self) -> None:
        """Mount, connect and start the init. Raises EngineError, HostError."""
        init = _find_init()
        # As few messages as can be: each costs two switches between processes.
        self._uppers.prepare(self._here, self._enforcement.disk)
        root = f"{self._here}/root"
        before: list[Operation] = [
            MakeDirectory(self._here),
            *self._make_limits(),
            *self._uppers.making,
            OverlayMount(root, self._lowers, self._uppers.upper, self._uppers.work),
            MakeDirectory(f"{self._here}/secrets"),
            BindMount(init, f"{self._here}/init"),
        ]
        if self._network == "none":
            before.append(MakeNamespaces(self._net, self._enforcement.nested))
        else:
            await self._helper.do(*before)
            before.clear()
            await self._engine.network.make(self._network, self._net, self._enforcement.nested)
        mounts, self._env = await self._engine.network.outfit(self._network, self._net)
        mounts += [BoundMount(f"{self._here}/init", _INIT), BoundMount(f"{self._here}/secrets", _SECRETS)]
        guest = GuestProcess((_INIT, "-P"), {}, "/", Identity(0, 0))
        container = Container(
            root,
            self._net,
            guest,
            False,
            self._runtime.host,
            (*mounts, *self._uppers.mounts),
            privileges=self._options.privileges,
            open_files=self._limits.open_files,
        )
        log, pid_file = f"{self._here}/log", f"{self._here}/pid"
        job, init_job = self._helper.new_job(), self._helper.new_job()
        argv = self._runtime.argv(
            log,
            "run",
            "--detach",
            *self._runtime.without_keyring,
            "--bundle",
            self._here,
            "--pid-file",
            pid_file,
            self.id,
        )
        document = json.dumps(config(container))
        points = [(_INIT, False), *((mount.target, False) for mount in mounts[:-1]), (_SECRETS, True)]
        points += [(mount.target, True) for mount in self._uppers.mounts]
        if self._options.volume is not None:
            # Whatever is made for the sandbox must not stay in the volume.
            points += [(point, True) for point in STANDARD_POINTS]
        making: list[Operation] = [
            *before,
            MakePoints(root, points),
            WriteFile(f"{self._here}/config.json", document, 0o600),
            Spawn(
                job,
                argv,
                runtime_environment(),
                pid_file=pid_file,
                cgroup=self._cgroup,
                sealed=self._runtime.sealable,
                adopt=init_job,
            ),
        ]
        starting = asyncio.ensure_future(self._start_init(making, len(before), job, init_job, log))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            # It is milliseconds until there is an init that `close` can end; half-way there is none.
            await asyncio.wait([starting], timeout=_BOOT_DEADLINE)
            raise
        timeout = self._options.timeout if self._options.timeout is not None else self._limits.timeout
        if timeout is not None:
            await self.extend(timeout)
        self._watch()

    async def _start_init(
        self, making: list[Operation], points: int, job: int, init_job: int, log: str
    ) -> None:
        """Do all that makes the sandbox; the operation number `points` tells which mountpoints were made."""
        results = await self._helper.do(*making)
        self._points = results[points]
        try:
            code = await asyncio.wait_for(self._helper.exit_of(job), _BOOT_DEADLINE)
        except TimeoutError:
            await self._helper.do(Signal(job, signal.SIGKILL, tree=True))
            raise EngineError(f"the sandbox did not start within {_BOOT_DEADLINE:.0f} seconds") from None
        init_pid = self._helper.left_by(job)
        if code or init_pid is None:
            await self._runtime.judge(Completed(code), log, _ignore)
            raise EngineError(f"the sandbox could not be started (the runtime ended with {code})")
        self._init_job, self._init_pid = init_job, init_pid
        self._init_end = self._helper.end_of(init_job)
        self._init_end.add_done_callback(lambda _: self._init_ended())

    def _watch(self) -> None:
        """Have somebody look at what cannot be enforced."""
        if self._enforcement.watched is not None:
            self._watcher.memory(self._init_pid, self._enforcement.watched)
        watched = list(self._uppers.watched)
        if self._enforcement.watched_disk is not None:
            watched.append((self._uppers.upper, self._enforcement.watched_disk))
        for directory, limit in watched:
            self._watcher.disk(directory, limit)

    def _make_limits(self) -> list[Operation]:
        if not self._enforcement.grouped:
            return []
        self._cgroup = self.id
        return [Limit(self.id, *self._enforcement.group)]

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._closing is None and not self._over and self._helper.running

    @property
    def pid(self) -> int | None:
        """The process id of its init on this machine."""
        return outside_pid(self._helper.pid, self._init_pid) if self.alive else None

    @property
    def _over(self) -> bool:
        return self._ends_at is not None and time.monotonic() >= self._ends_at

    async def _judge(self, completed: Completed, log: str, output: Output) -> Completed:
        """As the runtime judges, but that it complains of a sandbox which is being closed is no failure; and
        which limit stopped the command."""
        try:
            completed = await self._runtime.judge(completed, log, output)
        except EngineError:
            if self._closing is None and not self._over:
                await self._check_init()
                if not await self._is_full():
                    raise
                return _no_process(completed, output)
        if completed.timed_out:
            return replace(completed, limit="timeout")
        if completed.exit_code == 0:
            return completed
        if self._over or self._reason in ("timeout", "memory", "disk"):
            return replace(completed, limit=self._reason or "timeout")
        if self._closing is not None or not self._helper.running:
            return completed
        if completed.exit_code == _BROKEN_PIPE and await self._is_full():
            # The runtime could not even say why.
            return _no_process(completed, output)
        return await self._judge_events(completed) if self._cgroup else completed

    async def _is_full(self) -> bool:
        """Whether the runtime finds no room for the few processes that it needs for a moment."""
        if self._limits.pids is None or not self._helper.running:
            return False
        (count,) = await self._helper.do(CountProcesses(self._init_pid))
        return bool(count > self._limits.pids - _OF_RUNTIME)

    async def _judge_events(self, completed: Completed) -> Completed:
        """Name the limit that control groups enforced since somebody looked last."""
        ((killed, refused),) = await self._helper.do(LimitEvents(self.id))
        was_killed, was_refused = self._killed, self._refused
        self._killed, self._refused = killed, refused
        if killed > was_killed:
            return replace(completed, out_of_memory=True, limit="memory")
        return replace(completed, limit="pids") if refused > was_refused else completed

    def _init_ended(self) -> None:
        """Told when the init has ended: by `close`, or because its time was over, or otherwise."""
        self._finish("timeout" if self._over else "init")

    def _finish(self, reason: str) -> None:
        """End the sandbox for a reason of its own."""
        if self._closing is None:
            self._reason = reason
            self._closing = asyncio.ensure_future(self._end())

    async def extend(self, timeout: float) -> None:
        """Let it end by itself `timeout` seconds from now. The helper sees to that, whatever this client does
        meanwhile."""
        self._check_open()
        self._ends_at = time.monotonic() + timeout
        await self._helper.do(Deadline(self._init_job, timeout))

    async def snapshot(
        self, definition: Definition, key: LayerKey, *, mount: str | None = None
    ) -> tuple[Committed, float]:
        """Commit what was written since the start (or what a mounted volume holds) as a layer; for how many
        seconds its processes stood still. Commands that are started meanwhile wait."""
        self._check_open()
        if self._options.workspace is not None:
            raise EngineError("a sandbox on a kept workspace cannot be made a snapshot")
        while self._thawed is not None:
            await asyncio.shield(self._thawed)
        if self._engine.layers.has(key):
            return self._engine.layers.sealed(key).committed, 0.0
        upper = self._uppers.upper if mount is None else self._uppers.upper_of(mount)
        points = self._points if mount is None else ()
        self._thawed = asyncio.get_running_loop().create_future()
        try:
            return await commit_running(self._engine, self.id, self._init_pid, upper, points, definition, key)
        finally:
            self._thawed.set_result(None)
            self._thawed = None

    async def execute(self, command: Command, output: Output, *, stdin: bytes = b"") -> Completed:
        """Run a command and wait for it."""
        try:
            guest, bundle, release = await self._stage(command, None)
        except Refused as refused:
            return refused.tell(output)
        started = time.monotonic()
        try:
            return await self._runtime.run(
                [self._process_file(bundle, guest)],
                lambda job: self._spawning(job, bundle),
                self._capped(output),
                stdin=stdin,
                owner=self._owner(guest.identity),
                timeout=command.timeout,
                log=f"{bundle}/log",
                whole=False,
                judge=self._judge,
            )
        except _TooMuchOutput:
            return Completed(_KILLED, seconds=time.monotonic() - started, limit="output")
        finally:
            await release()

    def _capped(self, output: Output) -> Output:
        """Pass on as much as a command may write; what is beyond that ends it."""
        if self._limits.output is None:
            return output
        left = self._limits.output

        def take(stream: str, data: bytes) -> None:
            nonlocal left
            if left > 0 and data:
                output(stream, data[:left])
            left -= len(data)
            if left < 0:
                raise _TooMuchOutput

        return take

    async def spawn(
        self, command: Command, stdio: Stdio, *, terminal: Terminal | None = None
    ) -> LinuxProcess:
        """Start a command on the caller's descriptors, or on a terminal bridged to them."""
        size = (terminal.rows, terminal.columns) if terminal else None
        try:
            guest, bundle, release = await self._stage(command, size)
        except Refused as refused:
            _tell(stdio, f"{refused.sentence}\n")
            return LinuxProcess.ended(refused.exit_code)
        job = self._helper.new_job()
        started = time.monotonic()
        before = self._process_file(bundle, guest)
        try:
            if terminal:
                console = f"{bundle}/console"
                waiting = self._helper.console_of(job)
                operation = self._spawning(job, bundle, "--tty", "--console-socket", console)
                await self._helper.do(before, Listen(job, console), operation)
                bridge = await self._bridge(job, waiting, stdio)
            else:
                wanted = (stdio.stdin, stdio.stdout, stdio.stderr)
                given = [each for each in wanted if each >= 0]
                indexes = [
                    sum(e >= 0 for e in wanted[:n]) if each >= 0 else -1 for n, each in enumerate(wanted)
                ]
                operation = replace(self._spawning(job, bundle), stdio=tuple(indexes))
                await self._helper.do(before, operation, descriptors=given)
                bridge = None
        except BaseException:
            await release()
            raise
        return LinuxProcess(
            self._helper,
            self._judge,
            job,
            started,
            command.timeout,
            f"{bundle}/log",
            bridge,
            release,
            lambda text: _tell(stdio, text),
        )

    async def _bridge(self, job: int, waiting: asyncio.Future[int], stdio: Stdio) -> Bridge | None:
        ended = asyncio.ensure_future(self._helper.exit_of(job))
        try:
            await asyncio.wait({ended, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                # It ended without ever having had a terminal: the runtime could not start it.
                self._helper.put_back(job, ended.result())
                return None
            return Bridge(waiting.result(), stdio)
        finally:
            ended.cancel()

    async def _stage(
        self, command: Command, size: tuple[int, int] | None
    ) -> tuple[GuestProcess, str, Callable[[], Awaitable[None]]]:
        """Look the command up and prepare what it needs; what undoes that."""
        while self._thawed is not None:
            await asyncio.shield(self._thawed)
        self._check_open()
        if command.network not in ("none", self._network):
            raise EngineError("the sandbox was started without network", hint="start it with network `full`")
        # A runtime with a kernel of its own shows nothing of the sandbox on the host but its root's mount.
        inside = f"/proc/{self._init_pid}/root" if self._runtime.shares_kernel else f"{self._here}/root"
        try:
            guest = await self._runtime.resolve(command, inside, size)
        except OperationFailed:
            await self._check_init()
            raise
        guest = replace(guest, env={**self._env, **guest.env})
        self._commands += 1
        bundle = f"{self._here}/commands/{self._commands}"
        undo: list[Operation] = [RemoveTree(bundle)]
        if command.secrets:
            writes = secret_writes(command.secrets, f"{self._here}/secrets", guest.identity)
            await self._helper.do(*writes)
        undo += [RemoveTree(f"{self._here}/secrets/{name}") for name in command.secrets]
        targets = await self._attach(command, inside, undo)

        async def release() -> None:
            if self._closing is None and self._helper.running:
                if targets:
                    await work(
                        self._helper, "detach", {"pid": self._init_pid, "targets": targets}, mapped=False
                    )
                await self._helper.do(*undo)

        return guest, bundle, release

    async def _check_init(self) -> None:
        """After something was refused: raise the sandbox's end when that is the reason. An init that is being
        ended has no root directory any more, and its end is heard of a moment later."""
        assert self._init_end is not None
        try:
            await self._helper.do(ReadModes(f"/proc/{self._init_pid}/root", ["/"]))
        except OperationFailed:
            await asyncio.wait([self._init_end], timeout=_END_DEADLINE)
        self._check_open()

    async def _attach(self, command: Command, inside: str, undo: list[Operation]) -> list[str]:
        if not command.mounts:
            return []
        points = [(mount.target, mount.origin.is_dir()) for mount in command.mounts]
        (made,) = await self._helper.do(MakePoints(inside, points))
        undo.append(DropPoints(inside, made))
        mounts = [(str(mount.origin.resolve()), mount.target) for mount in command.mounts]
        targets: list[str] = await work(
            self._helper, "attach", {"pid": self._init_pid, "mounts": mounts}, mapped=False
        )
        return targets

    def _process_file(self, bundle: str, guest: GuestProcess) -> WriteFile:
        document = process(
            guest,
            self._runtime.host,
            build=False,
            privileges=self._options.privileges,
            open_files=self._limits.open_files,
        )
        return WriteFile(f"{bundle}/process.json", json.dumps(document), 0o600)

    def _spawning(self, job: int, bundle: str, *options: str) -> Spawn:
        files = ("--process", f"{bundle}/process.json", "--pid-file", f"{bundle}/pid")
        argv = self._runtime.argv(f"{bundle}/log", "exec", *options, *files, self.id)
        return Spawn(
            job,
            argv,
            runtime_environment(),
            pid_file=f"{bundle}/pid",
            cgroup=self._cgroup,
            sealed=self._runtime.sealable,
        )

    def _owner(self, identity: Identity) -> tuple[int, int]:
        return self._engine.ids.guest_uid + identity.uid, self._engine.ids.guest_gid + identity.gid

    async def expose(self, port: int, *, host: str = "127.0.0.1", host_port: int = 0) -> str:
        """Make a loopback port of the sandbox reachable at the URL that is returned."""
        self._check_open()
        exposed = Exposed(lambda: self.connect(port))
        url = await exposed.listen(host, host_port)
        self._exposed.append(exposed)
        return url

    async def connect(self, port: int) -> int:
        """A connected TCP socket to a loopback port of the sandbox."""
        self._check_open()
        return await connect_inside(self._helper, f"{self._net}/net", port)

    def _root_place(self) -> tuple[int, str]:
        """The init's pid and the path of the sandbox's root directory, both as the helper knows them."""
        self._check_open()
        return self._init_pid, f"{self._here}/root"

    def _check_open(self) -> None:
        if self._over:
            self._finish("timeout")
        if self._closing is not None:
            raise EngineError(_ENDED.get(self._reason, "the sandbox has ended"))

    async def close(self) -> None:
        """End every process and drop what was written."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._end())
        await asyncio.shield(self._closing)

    async def _end(self) -> None:
        self._watcher.stop()
        for exposed in self._exposed:
            await exposed.close()
        try:
            await self.fs.close()
            if self._helper.running:
                if self._init_end is not None:
                    await self._helper.do(Signal(self._init_job, signal.SIGKILL))
                    await asyncio.wait([self._init_end])
                before: list[Operation] = [Thaw(self.id)] if self._thawed is not None else []
                if self._options.volume is not None and self._points:
                    before.append(DropPoints(f"{self._here}/root", self._points))
                if self._uppers.persistent:
                    await self._helper.do(*before)
                    before.clear()
                    await work(self._helper, "take_away", {"target": self._here}, mapped=False)
                await self._runtime.delete(self.id, *before, Unmount(self._here), Unlimit(self.id))
        finally:
            try:
                await self._uppers.release()
            finally:
                await self._engine.after(self)


def _find_init() -> str:
    path = shutil.which("catatonit") or shutil.which("catatonit", path="/usr/libexec/podman:/usr/bin")
    if not path:
        raise HostError(
            "`catatonit` is missing, the init of sandboxes", hint="sudo apt-get install catatonit"
        )
    return os.path.realpath(path)


def _tell(stdio: Stdio, text: str) -> None:
    for descriptor in (stdio.stderr, stdio.stdout):
        if descriptor >= 0:
            os.write(descriptor, text.encode())
            return


def _no_process(completed: Completed, output: Output) -> Completed:
    output("stderr", b"sandboxfile: the sandbox has as many processes as it may have\n")
    return replace(completed, exit_code=NOT_EXECUTABLE, limit="pids")


def _ignore(_stream: str, _data: bytes) -> None:
    """Output that nobody wants."""
