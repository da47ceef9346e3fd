"""The streams of a process: pipes whose other ends it has. Nothing is read ahead, so a process that writes
more than anybody reads has to wait."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress

CHUNK = 1 << 16


class _Pipe:
    """A non-blocking descriptor, waited for on the event loop."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._waiting: asyncio.Future[None] | None = None
        self._turn = asyncio.Lock()

    @property
    def closed(self) -> bool:
        """Whether it was closed, or has come to its end."""
        return self._descriptor < 0

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        if self._waiting is not None:
            loop = self._waiting.get_loop()
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)
            if not self._waiting.done():
                self._waiting.set_result(None)
        os.close(descriptor)

    async def _ready(self, *, writing: bool) -> None:
        loop = asyncio.get_running_loop()
        self._waiting = waiting = loop.create_future()
        descriptor = self._descriptor
        (loop.add_writer if writing else loop.add_reader)(descriptor, _settle, waiting)
        try:
            await waiting
        finally:
            self._waiting = None
            if self._descriptor == descriptor:
                (loop.remove_writer if writing else loop.remove_reader)(descriptor)


class AsyncReader(_Pipe):
    """What a process writes to its stdout or stderr."""

    async def read(self, size: int = CHUNK) -> bytes:
        """At most `size` bytes, as soon as there are some; none at the end."""
        async with self._turn:
            while not self.closed:
                try:
                    data = os.read(self._descriptor, size)
                except BlockingIOError:
                    await self._ready(writing=False)
                    continue
                if not data:
                    self._close()
                return data
            return b""

    async def read_all(self) -> bytes:
        """Everything up to the end."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def text(self) -> str:
        """Everything up to the end, as UTF-8; what is none is replaced."""
        return (await self.read_all()).decode("utf-8", "replace")

    async def lines(self) -> AsyncIterator[str]:
        """The lines, each without its end, as UTF-8; what is none is replaced."""
        rest = b""
        while piece := await self.read():
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace")
        if rest:
            yield rest.decode("utf-8", "replace")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    async def close(self) -> None:
        """Read no more: the process gets SIGPIPE when it goes on writing. May be called twice."""
        self._close()


class AsyncWriter(_Pipe):
    """What a process reads from its stdin."""

    async def write(self, data: bytes | str) -> None:
        """Write everything. BrokenPipeError when the process reads no more, or it was closed."""
        view = memoryview(data.encode() if isinstance(data, str) else data)
        async with self._turn:
            while view:
                if self.closed:
                    raise BrokenPipeError(32, "the stream is closed")
                try:
                    view = view[os.write(self._descriptor, view) :]
                except BlockingIOError:
                    await self._ready(writing=True)

    async def close(self) -> None:
        """Say that this was all. May be called twice."""
        self._close()


def pipe() -> tuple[int, int]:
    """The reading and the writing end of a new pipe; no program that is started inherits them."""
    return os.pipe2(os.O_CLOEXEC)


def close_quietly(*descriptors: int) -> None:
    """Close descriptors of which some may be -1."""
    for descriptor in descriptors:
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)


def _settle(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
