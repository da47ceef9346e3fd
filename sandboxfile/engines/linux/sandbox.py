"""A running environment on this machine: a static init in its own namespaces, commands joined to it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sandboxfile.core.layer import LayerKey
from sandboxfile.engine.base import Command, Completed, Limits, Output, Stdio, Terminal
from sandboxfile.engines.linux.expose import Exposed, connect_inside
from sandboxfile.engines.linux.layers import Owned
from sandboxfile.engines.linux.operations import (
    BindMount,
    DropPoints,
    KilledForMemory,
    Limit,
    Listen,
    MakeDirectory,
    MakePoints,
    MemoryMount,
    Operation,
    OverlayMount,
    RemoveTree,
    Signal,
    Spawn,
    Unlimit,
    Unmount,
    Watch,
    WriteFile,
)
from sandboxfile.engines.linux.process import LinuxProcess
from sandboxfile.engines.linux.runtime import Refused, runtime_environment, secret_writes
from sandboxfile.engines.linux.runtimespec import BoundMount, Container, GuestProcess, config, process
from sandboxfile.engines.linux.terminal import Bridge
from sandboxfile.engines.linux.users import Identity
from sandboxfile.engines.linux.work import work
from sandboxfile.errors import EngineError, HostError, MissingCapability

if TYPE_CHECKING:
    from sandboxfile.engines.linux.engine import LinuxEngine

_INIT = "/run/sandboxfile/init"
_BOOT_DEADLINE = 30.0
_SECRETS = "/run/secrets"


class LinuxSandbox:
    """A sandbox: an overlay with a throw-away upper directory, and an init process."""

    def __init__(
        self,
        engine: LinuxEngine,
        stack: tuple[LayerKey, ...],
        lowers: list[str],
        limits: Limits,
        network: str,
    ) -> None:
        self.id = f"s-{secrets.token_hex(8)}"
        self.stack = stack
        self._engine = engine
        self._helper = engine.helper
        self._runtime = engine.runtime
        self._lowers = lowers
        self._limits = limits
        self._network = network
        self._here = f"{self._helper.base}/sandboxes/{self.id}"
        self._net = f"{self._here}/net"
        self._env: dict[str, str] = {}
        self._owned: Owned | None = None
        self._init_job = 0
        self._init_pid = 0
        self._exposed: list[Exposed] = []
        self._commands = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._cgroup = ""
        self._killed = 0

    async def boot(self) -> None:
        """Mount, connect and start the init. Raises EngineError, HostError."""
        init = _find_init()
        await self._helper.do(MakeDirectory(self._here))
        await self._make_limits()
        upper, work_directory = await self._make_upper()
        root = f"{self._here}/root"
        await self._helper.do(
            OverlayMount(root, self._lowers, upper, work_directory),
            MakeDirectory(f"{self._here}/secrets"),
            BindMount(init, f"{self._here}/init"),
        )
        await self._engine.network.make(self._network, self._net)
        mounts, self._env = await self._engine.network.outfit(self._network, self._net)
        mounts += [BoundMount(f"{self._here}/init", _INIT), BoundMount(f"{self._here}/secrets", _SECRETS)]
        guest = GuestProcess((_INIT, "-P"), {}, "/", Identity(0, 0))
        container = Container(
            root, self._net, guest, False, self._runtime.host, tuple(mounts), pids=self._limits.pids
        )
        log, pid_file = f"{self._here}/log", f"{self._here}/pid"
        job = self._helper.new_job()
        argv = self._runtime.argv(
            log, "run", "--detach", "--bundle", self._here, "--pid-file", pid_file, self.id
        )
        document = json.dumps(config(container))
        await self._helper.do(
            MakePoints(
                root, [(_INIT, False), *((mount.target, False) for mount in mounts[:-1]), (_SECRETS, True)]
            ),
            WriteFile(f"{self._here}/config.json", document, 0o600),
            Spawn(job, argv, runtime_environment(), cgroup=self._cgroup),
        )
        code = await asyncio.wait_for(self._helper.exit_of(job), _BOOT_DEADLINE)
        if code:
            await self._runtime.judge(Completed(code), log, _ignore)
            raise EngineError(f"the sandbox could not be started (the runtime ended with {code})")
        self._init_job = self._helper.new_job()
        (self._init_pid,) = await self._helper.do(Watch(self._init_job, pid_file))
        if self._limits.timeout is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._limits.timeout, self._expire)

    async def _make_upper(self) -> tuple[str, str]:
        if self._helper.memory_uppers:
            memory = f"{self._here}/memory"
            upper, work_directory = f"{memory}/upper", f"{memory}/work"
            await self._helper.do(
                MemoryMount(memory, self._limits.disk),
                MakeDirectory(upper, guest=True),
                MakeDirectory(work_directory),
            )
            return upper, work_directory
        if self._limits.disk is not None:
            raise MissingCapability("this kernel cannot limit a sandbox's disk", "limits-disk")
        self._owned = Owned(self._engine.layers.workspaces)
        upper = str(self._owned.path / "layer" / "fs")
        await self._helper.do(MakeDirectory(upper, guest=True))
        return upper, str(self._owned.path / "work")

    async def _make_limits(self) -> None:
        limits = self._limits
        if limits.memory is None and limits.cpus is None:
            return  # the number of processes is limited without control groups too
        if not self._helper.limits:
            name = "memory" if limits.memory is not None else "cpus"
            raise MissingCapability(
                f"a sandbox's {name} cannot be limited here: that takes control groups, and so root",
                f"limits-{name}",
                hint="remove `memory` and `cpus` from `resources`, or run as root",
            )
        await self._helper.do(Limit(self.id, limits.memory, limits.cpus, limits.pids))
        self._cgroup = self.id

    async def _judge(self, completed: Completed, log: str, output: Output) -> Completed:
        """As the runtime judges, but that it complains of a sandbox which is being closed is no failure."""
        try:
            return await self._runtime.judge(completed, log, output)
        except EngineError:
            if self._closing is None:
                raise
            return completed

    async def _judge_memory(self, completed: Completed) -> Completed:
        """Say so when a command was ended for want of memory."""
        if not self._cgroup or completed.exit_code == 0 or self._closing is not None:
            return completed
        (killed,) = await self._helper.do(KilledForMemory(self.id))
        before, self._killed = self._killed, killed
        return replace(completed, out_of_memory=killed > before)

    def _expire(self) -> None:
        self._closing = self._closing or asyncio.ensure_future(self._end())

    async def execute(self, command: Command, output: Output, *, stdin: bytes = b"") -> Completed:
        """Run a command and wait for it."""
        try:
            guest, bundle, release = await self._stage(command, None)
        except Refused as refused:
            return refused.tell(output)
        try:
            completed = await self._runtime.run(
                [self._process_file(bundle, guest)],
                lambda job: self._spawning(job, bundle),
                output,
                stdin=stdin,
                owner=self._owner(guest.identity),
                timeout=command.timeout,
                log=f"{bundle}/log",
                whole=False,
                judge=self._judge,
            )
            return await self._judge_memory(completed)
        finally:
            await release()

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
        self._check_open()
        if command.network not in ("none", self._network):
            raise EngineError("the sandbox was started without network", hint="start it with network `full`")
        inside = f"/proc/{self._init_pid}/root"
        guest = await self._runtime.resolve(command, inside, size)
        guest = replace(guest, env={**self._env, **guest.env})
        self._commands += 1
        bundle = f"{self._here}/commands/{self._commands}"
        undo: list[Operation] = [RemoveTree(bundle)]
        await self._helper.do(
            MakeDirectory(bundle), *secret_writes(command.secrets, f"{self._here}/secrets", guest.identity)
        )
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
        document = process(guest, self._runtime.host, build=False, pids=self._limits.pids)
        return WriteFile(f"{bundle}/process.json", json.dumps(document), 0o600)

    def _spawning(self, job: int, bundle: str, *options: str) -> Spawn:
        files = ("--process", f"{bundle}/process.json", "--pid-file", f"{bundle}/pid")
        argv = self._runtime.argv(f"{bundle}/log", "exec", *options, *files, self.id)
        return Spawn(job, argv, runtime_environment(), pid_file=f"{bundle}/pid", cgroup=self._cgroup)

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

    def _check_open(self) -> None:
        if self._closing is not None:
            raise EngineError("the sandbox has ended")

    async def close(self) -> None:
        """End every process and drop what was written."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._end())
        await asyncio.shield(self._closing)

    async def _end(self) -> None:
        if self._timer:
            self._timer.cancel()
        for exposed in self._exposed:
            await exposed.close()
        try:
            if self._helper.running:
                if self._init_job:
                    await self._helper.do(Signal(self._init_job, signal.SIGKILL))
                    await self._helper.exit_of(self._init_job)
                await self._runtime.delete(self.id)
                await self._helper.do(Unmount(self._here), *([Unlimit(self._cgroup)] if self._cgroup else []))
            if self._owned:
                await self._engine.delete_tree(self._owned.path)
                self._owned.release()
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


def _ignore(_stream: str, _data: bytes) -> None:
    """Output that nobody wants."""
