"""The blocking API, made from the asynchronous one.

Each asynchronous class gets a blocking class with the same members. A client has an event loop in a thread;
what a program calls runs there, and the caller waits. Nothing is written twice: `blocking.pyi` says the same
to type checkers, and is generated as well (`scripts/gen-blocking`).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, TypeVar

from sandboxfile.api import AsyncClient
from sandboxfile.engine.files import SandboxFiles
from sandboxfile.sdk.pipes import AsyncReader, AsyncWriter
from sandboxfile.sdk.process import AsyncProcess
from sandboxfile.sdk.sandbox import AsyncSandbox
from sandboxfile.sdk.sandboxes import AsyncSandboxes
from sandboxfile.sdk.snapshots import AsyncSnapshots
from sandboxfile.sdk.variables import AsyncVariables
from sandboxfile.sdk.volumes import AsyncVolumes

__all__ = [
    "Client",
    "Files",
    "Process",
    "Reader",
    "Sandbox",
    "Sandboxes",
    "Snapshots",
    "Variables",
    "Volumes",
    "Writer",
]

T = TypeVar("T")

ONLY_ASYNC = frozenset({"engine", "start", "announce", "debug", "reach"})
"""Members that lead to the engine's own objects, which belong to the event loop."""


class Portal:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandboxfile", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether the loop has ended."""
        return self._loop.is_closed()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine there and wait for its end. When the caller is interrupted, it is cancelled and
        comes to its end first."""

        if self.closed:
            raise RuntimeError("the client is closed")
        if threading.current_thread() is self._thread:
            raise RuntimeError("a blocking call was made on the client's own event loop")
        call: _Call[T] = _Call(self._loop, work)
        try:
            self._loop.call_soon_threadsafe(call.start)
            call.over.wait()
        except BaseException:
            self._loop.call_soon_threadsafe(call.cancel)
            call.over.wait()
            raise
        return call.result()

    def call(self, work: Callable[[], T]) -> T:
        """Call a function there: what it makes may belong to the loop."""

        async def session() -> T:
            return work()

        return self.run(session)

    def close(self) -> None:
        """End the loop and its thread. May be called twice."""
        if self.closed:
            return
        self.run(_end_tasks)
        self.run(self._loop.shutdown_asyncgens)
        self.run(self._loop.shutdown_default_executor)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Call(Generic[T]):
    """A coroutine that another thread waits for. `over` is set once it has come to its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Callable[[], Awaitable[T]]) -> None:
        self.over = threading.Event()
        self._loop = loop
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False

    def start(self) -> None:
        """Begin, in the loop."""
        if self._cancelled:
            return
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(lambda _: self.over.set())

    def cancel(self) -> None:
        """Cancel it, in the loop. It may not have begun: the caller can be interrupted at any moment."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()
        else:
            self.over.set()

    def result(self) -> T:
        """What came of it."""
        assert self._task is not None
        return self._task.result()

    async def _run(self) -> T:
        return await self._work()


async def _end_tasks() -> None:
    """Cancel what still runs, such as work whose caller was interrupted twice, and wait for its end."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


class Blocking:
    """What every blocking class is: an asynchronous object and the portal to its loop."""

    _portal: Portal
    _inner: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ONLY_ASYNC:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return _outer(self._portal, self._portal.call(lambda: getattr(self._inner, name)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._inner!r}>"


def _blocking(kind: type, name: str) -> type:
    """The blocking class of an asynchronous one."""
    members: dict[str, Any] = {"__doc__": kind.__doc__, "__module__": __name__}
    for each in dir(kind):
        member = inspect.getattr_static(kind, each)
        if each == "__aenter__":
            members["__enter__"] = lambda self: self
        elif each == "__aexit__":
            members["__exit__"] = _leave
        elif each == "__aiter__":
            members["__iter__"] = _iterating(member)
        elif each.startswith("_") or each in ONLY_ASYNC:
            continue
        elif inspect.isasyncgenfunction(member):
            members[each] = _iterating(member)
        elif inspect.iscoroutinefunction(member):
            members[each] = _waiting(member)
        elif inspect.isfunction(member):
            members[each] = _calling(member)
    made = type(name, (Blocking,), members)
    _OUTER[kind] = made
    return made


def _waiting(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def blocking(self: Blocking, *args: Any, **kwargs: Any) -> Any:
        call = _bound(self, method, args, kwargs)
        return _outer(self._portal, self._portal.run(call))

    return blocking


def _calling(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def blocking(self: Blocking, *args: Any, **kwargs: Any) -> Any:
        call = _bound(self, method, args, kwargs)
        return _outer(self._portal, self._portal.call(call))

    return blocking


def _iterating(method: Callable[..., AsyncIterator[Any]]) -> Callable[..., Iterator[Any]]:
    @functools.wraps(method)
    def blocking(self: Blocking, *args: Any, **kwargs: Any) -> Iterator[Any]:
        items = self._portal.call(_bound(self, method, args, kwargs))
        end = object()
        try:
            while (item := self._portal.run(lambda: anext(items, end))) is not end:
                yield _outer(self._portal, item)
        finally:
            if not self._portal.closed:
                self._portal.run(items.aclose)

    return blocking


def _bound(
    outer: Blocking, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[], Any]:
    """A call of an asynchronous object's method, with the asynchronous objects of the arguments. The method
    is looked up in the object, whose class may be a subclass."""
    inner = getattr(outer._inner, method.__name__)
    positional = [_inner(each) for each in args]
    named = {name: _inner(each) for name, each in kwargs.items()}
    return lambda: inner(*positional, **named)


def _leave(self: Blocking, *exc: object) -> None:
    self._portal.run(lambda: self._inner.__aexit__(*exc))


def _inner(value: Any) -> Any:
    return value._inner if isinstance(value, Blocking) else value


def _outer(portal: Portal, value: Any) -> Any:
    """A result as the caller gets it: asynchronous objects in it become blocking ones."""
    if type(value) in (tuple, list):
        return type(value)(_outer(portal, each) for each in value)
    for kind in type(value).__mro__:
        if kind in _OUTER:
            made = object.__new__(_OUTER[kind])
            made._portal, made._inner = portal, value
            return made
    return value


_OUTER: dict[type, type[Blocking]] = {}

Files = _blocking(SandboxFiles, "Files")
Process = _blocking(AsyncProcess, "Process")
Reader = _blocking(AsyncReader, "Reader")
Sandbox = _blocking(AsyncSandbox, "Sandbox")
Sandboxes = _blocking(AsyncSandboxes, "Sandboxes")
Snapshots = _blocking(AsyncSnapshots, "Snapshots")
Variables = _blocking(AsyncVariables, "Variables")
Volumes = _blocking(AsyncVolumes, "Volumes")
Writer = _blocking(AsyncWriter, "Writer")


class Client(_blocking(AsyncClient, "Client")):  # type: ignore[misc]
    __doc__ = AsyncClient.__doc__

    def __init__(self, **options: Any) -> None:
        self._portal = Portal()
        try:
            self._inner = self._portal.call(lambda: AsyncClient(**options))
        except BaseException:
            self._portal.close()
            raise

    def close(self) -> None:
        """Release everything: sandboxes end, mounts go, and the thread ends. May be called twice."""
        if not self._portal.closed:
            try:
                self._portal.run(self._inner.close)
            finally:
                self._portal.close()

    def __exit__(self, *exc: object) -> None:
        self.close()
