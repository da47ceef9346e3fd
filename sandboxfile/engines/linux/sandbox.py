"""A running environment on this machine: a static init in its own namespaces, commands joined to it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sandboxfile.core.layer import Definition, LayerKey
from sandboxfile.engine.base import Command, Committed, Completed, Output, SandboxOptions, Stdio, Terminal
from sandboxfile.engines.linux.boot import Boot
from sandboxfile.engines.linux.commands import Commands
from sandboxfile.engines.linux.expose import Exposed, connect_inside
from sandboxfile.engines.linux.fs import LinuxFiles
from sandboxfile.engines.linux.fs_channel import FilesChannel, FilesSource, LocalFiles
from sandboxfile.engines.linux.limits import Enforcement, Watcher
from sandboxfile.engines.linux.operations import (
    Deadline,
    DropPoints,
    Operation,
    Signal,
    Thaw,
    Unlimit,
    Unmount,
)
from sandboxfile.engines.linux.outside import outside_pid
from sandboxfile.engines.linux.process import LinuxProcess
from sandboxfile.engines.linux.snapshot import commit_running
from sandboxfile.engines.linux.state import State
from sandboxfile.engines.linux.work import work
from sandboxfile.errors import EngineError

if TYPE_CHECKING:
    from sandboxfile.engines.linux.engine import LinuxEngine
    from sandboxfile.engines.linux.uppers import Uppers


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
        self._uppers = uppers
        self._state = State(self.id, self._helper, options, enforcement)
        self._boot = Boot(engine, self._state, lowers, uppers, self._init_ended)
        self._commands = Commands(self._state, engine.runtime, engine.ids, self._check_open)
        self._watcher = Watcher(self._helper, self._finish)
        self._exposed: list[Exposed] = []
        self._told: list[Callable[[], None]] = []
        self._sources: list[FilesSource] = []
        self.fs = LinuxFiles(FilesChannel(LocalFiles(self._helper, self._root_place)))

    async def boot(self) -> None:
        """Mount, connect and start the init. Raises EngineError, HostError."""
        await self._boot.run()
        self.warnings = self._state.warnings
        options = self._state.options
        timeout = options.timeout if options.timeout is not None else options.limits.timeout
        if timeout is not None:
            await self.extend(timeout)
        self._watch()

    def _watch(self) -> None:
        """Have somebody look at what cannot be enforced."""
        enforcement = self._state.enforcement
        if enforcement.watched is not None:
            self._watcher.memory(self._state.init_pid, enforcement.watched)
        watched = list(self._uppers.watched)
        if enforcement.watched_disk is not None:
            watched.append((self._uppers.upper, enforcement.watched_disk))
        for directory, limit in watched:
            self._watcher.disk(directory, limit)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._state.alive

    @property
    def pid(self) -> int | None:
        """The process id of its init on this machine."""
        return outside_pid(self._helper.pid, self._state.init_pid) if self.alive else None

    def when_ended(self, tell: Callable[[], None]) -> None:
        """Call `tell` when it has ended, for whatever reason, and has given everything back."""
        self._told.append(tell)

    def end_reason(self) -> EngineError | None:
        """Why it has ended or is about to, None when it was closed or still runs."""
        return self._state.ended() if self._state.reason else None

    def files_source(self) -> FilesSource:
        """A file worker of its own for somebody else's `LinuxFiles`. It ends with the sandbox."""
        source = LocalFiles(self._helper, self._root_place)
        self._sources.append(source)
        return source

    def _init_ended(self) -> None:
        """Told when the init has ended: by `close`, or because its time was over, or otherwise."""
        self._finish("timeout" if self._state.over else "init")

    def _finish(self, reason: str) -> None:
        """End the sandbox for a reason of its own."""
        if self._state.closing is None:
            self._state.reason = reason
            self._state.closing = asyncio.ensure_future(self._end())

    async def extend(self, timeout: float) -> None:
        """Let it end by itself `timeout` seconds from now. The helper sees to that, whatever this client does
        meanwhile."""
        self._check_open()
        self._state.ends_at = time.monotonic() + timeout
        await self._helper.do(Deadline(self._state.init_job, timeout))

    async def snapshot(
        self, definition: Definition, key: LayerKey, *, mount: str | None = None
    ) -> tuple[Committed, float]:
        """Commit what was written since the start (or what a mounted volume holds) as a layer; for how many
        seconds its processes stood still. Commands that are started meanwhile wait."""
        self._check_open()
        state = self._state
        if state.options.workspace is not None:
            raise EngineError("a sandbox on a kept workspace cannot be made a snapshot")
        await state.moving()
        if self._engine.layers.has(key):
            return self._engine.layers.sealed(key).committed, 0.0
        upper = self._uppers.upper if mount is None else self._uppers.upper_of(mount)
        points = state.points if mount is None else ()
        state.thawed = asyncio.get_running_loop().create_future()
        try:
            return await commit_running(self._engine, self.id, state.init_pid, upper, points, definition, key)
        finally:
            state.thawed.set_result(None)
            state.thawed = None

    async def execute(self, command: Command, output: Output, *, stdin: bytes = b"") -> Completed:
        """Run a command and wait for it."""
        return await self._commands.execute(command, output, stdin=stdin)

    async def spawn(
        self, command: Command, stdio: Stdio, *, terminal: Terminal | None = None, own: bool = False
    ) -> LinuxProcess:
        """Start a command on the caller's descriptors, or on a terminal bridged to them. With `own`, they are
        given to the command's user."""
        return await self._commands.spawn(command, stdio, terminal=terminal, own=own)

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
        return await connect_inside(self._helper, f"{self._state.net}/net", port)

    def _root_place(self) -> tuple[int, str]:
        """The init's pid and the path of the sandbox's root directory, both as the helper knows them."""
        self._check_open()
        return self._state.init_pid, self._state.root

    def _check_open(self) -> None:
        if self._state.over:
            self._finish("timeout")
        if self._state.closing is not None:
            raise self._state.ended()

    async def close(self) -> None:
        """End every process and drop what was written."""
        if self._state.closing is None:
            self._state.closing = asyncio.ensure_future(self._end())
        await asyncio.shield(self._state.closing)

    async def _end(self) -> None:
        self._watcher.stop()
        for exposed in self._exposed:
            await exposed.close()
        try:
            await self.fs.close()
            for source in self._sources:
                await source.close()
            if self._helper.running:
                if self._state.init_end is not None:
                    await self._helper.do(Signal(self._state.init_job, signal.SIGKILL))
                    await asyncio.wait([self._state.init_end])
                before: list[Operation] = [Thaw(self.id)] if self._state.thawed is not None else []
                if self._state.options.volume is not None and self._state.points:
                    before.append(DropPoints(self._state.root, self._state.points))
                if self._uppers.persistent:
                    await self._helper.do(*before)
                    before.clear()
                    await work(self._helper, "take_away", {"target": self._state.here}, mapped=False)
                await self._engine.runtime.delete(
                    self.id, *before, Unmount(self._state.here), Unlimit(self.id)
                )
        finally:
            try:
                await self._uppers.release()
            finally:
                await self._engine.after(self)
                for tell in self._told:
                    tell()
