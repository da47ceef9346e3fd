"""The client's side of the helper: starting it, asking it, hearing from it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandboxfile.engines.linux.helper_start import take
from sandboxfile.engines.linux.idmap import IdMap
from sandboxfile.engines.linux.layers import DISK_FULL, disk_full
from sandboxfile.engines.linux.operations import LookForGroups, Operation
from sandboxfile.engines.linux.outside import children
from sandboxfile.engines.linux.scope import enter, is_offered
from sandboxfile.engines.linux.streams import readable, writable
from sandboxfile.engines.linux.wire import receive, send
from sandboxfile.errors import EngineError, HostError

_START_DEADLINE = 60.0


class OperationFailed(EngineError):
    """The helper could not do something. `number` is the kernel's errno."""

    def __init__(self, operation: Operation, number: int, reason: str, file: str) -> None:
        where = f" ({file})" if file else ""
        super().__init__(
            f"the host refused to {operation.op.replace('_', ' ')}: {reason}{where}",
            hint="run `sandboxfile doctor` to see what this host lacks",
            details=(operation.describe(),),
        )
        self.number = number


class HelperClient:
    """One helper. Bound to the event loop that is running when it is used."""

    def __init__(self, home: Path, ids: IdMap) -> None:
        self._home = home
        self._ids = ids
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Lock | None = None
        self._answers: dict[int, tuple[Sequence[Operation], asyncio.Future[tuple[list[Any], list[int]]]]] = {}
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._consoles: dict[int, asyncio.Future[int]] = {}
        self._left: dict[int, int] = {}
        self._number = 0
        self.base = ""
        self.memory_uppers = False
        self.limits = False

    @property
    def running(self) -> bool:
        """Whether there is a helper."""
        return self._channel is not None

    @property
    def pid(self) -> int | None:
        """The process that waits for the helper, None when there is none: it ends when everything the helper
        held is gone."""
        return self._process.pid if self._process else None

    def new_job(self) -> int:
        """A number for a process whose end will be reported."""
        self._number += 1
        self._exits[self._number] = asyncio.get_running_loop().create_future()
        return self._number

    async def exit_of(self, job: int) -> int:
        """Wait for a job's end: its exit code, negative for a signal."""
        future = self._exits[job]
        try:
            return await asyncio.shield(future)
        finally:
            if future.done():
                self._exits.pop(job, None)

    def left_by(self, job: int) -> int | None:
        """The process that a job left behind for its `adopt` job; None when there is none."""
        return self._left.pop(job, None)

    def end_of(self, job: int) -> asyncio.Future[int]:
        """The future of a job's end, for somebody who does other things meanwhile; in place of `exit_of`."""
        future = self._exits[job]
        future.add_done_callback(lambda _: self._exits.pop(job, None))
        return future

    def put_back(self, job: int, code: int) -> None:
        """Let a job's end, which was already taken, be awaited again."""
        self._exits[job] = asyncio.get_running_loop().create_future()
        self._exits[job].set_result(code)

    def console_of(self, job: int) -> asyncio.Future[int]:
        """The terminal a runtime will send for a job."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._consoles[job] = future
        return future

    async def do(self, *operations: Operation, descriptors: Sequence[int] = ()) -> list[Any]:
        """Have operations done in order, stopping at the first that fails. Raises OperationFailed."""
        results, received = await self.ask(*operations, descriptors=descriptors)
        for descriptor in received:
            os.close(descriptor)
        return results

    async def ask(
        self, *operations: Operation, descriptors: Sequence[int] = ()
    ) -> tuple[list[Any], list[int]]:
        """Like `do`; also gives the descriptors that came back, the caller's to close."""
        await self.start()
        assert self._channel is not None
        assert self._loop is not None
        self._attach()
        self._number += 1
        number = self._number
        future: asyncio.Future[tuple[list[Any], list[int]]] = self._loop.create_future()
        self._answers[number] = (operations, future)
        message = {"id": number, "ops": [operation.message() for operation in operations]}
        while True:
            try:
                send(self._channel, message, list(descriptors))
                break
            except BlockingIOError:
                await writable(self._channel.fileno())
            except OSError as error:
                del self._answers[number]
                raise EngineError("the sandbox helper has ended unexpectedly") from error
        # The helper does what it was asked, cancelled or not: the answer is awaited before giving up.
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not future.done():
                await asyncio.wait([future], timeout=30)
            raise

    async def start(self) -> None:
        """Start the helper if there is none."""
        if self._channel is not None:
            return
        if self._starting is None or self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._starting = asyncio.Lock()
        async with self._starting:
            if self._channel is None:
                await self._reap()
                await self._launch()

    async def _launch(self) -> None:
        launched = take(str(self._home), (self._ids.mode, self._ids.guest_uid, self._ids.guest_gid))
        self.base, self._process = launched.base, launched.process
        try:
            features = await asyncio.wait_for(self._greet(launched.channel), _START_DEADLINE)
        except BaseException as error:
            launched.discard()
            self._process = None
            if isinstance(error, TimeoutError):
                raise HostError(
                    f"the sandbox helper was not ready after {_START_DEADLINE:.0f} seconds",
                    hint="this machine is very busy, or something keeps processes of yours from running",
                ) from None
            raise
        self.memory_uppers = features["memory_uppers"]
        self.limits = features["limits"]
        self._channel = launched.channel
        self._loop = None
        self._attach()

    async def _greet(self, channel: socket.socket) -> dict[str, bool]:
        """Wait until the helper is ready; what this kernel gives it."""
        assert self._process is not None
        assert self._process.stderr is not None
        while True:
            await readable(channel.fileno())
            message, _ = receive(channel)
            if message is None:
                said = self._process.stderr.read().decode("utf-8", "replace").strip()
                raise EngineError("the sandbox helper did not start", details=tuple(said.splitlines()[-5:]))
            if message["event"] == "ready":
                features: dict[str, bool] = message["features"]
                return features
            if message["event"] == "map":
                await asyncio.to_thread(self._ids.write_outer_map, self._process.pid)
                send(channel, {"event": "mapped"}, [])
            else:
                raise HostError(
                    f"this host does not let sandboxes be made ({message['reason']})",
                    hint="run `sandboxfile doctor` to see what is missing",
                )

    async def claim_limits(self) -> None:
        """Have control groups for limits where they have to be asked for; `limits` says whether there are."""
        await self.start()
        if self.limits or self.pid is None or not is_offered():
            return
        for helper in children(self.pid):
            if await asyncio.to_thread(enter, helper):
                (self.limits,) = await self.do(LookForGroups())

    def _attach(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        self._loop = loop
        assert self._channel is not None
        loop.add_reader(self._channel, self._hear)

    def _hear(self) -> None:
        assert self._channel is not None
        while self._channel is not None:
            try:
                message, descriptors = receive(self._channel)
            except BlockingIOError:
                return
            if message is None:
                self._lost()
                return
            self._handle(message, descriptors)

    def _handle(self, message: dict[str, Any], descriptors: list[int]) -> None:
        event = message.get("event")
        if event == "exit":
            if "left" in message:
                self._left[message["job"]] = message["left"]
            future = self._exits.get(message["job"])
            if future and not future.done():
                future.set_result(message["code"])
        elif event == "console":
            console = self._consoles.pop(message["job"], None)
            if console is None or console.done():
                os.close(descriptors[0])
            else:
                console.set_result(descriptors[0])
        else:
            operations, answer = self._answers.pop(message["id"])
            failed = message.get("error")
            if answer.done():
                for descriptor in descriptors:
                    os.close(descriptor)
            elif failed:
                answer.set_exception(_failure(operations[failed["index"]], failed))
            else:
                answer.set_result((message["results"], descriptors))

    def _lost(self) -> None:
        """The helper is gone, and every sandbox with it."""
        self._detach()
        self._let_go(EngineError("the sandbox helper has ended unexpectedly"))

    def _let_go(self, error: EngineError) -> None:
        """Tell everybody who waits for the helper that it says no more."""
        for _, answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
        self._answers.clear()
        for future in self._exits.values():
            if not future.done():
                future.set_result(-9)
        for console in self._consoles.values():
            console.cancel()

    def _detach(self) -> None:
        if self._channel is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._channel)
            self._channel.close()
        self._channel = None
        self._loop = None

    async def close(self) -> None:
        """End the helper and everything it holds, and wait for that."""
        self._detach()
        await self._reap()
        self._let_go(EngineError("the sandbox helper was closed"))

    async def _reap(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            watched = os.pidfd_open(process.pid)
            try:
                await readable(watched)
            finally:
                os.close(watched)
        process.communicate()


def _failure(operation: Operation, failed: dict[str, Any]) -> Exception:
    if failed["errno"] in DISK_FULL:
        return disk_full()
    return OperationFailed(operation, failed["errno"], failed["reason"], failed["file"])
