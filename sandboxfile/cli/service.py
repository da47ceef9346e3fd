"""The long-running command of `up`: started, waited for, followed, stopped."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.safe import LineAssembler
from sandboxfile.core.units import seconds_text
from sandboxfile.declared import replace
from sandboxfile.engine.base import Command, Completed, Process, Sandbox, Stdio
from sandboxfile.errors import EngineError, StepFailed, UsageError

ANSWER_WITHIN = 30.0
"""Seconds in which the port must answer."""
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.5
"""Seconds between two tries; the pause doubles from the first to the longest."""
GRACE = 5.0
"""Seconds a service is given to end after SIGTERM."""


class Service:
    """A command that serves a port of a sandbox."""

    def __init__(
        self,
        invocation: Invocation,
        sandbox: Sandbox,
        command: Command,
        *,
        port: int | None,
        host_port: int,
        timeout: float | None,
        announce: Callable[[str], None],
    ) -> None:
        self._invocation = invocation
        self._sandbox = sandbox
        self._command = replace(command, timeout=None)
        self._port = port
        self._host_port = host_port
        self._timeout = timeout
        self._announced = announce
        self._last: deque[str] = deque(maxlen=20)

    async def serve(self, slug: str) -> int:
        """Run until the command ends (its exit code) or the time is over (0).

        Raises StepFailed when it ends before its port answers, EngineError when the port does not answer
        in time.
        """
        console = self._invocation.console
        self._invocation.progress.close()
        reading, writing = os.pipe()
        follower = asyncio.ensure_future(self._follow(reading))
        try:
            try:
                process = await self._sandbox.spawn(self._command, Stdio(-1, writing, writing))
            finally:
                os.close(writing)
            ended = asyncio.ensure_future(process.wait())
            try:
                if self._port is None:
                    console.say("`start` names no port, so there is no URL")
                else:
                    url = await self._expose(self._port)
                    self._announced(url)
                    await self._answers(self._port, ended, follower)
                    self._announce(slug, url)
                done, _ = await asyncio.wait({ended}, timeout=self._timeout)
                if not done:
                    console.say(f"stopped after {seconds_text(self._timeout or 0)}")
                    return DONE
                await _settled(follower)
                completed = ended.result()
                console.say(_end_text(completed))
                return completed.exit_code
            finally:
                await _stop(process, ended)
        finally:
            await _settled(follower)

    async def _expose(self, port: int) -> str:
        try:
            return await self._sandbox.expose(port, host_port=self._host_port)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UsageError(
                f"port {self._host_port} of this machine cannot be used: {reason}",
                hint="choose another with `--port`, or leave it out for a free one",
            ) from None

    async def _answers(
        self, port: int, ended: asyncio.Future[Completed], follower: asyncio.Future[None]
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ANSWER_WITHIN
        pause = FIRST_PAUSE
        while True:
            try:
                os.close(await self._sandbox.connect(port))
                return
            except ConnectionError:
                pass
            await asyncio.wait({ended}, timeout=pause)
            if ended.done():
                await _settled(follower)
                code = ended.result().exit_code
                raise StepFailed(
                    f"the start command ended with exit code {code} before port {port} answered",
                    layer="start",
                    exit_code=code,
                    details=tuple(self._last) if self._invocation.console.quiet else (),
                )
            if loop.time() > deadline:
                raise EngineError(
                    f"nothing listens on port {port} of the sandbox after {seconds_text(ANSWER_WITHIN)}",
                    hint="let the command listen on 0.0.0.0 or 127.0.0.1, on the port that `start` names",
                )
            pause = min(pause * 2, LONGEST_PAUSE)

    def _announce(self, slug: str, url: str) -> None:
        console = self._invocation.console
        if console.json:
            console.document({"slug": slug, "url": url})
        else:
            console.data(url)
        console.say("running; Ctrl-C stops it")

    async def _follow(self, reading: int) -> None:
        """Pass the command's output on to stderr, line by line, until it ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0)
        )
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        lines = LineAssembler()
        try:
            while piece := await reader.read(65536):
                for line in lines.feed(decoder.decode(piece)):
                    self._show(line)
            for line in lines.finish():
                self._show(line)
        finally:
            transport.close()

    def _show(self, line: str) -> None:
        self._last.append(line)
        with suppress(OSError):  # stderr may be gone; the service goes on
            self._invocation.console.say(line)


async def _stop(process: Process, ended: asyncio.Future[Completed]) -> None:
    """Ask the command to end; the sandbox's own end follows for what does not."""
    if not ended.done():
        await process.kill(signal.SIGTERM)
        await asyncio.wait({ended}, timeout=GRACE)
    if not ended.done():
        ended.cancel()
    await asyncio.gather(ended, return_exceptions=True)


async def _settled(follower: asyncio.Future[None]) -> None:
    """Let the last output arrive; a child that keeps the pipe open does not hold us."""
    await asyncio.wait({follower}, timeout=1.0)
    if not follower.done():
        follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)


def _end_text(completed: Completed) -> str:
    why = " for want of memory" if completed.out_of_memory else ""
    return f"the start command ended{why} with exit code {completed.exit_code}"
