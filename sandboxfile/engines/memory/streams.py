"""What a process reads from and writes to."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable
from typing import Protocol

from sandboxfile.engines.memory.filesystem import Credentials, Filesystem

CHUNK = 65536


class Source(Protocol):
    """Where bytes come from."""

    async def read(self) -> bytes:
        """Some bytes; none at the end."""
        ...


class Sink(Protocol):
    """Where bytes go."""

    async def write(self, data: bytes) -> None:
        """Take bytes. OSError when that is impossible."""
        ...


class Given:
    """Bytes that are there already."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    async def read(self) -> bytes:
        """The next chunk."""
        chunk, self._data = self._data[:CHUNK], self._data[CHUNK:]
        return chunk


class Zeros:
    """/dev/zero."""

    async def read(self) -> bytes:
        """A chunk of zeros, for ever."""
        await asyncio.sleep(0)
        return bytes(CHUNK)


class Discard:
    """/dev/null."""

    async def write(self, data: bytes) -> None:
        """Forget the bytes."""


class Called:
    """Calls a function with each piece."""

    def __init__(self, function: Callable[[bytes], None]) -> None:
        self._function = function

    async def write(self, data: bytes) -> None:
        """Pass the bytes on, and let others run."""
        self._function(data)
        await asyncio.sleep(0)


class Collected:
    """Keeps what was written."""

    def __init__(self) -> None:
        self.data = bytearray()

    async def write(self, data: bytes) -> None:
        """Keep the bytes."""
        self.data += data


class IntoFile:
    """A file of the sandbox that is appended to. It was emptied when it was opened, if it was to be."""

    def __init__(self, files: Filesystem, path: str, who: Credentials) -> None:
        self._files = files
        self._path = path
        self._who = who

    async def write(self, data: bytes) -> None:
        """Append the bytes."""
        self._files.write(self._path, data, who=self._who, append=True)


class Pipe:
    """A bounded pipe between two processes: writers wait for the reader."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._changed = asyncio.Condition()
        self._ended = False
        self._unread = False

    async def read(self) -> bytes:
        """Some bytes; none when the writer has closed its end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._data or self._ended)
            chunk = bytes(self._data)
            self._data.clear()
            self._changed.notify_all()
            return chunk

    async def write(self, data: bytes) -> None:
        """Write, waiting for room. BrokenPipeError when nobody reads any more."""
        for start in range(0, len(data), CHUNK):
            async with self._changed:
                await self._changed.wait_for(lambda: len(self._data) < CHUNK or self._unread)
                if self._unread:
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
                self._data += data[start : start + CHUNK]
                self._changed.notify_all()

    async def end(self) -> None:
        """The writer is done."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def abandon(self) -> None:
        """The reader is done."""
        async with self._changed:
            self._unread = True
            self._changed.notify_all()


class Descriptor:
    """A copy of a descriptor of the caller, who may close the own one at once. -1 stands for nothing."""

    def __init__(self, number: int) -> None:
        self._number = os.dup(number) if number >= 0 else -1

    def close(self) -> None:
        """Close the copy."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    async def write(self, data: bytes) -> None:
        """Write all of the bytes."""
        while data and self._number >= 0:
            written = await asyncio.to_thread(os.write, self._number, data)
            data = data[written:]

    async def read(self) -> bytes:
        """Wait for bytes without occupying a thread, so that a process that is killed is gone at once."""
        if self._number < 0:
            return b""
        if not stat.S_ISREG(os.fstat(self._number).st_mode):
            await self._readable()
        return os.read(self._number, CHUNK)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        # A copy, so that two that wait for the same descriptor do not take each other's place.
        copy = os.dup(self._number)
        try:
            loop.add_reader(copy, _settle, ready)
            await ready
        except PermissionError:
            # Not something that can be waited for (/dev/null): it never blocks.
            return
        finally:
            loop.remove_reader(copy)
            os.close(copy)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
