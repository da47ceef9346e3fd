"""Sandboxes of the memory engine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sandboxfile.core.layer import Definition, LayerKey
from sandboxfile.engine.base import (
    Capability,
    Command,
    Committed,
    Completed,
    Output,
    SandboxOptions,
    Stdio,
    Terminal,
)
from sandboxfile.engines.memory.execution import begin, execute, finish
from sandboxfile.engines.memory.faults import Point
from sandboxfile.engines.memory.filesystem import Node, difference
from sandboxfile.engines.memory.fs import MemoryFiles
from sandboxfile.engines.memory.machine import Machine, Running
from sandboxfile.engines.memory.streams import Descriptor
from sandboxfile.engines.memory.volumes import Disk, MemoryVolume
from sandboxfile.engines.memory.workspace import Layer, committed_of
from sandboxfile.errors import EngineError, MissingCapability

if TYPE_CHECKING:
    from sandboxfile.engines.memory.engine import MemoryEngine


class MemoryProcess:
    """A command that was started in a sandbox."""

    def __init__(
        self, machine: Machine, running: Running, timeout: float | None, stdio: tuple[Descriptor, ...]
    ) -> None:
        self._machine = machine
        self._running = running
        self._stdio = stdio
        self._end = asyncio.get_running_loop().create_task(self._finish(timeout))

    async def wait(self) -> Completed:
        """Wait for the end; the same answer each time."""
        return await asyncio.shield(self._end)

    async def kill(self, signal: int) -> None:
        """Send a signal; nothing happens when the process has ended."""
        self._machine.kill(self._running.process.pid, signal)

    async def _finish(self, timeout: float | None) -> Completed:
        try:
            return await finish(self._machine, self._running, timeout)
        finally:
            for descriptor in self._stdio:
                descriptor.close()

    async def resize(self, terminal: Terminal) -> None:
        """Nothing: there are no terminals here."""


class MemorySandbox:
    """A tree of its own or a volume's, and the processes on it. Of the limits, disk and time hold."""

    def __init__(
        self,
        engine: MemoryEngine,
        identifier: str,
        stack: tuple[LayerKey, ...],
        nodes: Disk,
        lower: Mapping[str, Node],
        options: SandboxOptions,
        root: MemoryVolume | None,
        mounts: Mapping[str, MemoryVolume],
    ) -> None:
        self.id = identifier
        self.stack = stack
        self.warnings: tuple[str, ...] = ()
        self.pid: int | None = None
        self._most_output = options.limits.output
        self._engine = engine
        self._nodes = nodes
        self._lower = lower
        self._network = options.network
        self._root = root
        self._mounts = mounts
        self._machine = Machine(engine.programs, engine.script)
        self._exposed: list[asyncio.Server] = []
        self._open = True
        self._told: list[Callable[[], None]] = []
        for volume in self._volumes:
            volume.user = identifier
        for path in sorted(mounts):
            nodes.mount(path, mounts[path])
        self._expiry: asyncio.Task[None] | None = None
        timeout = options.timeout if options.timeout is not None else options.limits.timeout
        if timeout is not None:
            self._expire_in(timeout)

    @property
    def alive(self) -> bool:
        """Whether nobody closed it and its time is not over."""
        return self._open

    def when_ended(self, tell: Callable[[], None]) -> None:
        """Call `tell` when it has ended."""
        self._told.append(tell)

    @property
    def fs(self) -> MemoryFiles:
        """Its files, from outside."""
        return MemoryFiles(self._nodes, self._check)

    async def execute(self, command: Command, output: Output, *, stdin: bytes = b"") -> Completed:
        """Run a command; what it leaves in the background goes on."""
        self._check()
        return await execute(
            self._machine,
            self._nodes,
            command,
            output,
            stdin,
            self._engine.faults,
            network=self._network,
            most_output=self._most_output,
        )

    async def spawn(
        self, command: Command, stdio: Stdio, *, terminal: Terminal | None = None
    ) -> MemoryProcess:
        """Start a command on descriptors of the caller."""
        self._check()
        if terminal is not None:
            raise MissingCapability("the memory engine has no terminals", Capability.TTY)
        streams = (Descriptor(stdio.stdin), Descriptor(stdio.stdout), Descriptor(stdio.stderr))
        running = begin(
            self._machine, self._nodes, command, streams, self._engine.faults, network=self._network
        )
        return MemoryProcess(self._machine, running, command.timeout, streams)

    async def expose(self, port: int, *, host: str = "127.0.0.1", host_port: int = 0) -> str:
        """Pass connections on to a port of the sandbox; the URL."""
        self._check()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._machine.connections.add(writer)
            try:
                inner_reader, inner = await asyncio.open_connection(
                    sock=socket.socket(fileno=await self.connect(port))
                )
            except (OSError, EngineError):
                writer.close()
                return
            self._machine.connections.add(inner)
            await asyncio.gather(_pump(reader, inner), _pump(inner_reader, writer))
            for each in (writer, inner):
                self._machine.connections.discard(each)
                each.close()

        try:
            server = await asyncio.start_server(serve, host, host_port)
        except OSError as error:
            raise EngineError(f"the port {host_port} of {host} cannot be used: {error.strerror}") from error
        self._exposed.append(server)
        return f"http://{host}:{server.sockets[0].getsockname()[1]}"

    async def connect(self, port: int) -> int:
        """A socket to a port of the sandbox. ConnectionRefusedError while nothing listens there."""
        self._check()
        listener = self._machine.listeners.get(port)
        if listener is None:
            raise ConnectionRefusedError(111, f"nothing listens on port {port} of the sandbox")
        made = socket.socket()
        try:
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, listener.sockets[0].getsockname())
            made.setblocking(True)
        except BaseException:
            made.close()
            raise
        return made.detach()

    async def extend(self, timeout: float) -> None:
        """End `timeout` seconds from now."""
        self._check()
        if self._expiry is not None:
            self._expiry.cancel()
        self._expire_in(timeout)

    async def snapshot(
        self,
        definition: Definition,  # noqa: ARG002
        key: LayerKey,
        *,
        mount: str | None = None,
    ) -> tuple[Committed, float]:
        """Commit what was written. Nothing runs meanwhile: the copy is one step of the event loop."""
        self._check()
        started = asyncio.get_running_loop().time()
        if mount is None:
            change = difference(self._lower, self._nodes.own())
        elif mount in self._mounts:
            change = difference(self._mounts[mount].lower, self._nodes.content(mount))
        else:
            raise EngineError(f"no volume is mounted at {mount}")
        committed = self._engine.publish(Layer(change, committed_of(key, change)))
        return committed, asyncio.get_running_loop().time() - started

    async def close(self) -> None:
        """End every process and forget what was written, except to volumes."""
        if not self._open:
            return
        self._open = False
        if self._expiry is not None and self._expiry is not asyncio.current_task():
            self._expiry.cancel()
        for server in self._exposed:
            server.close()
        await self._machine.end()
        for path in sorted(self._mounts, reverse=True):
            self._mounts[path].take(self._nodes.content(path))
            self._nodes.unmount(path)
        for volume in self._volumes:
            volume.user = None
        if self._root is None:
            self._nodes.clear()
        self._engine.ended(self)
        for tell in self._told:
            tell()

    @property
    def _volumes(self) -> tuple[MemoryVolume, ...]:
        return (*self._mounts.values(), *([self._root] if self._root is not None else []))

    def _expire_in(self, seconds: float) -> None:
        self._expiry = asyncio.get_running_loop().create_task(self._expire(seconds))

    async def _expire(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.close()

    def _check(self) -> None:
        self._engine.faults.hit(Point.CONNECTION_LOST)
        if not self._open:
            raise EngineError(f"the sandbox {self.id} is closed")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, and pass the end on."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
