"""A detached sandbox, as its clients have it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sandboxfile.core.layer import Definition, LayerKey
from sandboxfile.engine.base import Command, Committed, Completed, Output, Stdio, Terminal
from sandboxfile.engines.linux.detached import documents
from sandboxfile.engines.linux.detached.link import Link
from sandboxfile.engines.linux.detached.sockets import prepare
from sandboxfile.engines.linux.fs import LinuxFiles
from sandboxfile.engines.linux.fs_channel import FilesChannel
from sandboxfile.engines.linux.output import KILLED, TooMuchOutput, capped
from sandboxfile.engines.linux.pipes import Pipes
from sandboxfile.engines.linux.streams import Reader
from sandboxfile.errors import EngineError


class DetachedProcess:
    """A command that this client has started."""

    def __init__(self, link: Link, number: int, end: asyncio.Future[Completed]) -> None:
        self._link = link
        self._number = number
        self._end = end

    async def wait(self) -> Completed:
        """Wait for the end."""
        return await asyncio.shield(self._end)

    async def kill(self, signal: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        await self._do("signal", signal=signal)

    async def resize(self, terminal: Terminal) -> None:
        """Tell it its terminal's new size."""
        await self._do("resize", size=(terminal.rows, terminal.columns))

    async def end(self) -> None:
        """End it and everything it has started."""
        await self._do("end")

    async def _do(self, op: str, **arguments: Any) -> None:
        if self._end.done() or not self._link.open:
            return
        try:
            await self._link.do(op, process=self._number, **arguments)
        except EngineError:
            if self._link.open:
                raise


class _Worker:
    """A file worker that the keeper starts for this client."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def check(self) -> None:
        """Raise when the sandbox has ended."""
        if not self._link.open:
            raise self._link.ended()

    async def open(self) -> socket.socket:
        """Have it started."""
        _, (descriptor,) = await self._link.ask("files")
        channel = socket.socket(fileno=descriptor)
        prepare(channel)
        return channel

    async def close(self) -> None:
        """Have it ended. May be called twice."""
        if self._link.open:
            await self._link.do("no_files")


class LinuxDetached:
    """A sandbox in the hands of its keeper."""

    def __init__(self, link: Link, hello: Mapping[str, Any]) -> None:
        self.id: str = hello["id"]
        self.stack: tuple[LayerKey, ...] = tuple(map(documents.key, hello["stack"]))
        self.warnings: tuple[str, ...] = tuple(hello["warnings"])
        self.about: Mapping[str, Any] = hello["about"]
        self.fs = LinuxFiles(FilesChannel(_Worker(link)))
        self._pid: int | None = hello["pid"]
        self._most_output: int | None = hello["output"]
        self._link = link

    @property
    def alive(self) -> bool:
        """Whether it still runs, and this connection to it is open."""
        return self._link.open

    @property
    def pid(self) -> int | None:
        """The process id of its init on this machine."""
        return self._pid if self.alive else None

    @property
    def variables(self) -> dict[str, str]:
        """The variables that all clients share, as they are now."""
        return self._link.variables

    @property
    def completed(self) -> Completed | None:
        """How its command ended, once the sandbox has ended by that."""
        return self._link.completed

    def when_ended(self, tell: Callable[[], None]) -> None:
        """Call `tell` when it has ended; not when this client lets go of it."""
        self._link.told.append(tell)

    async def keep(self) -> None:
        """Have it outlive this client: until this was said, it ends with the client that makes it."""
        await self._link.do("keep")

    async def set_variables(self, changes: Mapping[str, str | None]) -> None:
        """Change variables, None for none, for all clients."""
        await self._link.do("variables", changes=dict(changes))

    async def log(self) -> bytes:
        """The last of what its command has written."""
        if not self._link.open:
            return self._link.log
        return bytes.fromhex(await self._link.do("log"))

    async def execute(self, command: Command, output: Output, *, stdin: bytes = b"") -> Completed:
        """Run a command and wait for it."""
        started = time.monotonic()
        pipes = Pipes(stdin)
        try:
            process = await self._start(command, pipes.indexes, pipes.theirs, own=True)
            pipes.close_theirs()
            try:
                return await _follow(process, pipes, capped(output, self._most_output), stdin)
            except TooMuchOutput:
                await process.end()
                return Completed(KILLED, seconds=time.monotonic() - started, limit="output")
            except BaseException:
                await asyncio.shield(process.end())
                raise
        finally:
            pipes.close()

    async def spawn(
        self, command: Command, stdio: Stdio, *, terminal: Terminal | None = None
    ) -> DetachedProcess:
        """Start a command on the caller's descriptors, or on a terminal bridged to them. It ends with this
        client."""
        wanted = (stdio.stdin, stdio.stdout, stdio.stderr)
        given = [each for each in wanted if each >= 0]
        indexes = [sum(e >= 0 for e in wanted[:n]) if each >= 0 else -1 for n, each in enumerate(wanted)]
        return await self._start(command, indexes, given, terminal=terminal)

    async def _start(
        self,
        command: Command,
        indexes: Sequence[int],
        given: Sequence[int],
        *,
        own: bool = False,
        terminal: Terminal | None = None,
    ) -> DetachedProcess:
        number, end = self._link.begin()
        process = DetachedProcess(self._link, number, end)
        try:
            await self._link.ask(
                "spawn",
                descriptors=given,
                process=number,
                command=documents.of_command(command),
                stdio=list(indexes),
                own=own,
                terminal=(terminal.rows, terminal.columns) if terminal else None,
            )
        except asyncio.CancelledError:
            # It may have been started all the same.
            await asyncio.shield(process.end())
            raise
        except BaseException:
            end.cancel()
            raise
        return process

    async def expose(self, port: int, *, host: str = "127.0.0.1", host_port: int = 0) -> str:
        """Make a loopback port of the sandbox reachable for as long as the sandbox lives."""
        url: str = await self._link.do("expose", port=port, host=host, host_port=host_port)
        return url

    async def connect(self, port: int) -> int:
        """A connected TCP socket to a loopback port of the sandbox."""
        try:
            _, (descriptor,) = await self._link.ask("connect", port=port)
        except OSError as error:
            if error.errno == 111:
                raise ConnectionRefusedError(*error.args) from None
            raise
        return descriptor

    async def extend(self, timeout: float) -> None:
        """Let it live for at least `timeout` seconds from now."""
        await self._link.do("extend", timeout=timeout)

    async def snapshot(
        self, definition: Definition, key: LayerKey, *, mount: str | None = None
    ) -> tuple[Committed, float]:
        """Commit what was written since the start as a layer, while the sandbox runs on."""
        said = documents.of_definition(definition)
        committed, pause = await self._link.do("snapshot", definition=said, key=key, mount=mount)
        return documents.to_committed(committed), pause

    async def leave(self) -> None:
        """Let go of it: what this client has started in it ends, the sandbox goes on. May be called twice."""
        await self.fs.close()
        self._link.close()

    async def close(self) -> None:
        """End it, and wait until nothing of it is left."""
        if self._link.open:
            try:
                await self._link.say({"op": "close"})
            except EngineError:
                # It has ended by itself at this moment.
                pass
        await self._link.gone()
        await self.fs.close()


async def _follow(process: DetachedProcess, pipes: Pipes, output: Output, stdin: bytes) -> Completed:
    """Pass on what a command writes until it ends; a reader that fails is raised at once."""
    readers = [
        Reader(pipes.stdout, lambda data: output("stdout", data)),
        Reader(pipes.stderr, lambda data: output("stderr", data)),
    ]
    feeder = asyncio.ensure_future(pipes.feed(stdin))
    ended = asyncio.ensure_future(process.wait())
    broken = [asyncio.ensure_future(reader.finish()) for reader in readers]
    waiting: set[asyncio.Future[Any]] = {ended, *broken}
    try:
        while not ended.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in done - {ended}:
                each.result()
        for reader in readers:
            reader.drain()
        return ended.result()
    finally:
        for each in (feeder, ended, *broken):
            each.cancel()
        for reader in readers:
            reader.stop()
