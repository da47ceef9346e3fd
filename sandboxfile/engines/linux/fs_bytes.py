"""Moving the bytes of a sandbox's files, through descriptors of regular files, in threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from threading import Event
from typing import Any, TypeVar

from sandboxfile.errors import FileTooLarge, SandboxGone

_CHUNK = 1 << 20
_PATIENCE = 5.0
_T = TypeVar("_T")


class Transfers:
    """What moves at the moment. A transfer ends when whoever waits for it gives up, or all are told to."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Future[Any], Event] = {}

    async def run(self, move: Callable[[Event], _T]) -> _T:
        """Run a function of this module in a thread; it stops early when its event is set."""
        stop = Event()
        running = asyncio.ensure_future(asyncio.to_thread(move, stop))
        self._running[running] = stop
        running.add_done_callback(self._forget)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            raise

    def _forget(self, running: asyncio.Future[Any]) -> None:
        self._running.pop(running, None)
        if not running.cancelled():
            # Whoever waited has it, or does not want it any more.
            running.exception()

    async def end(self) -> None:
        """Stop every transfer, so that no file of the sandbox is held open."""
        for stop in self._running.values():
            stop.set()
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=_PATIENCE)


def read(descriptor: int, path: str, limit: int, stop: Event) -> bytes:
    """A file's bytes; the descriptor is closed. The file may grow meanwhile: the limit is on what is read."""
    pieces: list[bytes] = []
    count = 0
    try:
        if os.fstat(descriptor).st_size > limit:
            raise _too_large(path, limit)
        while piece := os.read(descriptor, min(_CHUNK, limit + 1 - count)):
            _go_on(stop)
            pieces.append(piece)
            count += len(piece)
            if count > limit:
                raise _too_large(path, limit)
    finally:
        os.close(descriptor)
    return b"".join(pieces)


def write(descriptor: int, data: bytes, path: str, stop: Event) -> None:
    """Write a file's bytes; the descriptor is closed."""
    try:
        view = memoryview(data).cast("B")
        while view:
            _go_on(stop)
            view = view[os.write(descriptor, view[:_CHUNK]) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)


def copy(source: int, target: int, path: str, limit: int | None, stop: Event) -> int:
    """Copy up to the end, how many bytes; both descriptors are closed."""
    count = 0
    try:
        if limit is not None and os.fstat(source).st_size > limit:
            raise _too_large(path, limit)
        while piece := os.read(source, _CHUNK):
            count += len(piece)
            if limit is not None and count > limit:
                raise _too_large(path, limit)
            view = memoryview(piece)
            while view:
                _go_on(stop)
                view = view[os.write(target, view) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(source)
        os.close(target)
    return count


def replace(source: int, target: int, path: str, stop: Event) -> None:
    """Give one file another's bytes; both descriptors are closed."""
    if os.path.sameopenfile(source, target):
        os.close(source)
        os.close(target)
        return
    os.ftruncate(target, 0)
    copy(source, target, path, None, stop)


def _go_on(stop: Event) -> None:
    if stop.is_set():
        raise SandboxGone("the sandbox has ended")


def _too_large(path: str, limit: int) -> FileTooLarge:
    return FileTooLarge(f"{path} is longer than the limit of {limit} bytes")
