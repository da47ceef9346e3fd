"""Moving bytes through descriptors on the client's event loop. Descriptors stay the caller's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_CHUNK = 1 << 16


class Reader:
    """Reads a pipe to its end and hands every piece to `deliver`."""

    def __init__(self, descriptor: int, deliver: Callable[[bytes], None]) -> None:
        self._descriptor = descriptor
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._ready)

    def _ready(self) -> bool:
        """Take one piece; whether there may be more now."""
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            # A terminal answers EIO when its last user is gone.
            data = b""
        if not data:
            self.stop()
            return False
        try:
            self._deliver(data)
        except Exception as error:
            self.stop(error)
            return False
        return True

    def stop(self, error: Exception | None = None) -> None:
        """Stop listening. May be called twice."""
        self._loop.remove_reader(self._descriptor)
        if not self._done.done():
            if error:
                self._done.set_exception(error)
            else:
                self._done.set_result(None)

    async def finish(self) -> None:
        """Wait for the end of the stream."""
        await asyncio.shield(self._done)

    def drain(self) -> None:
        """Take what is there now and stop: for streams that a background process may hold open."""
        while not self._done.done() and self._ready():
            pass
        self.stop()
        if (error := self._done.exception()) is not None:
            raise error


async def read_all(descriptor: int) -> bytes:
    """Everything up to the end."""
    pieces: list[bytes] = []
    reader = Reader(descriptor, pieces.append)
    try:
        await reader.finish()
    finally:
        reader.stop()
    return b"".join(pieces)


async def write_all(descriptor: int, data: bytes) -> None:
    """Write everything; a reader that went away is no error, it wanted no more."""
    os.set_blocking(descriptor, False)
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            await writable(descriptor)
        except BrokenPipeError:
            return


async def readable(descriptor: int) -> None:
    """Wait until there is something to read. Raises PermissionError for regular files, which always are."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _release, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def writable(descriptor: int) -> None:
    """Wait until something can be written."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, _release, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def _release(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
