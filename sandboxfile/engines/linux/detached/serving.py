"""What a keeper does for one client of its sandbox."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from sandboxfile.engine.base import Stdio, Terminal
from sandboxfile.engines.linux.detached import documents
from sandboxfile.engines.linux.detached.documents import Document
from sandboxfile.engines.linux.fs_channel import FilesSource
from sandboxfile.engines.linux.process import LinuxProcess
from sandboxfile.engines.linux.streams import writable
from sandboxfile.engines.linux.wire import receive, send
from sandboxfile.errors import EngineError

if TYPE_CHECKING:
    from sandboxfile.engines.linux.detached.keeper import Keeper

Answer = tuple[Any, list[int]]


class Connection:
    """One client. What it has started ends with it."""

    def __init__(self, keeper: Keeper, channel: socket.socket) -> None:
        self._keeper = keeper
        self._channel: socket.socket | None = channel
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._processes: dict[int, asyncio.Future[LinuxProcess]] = {}
        self._files: list[FilesSource] = []
        self._verbs: dict[str, Callable[[Document, list[int]], Awaitable[Answer]]] = {
            "keep": self._keep,
            "spawn": self._spawn,
            "signal": self._signal,
            "resize": self._resize,
            "end": self._end,
            "files": self._open_files,
            "no_files": self._close_files,
            "expose": self._expose,
            "connect": self._connect,
            "extend": self._extend,
            "snapshot": self._snapshot,
            "variables": self._set_variables,
            "log": self._log,
        }
        self._loop.add_reader(channel, self._hear)

    def _hear(self) -> None:
        while self._channel is not None:
            try:
                message, descriptors = receive(self._channel)
            except BlockingIOError:
                return
            if message is None:
                self.hang_up()
                return
            if message["op"] == "close":
                self._keeper.end()
            else:
                self._run(self._answer(message, descriptors))

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def tell(self, message: Document) -> asyncio.Task[None]:
        """Send a message; the task that does."""
        return self._run(self.say(message))

    async def _answer(self, message: Document, descriptors: list[int]) -> None:
        reply: Document = {"id": message["id"]}
        outgoing: list[int] = []
        try:
            verb = self._verbs.get(message["op"])
            if verb is None:
                raise EngineError(f"the keeper of this sandbox cannot `{message['op']}`")
            reply["result"], outgoing = await verb(message, descriptors)
        except Exception as error:
            # Nothing that a client asks for may end the keeper, and the sandbox with it.
            reply["error"] = documents.of_error(error)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        try:
            await self.say(reply, outgoing)
        finally:
            for descriptor in outgoing:
                os.close(descriptor)

    async def say(self, message: Document, descriptors: list[int] | None = None) -> None:
        """Send a message; nothing happens when the client is gone."""
        async with self._sending:
            while self._channel is not None:
                try:
                    send(self._channel, message, descriptors or [])
                    return
                except BlockingIOError:
                    await writable(self._channel.fileno())
                except OSError:
                    self.hang_up()

    def hang_up(self) -> None:
        """The client is gone, or the sandbox. May be called twice."""
        channel, self._channel = self._channel, None
        if channel is None:
            return
        self._loop.remove_reader(channel)
        channel.close()
        self._keeper.left(self)

    async def clear(self) -> None:
        """End what the client has started."""
        for starting in tuple(self._processes.values()):
            await asyncio.wait([starting])
            if starting.exception() is None:
                await starting.result().end()
        files, self._files = self._files, []
        for source in files:
            await source.close()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    # Verbs. Descriptors that came with a message are closed after its answer.

    async def _keep(self, _message: Document, _given: list[int]) -> Answer:
        self._keeper.kept = True
        return None, []

    async def _spawn(self, message: Document, given: list[int]) -> Answer:
        command = documents.to_command(message["command"])
        size = message["terminal"]
        # A terminal is bridged to the descriptors for as long as the command runs.
        held = [os.dup(descriptor) for descriptor in given] if size else given
        stdio = Stdio(*(held[index] if index >= 0 else -1 for index in message["stdio"]))
        starting = asyncio.ensure_future(
            self._keeper.sandbox.spawn(
                command, stdio, terminal=Terminal(*size) if size else None, own=message["own"]
            )
        )
        number = message["process"]
        self._processes[number] = starting
        try:
            process = await starting
        except BaseException:
            del self._processes[number]
            _close(held if size else [])
            raise
        self._run(self._report(number, process, held if size else []))
        return None, []

    async def _report(self, number: int, process: LinuxProcess, held: list[int]) -> None:
        try:
            completed = await process.wait()
        finally:
            self._processes.pop(number, None)
            _close(held)
        await self.say({"event": "end", "process": number, "completed": documents.of_completed(completed)})

    async def _process(self, message: Document) -> LinuxProcess | None:
        """The process that is meant, None when it has ended."""
        starting = self._processes.get(message["process"])
        if starting is None:
            return None
        await asyncio.wait([starting])
        return starting.result() if starting.exception() is None else None

    async def _signal(self, message: Document, _given: list[int]) -> Answer:
        process = await self._process(message)
        if process is not None:
            await process.kill(message["signal"])
        return None, []

    async def _resize(self, message: Document, _given: list[int]) -> Answer:
        process = await self._process(message)
        if process is not None:
            await process.resize(Terminal(*message["size"]))
        return None, []

    async def _end(self, message: Document, _given: list[int]) -> Answer:
        process = await self._process(message)
        if process is not None:
            await process.end()
        return None, []

    async def _open_files(self, _message: Document, _given: list[int]) -> Answer:
        source = self._keeper.sandbox.files_source()
        self._files.append(source)
        channel = await source.open()
        return None, [channel.detach()]

    async def _close_files(self, _message: Document, _given: list[int]) -> Answer:
        files, self._files = self._files, []
        for source in files:
            await source.close()
        return None, []

    async def _expose(self, message: Document, _given: list[int]) -> Answer:
        return await self._keeper.expose(message["port"], message["host"], message["host_port"]), []

    async def _connect(self, message: Document, _given: list[int]) -> Answer:
        return None, [await self._keeper.sandbox.connect(message["port"])]

    async def _extend(self, message: Document, _given: list[int]) -> Answer:
        await self._keeper.extend(message["timeout"])
        return None, []

    async def _snapshot(self, message: Document, _given: list[int]) -> Answer:
        committed, pause = await self._keeper.sandbox.snapshot(
            documents.to_definition(message["definition"]),
            documents.key(message["key"]),
            mount=message["mount"],
        )
        return (documents.of_committed(committed), pause), []

    async def _set_variables(self, message: Document, _given: list[int]) -> Answer:
        self._keeper.set_variables(message["changes"])
        return None, []

    async def _log(self, _message: Document, _given: list[int]) -> Answer:
        return bytes(self._keeper.log).hex(), []


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
