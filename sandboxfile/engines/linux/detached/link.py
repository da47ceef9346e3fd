"""The client's side of a keeper's socket: requests, answers, and what the keeper says by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from sandboxfile.engine.base import Completed
from sandboxfile.engines.linux.detached.documents import PROTOCOL, Document, to_completed, to_error
from sandboxfile.engines.linux.detached.launch import reap
from sandboxfile.engines.linux.streams import readable, writable
from sandboxfile.engines.linux.wire import receive, send
from sandboxfile.errors import EngineError

_PATIENCE = 30.0
"""Seconds in which a keeper has to say what it is, or to end once it was told to."""
_KILLED = 137

Answer = tuple[Any, list[int]]


class Link:
    """One connection. Bound to the event loop that is running when it is made.

    variables:  the sandbox's environment, as it is now for all clients
    why:        why the sandbox has ended, as far as its keeper said
    completed:  how its command ended, when that was its end; `log` is the last of what that wrote
    """

    def __init__(self, channel: socket.socket, pid: int) -> None:
        self.variables: dict[str, str] = {}
        self.why: EngineError | None = None
        self.completed: Completed | None = None
        self.log = b""
        self.told: list[Callable[[], None]] = []
        self._channel: socket.socket | None = channel
        self._process = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._hello: asyncio.Future[Document] = self._loop.create_future()
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._ends: dict[int, asyncio.Future[Completed]] = {}
        self._number = 0
        self._loop.add_reader(channel, self._hear)

    @property
    def open(self) -> bool:
        """Whether the keeper is there."""
        return self._channel is not None

    async def hello(self, patience: float = _PATIENCE) -> Document:
        """What the keeper says first. Raises what its sandbox failed with, EngineError."""
        try:
            said = await asyncio.wait_for(asyncio.shield(self._hello), patience)
        except TimeoutError:
            raise EngineError(
                f"the sandbox does not answer within {patience:.0f} seconds",
                hint="it may be starting, or its keeper may be stopped",
            ) from None
        if said["protocol"] != PROTOCOL:
            raise EngineError(
                "the sandbox was made by another version of sandboxfile",
                hint="use that version to reach it, or end the process that keeps it",
            )
        self.variables = said["variables"]
        return said

    async def ask(self, op: str, *, descriptors: Sequence[int] = (), **arguments: Any) -> Answer:
        """Ask for something: the result and descriptors, the caller's to close. Raises what went wrong."""
        self._number += 1
        number = self._number
        waiting: asyncio.Future[Answer] = self._loop.create_future()
        self._answers[number] = waiting
        try:
            await self.say({"id": number, "op": op, **arguments}, descriptors)
            return await waiting
        finally:
            self._answers.pop(number, None)

    async def do(self, op: str, **arguments: Any) -> Any:
        """Ask for something that brings no descriptors."""
        result, received = await self.ask(op, **arguments)
        for descriptor in received:
            os.close(descriptor)
        return result

    async def say(self, message: Document, descriptors: Sequence[int] = ()) -> None:
        """Send a message that wants no answer, or whose answer is awaited elsewhere."""
        while True:
            if self._channel is None:
                raise self.ended()
            try:
                send(self._channel, message, list(descriptors))
                return
            except BlockingIOError:
                await writable(self._channel.fileno())
            except OSError as error:
                raise self.ended() from error

    def begin(self) -> tuple[int, asyncio.Future[Completed]]:
        """A number for a command that is about to be started, and its end."""
        self._number += 1
        number, future = self._number, self._loop.create_future()
        self._ends[number] = future
        future.add_done_callback(lambda _: self._ends.pop(number, None))
        return number, future

    def ended(self) -> EngineError:
        """What is said to whoever asks for more."""
        return self.why or EngineError("the sandbox has ended")

    def _hear(self) -> None:
        while self._channel is not None:
            try:
                message, descriptors = receive(self._channel)
            except BlockingIOError:
                return
            if message is None:
                self._lost()
                return
            self._handle(message, descriptors)

    def _handle(self, message: Document, descriptors: list[int]) -> None:
        event = message.get("event")
        if event == "hello":
            if not self._hello.done():
                self._hello.set_result(message)
        elif event == "failed":
            if not self._hello.done():
                self._hello.set_exception(to_error(message["error"]))
        elif event == "end":
            end = self._ends.get(message["process"])
            if end is not None and not end.done():
                end.set_result(to_completed(message["completed"]))
        elif event == "variables":
            self.variables.clear()
            self.variables.update(message["variables"])
        elif event == "ended":
            self._note(message)
        else:
            self._settle(message, descriptors)

    def _note(self, message: Document) -> None:
        error = to_error(message["error"])
        self.why = error if isinstance(error, EngineError) else None
        if message["completed"] is not None:
            self.completed = to_completed(message["completed"])
        self.log = bytes.fromhex(message["log"])

    def _settle(self, message: Document, descriptors: list[int]) -> None:
        answer = self._answers.pop(message["id"], None)
        if answer is None or answer.done():
            for descriptor in descriptors:
                os.close(descriptor)
        elif "error" in message:
            answer.set_exception(to_error(message["error"]))
        else:
            answer.set_result((message["result"], descriptors))

    def _lost(self) -> None:
        """The keeper is gone, and its sandbox with it."""
        self._detach()
        for tell in self.told:
            tell()

    def _detach(self) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return
        self._loop.remove_reader(channel)
        channel.close()
        error = self.ended()
        waiting: list[asyncio.Future[Any]] = [self._hello, *self._answers.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                # Somebody may have given up waiting for it.
                future.exception()
        for end in tuple(self._ends.values()):
            if not end.done():
                end.set_result(Completed(_KILLED))
        reap()

    def hang_up(self) -> None:
        """Let the keeper hear nothing more. May be called twice."""
        self._detach()

    async def gone(self) -> None:
        """Wait for the end of the keeper's process, and end it when that does not come."""
        if self._process < 0:
            return
        try:
            await asyncio.wait_for(readable(self._process), _PATIENCE)
        except TimeoutError:
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
            await readable(self._process)
        finally:
            self.close()

    def close(self) -> None:
        """Hang up. May be called twice."""
        self._detach()
        process, self._process = self._process, -1
        if process >= 0:
            os.close(process)
