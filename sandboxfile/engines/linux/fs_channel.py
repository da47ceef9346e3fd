"""The client's side of `worker.files`: a worker of its own for each sandbox and client, started at the first
request."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, Protocol

from sandboxfile.engines.linux.fs_bytes import Transfers
from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.operations import Signal, Work
from sandboxfile.engines.linux.streams import writable
from sandboxfile.engines.linux.users import Identity
from sandboxfile.engines.linux.wire import receive, send
from sandboxfile.errors import EngineError, FileRefused, SandboxGone

Answer = tuple[Any, list[int]]


class FilesSource(Protocol):
    """Where the socket of a file worker comes from."""

    def check(self) -> None:
        """Raise when the sandbox has ended."""
        ...

    async def open(self) -> socket.socket:
        """Start the worker; the socket to it, not blocking."""
        ...

    async def close(self) -> None:
        """End the worker, which holds the sandbox's root directory. May be called twice."""
        ...


class LocalFiles:
    """A worker forked by this process's own helper.

    place: gives the process whose root directory is meant and the path where the helper mounted that
           directory; raises when the sandbox has ended
    """

    def __init__(self, helper: HelperClient, place: Callable[[], tuple[int, str]]) -> None:
        self._helper = helper
        self._place = place
        self._job = 0

    def check(self) -> None:
        """Raise when the sandbox has ended."""
        self._place()

    async def open(self) -> socket.socket:
        """Start the worker."""
        pid, view = self._place()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours.setblocking(False)
        dirs = {"root": f"/proc/{pid}/root", "view": view}
        self._job = self._helper.new_job()
        try:
            # Twice the same: a worker's last words, were it to fail at the start, come the same way.
            given = (theirs.fileno(), theirs.fileno())
            await self._helper.do(Work(self._job, "files", {}, dirs), descriptors=given)
        except BaseException:
            self._job = 0
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    async def close(self) -> None:
        """End the worker. May be called twice."""
        job, self._job = self._job, 0
        if job and self._helper.running:
            await self._helper.do(Signal(job, signal.SIGKILL))
            await self._helper.exit_of(job)


class FilesChannel:
    """Asks a sandbox's file worker."""

    def __init__(self, source: FilesSource) -> None:
        self.transfers = Transfers()
        self._source = source
        self._starting: asyncio.Task[None] | None = None
        self._channel: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._number = 0

    async def ask(self, op: str, path: str, who: Identity, **arguments: Any) -> Any:
        """Have something done with the rights of `who`; its result. OSError, FileRefused."""
        result, descriptors = await self._ask(op, path, who, arguments)
        for descriptor in descriptors:
            os.close(descriptor)
        return result

    async def open(self, path: str, who: Identity, *, write: bool = False, **arguments: Any) -> int:
        """A descriptor of a regular file, the caller's to close. OSError, FileRefused."""
        options = {"append": False, "create": False, "create_new": False, "mode": None, **arguments}
        _, (descriptor,) = await self._ask("open", path, who, {"write": write, **options})
        return descriptor

    async def _ask(self, op: str, path: str, who: Identity, arguments: dict[str, Any]) -> Answer:
        self._source.check()
        if self._channel is None:
            if self._starting is None or self._starting.done():
                self._starting = asyncio.ensure_future(self._start())
            await asyncio.shield(self._starting)
        channel = self._channel
        if channel is None:
            raise SandboxGone("the sandbox has ended")
        self._number += 1
        number = self._number
        waiting = self._expect(number)
        request = {"id": number, "op": op, "path": path, "ids": (who.uid, who.gid, who.groups)}
        try:
            while True:
                try:
                    send(channel, request | arguments, [])
                    break
                except BlockingIOError:
                    await writable(channel.fileno())
                except OSError as error:
                    raise SandboxGone("the sandbox has ended") from error
            return await waiting
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        except FileRefused as refused:
            raise FileRefused(f"{path} is {refused.message}, which cannot be reached from outside") from None
        finally:
            self._waiting.pop(number, None)

    def _expect(self, number: int) -> asyncio.Future[Answer]:
        self._waiting[number] = asyncio.get_running_loop().create_future()
        return self._waiting[number]

    async def _start(self) -> None:
        ours = await self._source.open()
        self._channel, self._loop = ours, asyncio.get_running_loop()
        ready = self._expect(0)
        self._loop.add_reader(ours, self._hear)
        await ready

    def _hear(self) -> None:
        while self._channel is not None:
            try:
                message, descriptors = receive(self._channel)
            except BlockingIOError:
                return
            if message is None:
                self._lost(EngineError("the worker behind the sandbox's files has ended unexpectedly"))
                return
            if "id" not in message:
                self._lost(EngineError(message.get("message") or "the worker for files ended unexpectedly"))
                return
            waiting = self._waiting.pop(message["id"], None)
            if waiting is None or waiting.done():
                for descriptor in descriptors:
                    os.close(descriptor)
            elif "errno" in message:
                waiting.set_exception(OSError(message["errno"], os.strerror(message["errno"])))
            elif "refused" in message:
                waiting.set_exception(FileRefused(message["refused"]))
            elif "unexpected" in message:
                waiting.set_exception(EngineError(f"a file operation failed: {message['unexpected']}"))
            else:
                waiting.set_result((message.get("result"), descriptors))

    def _lost(self, error: Exception) -> None:
        if self._channel is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._channel)
            self._channel.close()
        self._channel = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
        self._waiting.clear()

    async def close(self) -> None:
        """End the worker, which holds the sandbox's root directory. May be called twice."""
        if self._starting is not None:
            await asyncio.wait([self._starting])
        await self.transfers.end()
        await self._source.close()
        self._lost(SandboxGone("the sandbox has ended"))
