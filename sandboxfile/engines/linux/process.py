"""A command running in a sandbox."""

from __future__ import annotations

import asyncio
import os
import signal as signals
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sandboxfile.engine.base import Completed, Stdio, Terminal
from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.operations import Signal
from sandboxfile.engines.linux.runtime import Judge, exit_code
from sandboxfile.engines.linux.terminal import Bridge


class Voice:
    """Says what the runtime has to say of a command where the command would say it: on its standard error,
    else on its standard output. The descriptor is its own."""

    def __init__(self, stdio: Stdio) -> None:
        given = stdio.stderr if stdio.stderr >= 0 else stdio.stdout
        self._descriptor = os.dup(given) if given >= 0 else -1

    def say(self, data: bytes) -> None:
        """Say something, unless nobody listens any more."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.write(self._descriptor, data)

    def close(self) -> None:
        """Say no more. May be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Voice:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class LinuxProcess:
    """A process that was spawned; its end is awaited in the background, so that nothing is left over."""

    def __init__(
        self,
        helper: HelperClient,
        judge: Judge,
        job: int,
        started: float,
        timeout: float | None,
        log: str,
        bridge: Bridge | None,
        release: Callable[[], Awaitable[None]],
        voice: Voice,
    ) -> None:
        self._helper = helper
        self._judge = judge
        self._job = job
        self._started = started
        self._log = log
        self._bridge = bridge
        self._release = release
        self._voice = voice
        self._end: asyncio.Future[Completed] = asyncio.ensure_future(self._finish(timeout))

    @classmethod
    def ended(cls, code: int) -> LinuxProcess:
        """A process that could not be started, with the shell's exit code for why."""
        process = cls.__new__(cls)
        process._bridge = None
        process._end = asyncio.get_running_loop().create_future()
        process._end.set_result(Completed(code))
        return process

    async def _finish(self, timeout: float | None) -> Completed:
        timed_out = False
        try:
            try:
                code = await asyncio.wait_for(self._helper.exit_of(self._job), timeout)
            except TimeoutError:
                timed_out = True
                await self._helper.do(Signal(self._job, signals.SIGKILL, tree=True))
                code = await self._helper.exit_of(self._job)
            if self._bridge:
                await self._bridge.finish()
            completed = Completed(exit_code(code), timed_out, False, time.monotonic() - self._started)
            return await self._judge(completed, self._log, lambda _, data: self._voice.say(data))
        finally:
            self._voice.close()
            await self._release()

    async def wait(self) -> Completed:
        """Wait for the end."""
        return await asyncio.shield(self._end)

    async def kill(self, signal: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        if not self._end.done() and self._helper.running:
            await self._helper.do(Signal(self._job, signal))

    async def end(self) -> None:
        """End it, what it has started, and what is in its session."""
        if not self._end.done() and self._helper.running:
            await self._helper.do(Signal(self._job, signals.SIGKILL, tree=True))
            await asyncio.wait([self._end])

    async def resize(self, terminal: Terminal) -> None:
        """Tell it its terminal's new size."""
        if self._bridge and not self._end.done():
            self._bridge.resize(terminal)
