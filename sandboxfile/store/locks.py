"""Locks between processes, by flock: the kernel drops them when their holder dies, by whatever cause.

A lock is a file in the store's `locks` directory. The file may stay behind; gc unlinks files that nobody
holds, so whoever gains a lock looks whether the file is still the one of that name, and else begins anew.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxfile.store.failure import reported

if TYPE_CHECKING:
    import asyncio

OnWait = Callable[[int | None], None]
"""Called once, before waiting, with the process id of the holder where it is known."""

OWNER = "owner"
"""The file in a workspace that its living client holds locked."""


class Locks:
    """The locks of one store, by name. Any text is a name; two tasks of one process exclude each other as
    two processes do. Raises StoreError when the lock's file cannot be made."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: str) -> Path:
        """The file of a lock."""
        if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", name):
            return self.directory / name
        import hashlib  # loads OpenSSL

        return self.directory / hashlib.sha256(name.encode()).hexdigest()

    @contextmanager
    def lock(self, name: str, *, shared: bool = False, wait: OnWait | None = None) -> Iterator[None]:
        """Hold a lock while the block runs; blocks the thread until it is gained."""
        with reported(f"locking `{name}`"):
            held = acquire(self.path(name), _mode(shared), wait)
        try:
            yield
        finally:
            os.close(held)

    @asynccontextmanager
    async def exclusive(self, name: str, *, on_wait: OnWait | None = None) -> AsyncIterator[None]:
        """Hold a lock alone while the block runs; other tasks go on while it is waited for."""
        held = await self._gain(name, fcntl.LOCK_EX, on_wait)
        try:
            yield
        finally:
            os.close(held)

    @asynccontextmanager
    async def shared(self, name: str, *, on_wait: OnWait | None = None) -> AsyncIterator[None]:
        """Hold a lock together with other sharers while the block runs."""
        held = await self._gain(name, fcntl.LOCK_SH, on_wait)
        try:
            yield
        finally:
            os.close(held)

    async def _gain(self, name: str, mode: int, on_wait: OnWait | None) -> int:
        with reported(f"locking `{name}`"):
            path = self.path(name)
            held = try_acquire(path, mode)
            if held is not None:
                return held
            if on_wait is not None:
                on_wait(_holder(path))
            return await _Waiter(path, mode).wait()

    def held(self) -> int:
        """How many locks anybody holds now."""
        count = 0
        with reported("looking at the locks"):
            for entry in list(os.scandir(self.directory)):
                if entry.is_file(follow_symlinks=False):
                    free = try_acquire(Path(entry.path), fcntl.LOCK_SH, create=False)
                    if free is not None:
                        os.close(free)
                    elif os.path.exists(entry.path):
                        count += 1
        return count

    def remove_unheld(self) -> int:
        """Unlink the files of locks that nobody holds; how many."""
        removed = 0
        with reported("removing unused lock files"):
            for entry in list(os.scandir(self.directory)):
                if not entry.is_file(follow_symlinks=False):
                    continue
                held = try_acquire(Path(entry.path), fcntl.LOCK_EX, create=False)
                if held is not None:
                    os.unlink(entry.path)
                    os.close(held)
                    removed += 1
        return removed


class Owner:
    """The mark of a living client on a directory; the directory is garbage once the mark is gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the directory up. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def own_new(directory: Path) -> Owner:
    """Make a directory that is this process's for as long as the process lives or until `release`. It comes
    into its place with the mark already on it, so that gc cannot mistake it for a dead client's."""
    beside = directory.with_name(f".{directory.name}.{os.getpid()}")
    with reported("making a workspace"):
        beside.mkdir(mode=0o700)
        held = acquire(beside / OWNER, fcntl.LOCK_EX)
        try:
            os.rename(beside, directory)
        except BaseException:
            os.close(held)
            raise
    return Owner(held)


def is_owned(directory: Path) -> bool | None:
    """Whether a living client holds the directory; None when it has no mark at all."""
    try:
        descriptor = os.open(directory / OWNER, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return not _flock_now(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def acquire(path: Path, mode: int, wait: OnWait | None = None) -> int:
    """A descriptor that holds a lock on the file of that name until it is closed; blocks. OSError."""
    while True:
        held = try_acquire(path, mode)
        if held is not None:
            return held
        if wait is not None:
            wait(_holder(path))
            wait = None
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, mode)
            if _is_at(descriptor, path):
                return _signed(descriptor, mode)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def try_acquire(path: Path, mode: int, *, create: bool = True) -> int | None:
    """Like `acquire`, but None when somebody holds it (or, without `create`, when there is no file)."""
    while True:
        try:
            descriptor = _open(path, create=create)
        except FileNotFoundError:
            if create:
                raise
            return None
        try:
            if not _flock_now(descriptor, mode):
                os.close(descriptor)
                return None
            if _is_at(descriptor, path):
                return _signed(descriptor, mode)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


class _Waiter:
    """Waits for a lock in a thread of its own, so that nothing polls and the event loop goes on.

    The thread is a daemon: a blocked flock cannot be interrupted, and must not keep a process that was told
    to stop. When the waiting task is cancelled, the thread (or `_abandon`) drops the lock it gains.
    """

    def __init__(self, path: Path, mode: int) -> None:
        import threading

        self._path = path
        self._mode = mode
        self._mutex = threading.Lock()
        self._abandoned = False
        self._held: int | None = None
        self._error: OSError | None = None

    async def wait(self) -> int:
        import asyncio
        import threading

        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        threading.Thread(target=self._run, args=(loop, done), name="lock", daemon=True).start()
        try:
            await done
        except asyncio.CancelledError:
            self._abandon()
            raise
        if self._error is not None:
            raise self._error
        assert self._held is not None
        return self._held

    def _run(self, loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
        held, failed = None, None
        try:
            held = acquire(self._path, self._mode)
        except OSError as error:
            failed = error
        with self._mutex:
            if not self._abandoned:
                self._held, self._error = held, failed
                try:
                    loop.call_soon_threadsafe(_wake, done)
                    return
                except RuntimeError:  # the loop was closed while we waited
                    self._held = None
        if held is not None:
            os.close(held)

    def _abandon(self) -> None:
        with self._mutex:
            self._abandoned = True
            if self._held is not None:
                os.close(self._held)
                self._held = None


def _wake(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _mode(shared: bool) -> int:
    return fcntl.LOCK_SH if shared else fcntl.LOCK_EX


def _open(path: Path, *, create: bool = True) -> int:
    # A file that is there may be read-only (a blob on its way in); for a lock that is enough.
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _flock_now(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the name still leads to the file that was locked: gc may have unlinked it in between."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _signed(descriptor: int, mode: int) -> int:
    """Write who holds the lock into it, for the message of those who wait."""
    if mode == fcntl.LOCK_EX:
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except OSError:  # a full disk must not keep anyone from locking
            pass
    return descriptor


def _holder(path: Path) -> int | None:
    try:
        return int(path.read_bytes()[:20])
    except (OSError, ValueError):
        return None
