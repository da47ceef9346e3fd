"""Having a worker do a task: the client's side of `worker.tasks`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.layers import DISK_FULL, disk_full
from sandboxfile.engines.linux.operations import Signal, Work
from sandboxfile.engines.linux.streams import Reader
from sandboxfile.errors import BuildError, EngineError, IntegrityError


async def work(
    helper: HelperClient,
    task: str,
    args: Mapping[str, Any],
    dirs: Mapping[str, str] | None = None,
    *,
    feed: Callable[[int], None] | None = None,
    deliver: Callable[[bytes], None] | None = None,
    descriptors: Sequence[int] = (),
    mapped: bool = True,
    stays: bool = False,
) -> Any:
    """Run a task and give its result; its failure is raised here.

    feed:    writes the task's input to a descriptor, in a thread; the descriptor is closed for it
    deliver: is given the task's output as it comes
    stays:   the task goes on after it has answered, until it ends by itself or with the helper
    The task sees the descriptors in this order: input, output, `descriptors`.
    """
    await helper.start()
    job = helper.new_job()
    answer: list[bytes] = []
    with _Descriptors() as own:
        answer_read, answer_write = own.pipe()
        # One that stays closes the second itself, when it has answered.
        theirs = [answer_write, answer_write] if stays else [answer_write]
        input_write = output_read = -1
        if feed:
            input_read, input_write = own.pipe()
            theirs.append(input_read)
        if deliver:
            output_read, output_write = own.pipe()
            theirs.append(output_write)
        operation = Work(job, task, dict(args), dict(dirs or {}), mapped)
        await helper.do(operation, descriptors=(*theirs, *descriptors))
        for descriptor in set(theirs):
            own.close(descriptor)
        readers = [Reader(answer_read, answer.append)]
        if deliver:
            readers.append(Reader(output_read, deliver))
        feeder = (
            asyncio.ensure_future(asyncio.to_thread(_feed, feed, own.take(input_write))) if feed else None
        )
        try:
            for reader in readers:
                await reader.finish()
            if stays and answer:
                code = 0
                helper.end_of(job)
            else:
                code = await helper.exit_of(job)
        except BaseException:
            if helper.running:
                await asyncio.shield(helper.do(Signal(job, signal.SIGKILL, tree=True)))
            raise
        finally:
            for reader in readers:
                reader.stop()
            if feeder:
                # The worker is gone or done, so a feeder that still writes meets a closed pipe.
                await asyncio.wait([feeder])
        if feeder:
            feeder.result()
    text = b"".join(answer)
    if not text:
        raise EngineError(f"a worker ended unexpectedly in `{task}` (status {code})")
    said = json.loads(text)
    if "result" in said:
        return said["result"]
    raise _failure(said)


def _feed(feed: Callable[[int], None], descriptor: int) -> None:
    try:
        feed(descriptor)
    except BrokenPipeError:
        # The worker wants no more; its own answer says why.
        pass
    finally:
        os.close(descriptor)


class _Descriptors:
    """Descriptors that are closed at the end of a block, each once."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def __enter__(self) -> _Descriptors:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in tuple(self._open):
            self.close(descriptor)

    def pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self._open.update(ends)
        return ends

    def take(self, descriptor: int) -> int:
        self._open.discard(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        os.close(descriptor)


def _failure(said: Mapping[str, Any]) -> Exception:
    kind, message, number = said["error"], said["message"], said.get("errno")
    details = tuple(said.get("details", ()))
    if number in DISK_FULL:
        return disk_full()
    if kind == "FileNotFoundError":
        return FileNotFoundError(number or 2, message)
    if kind == "IntegrityError":
        return IntegrityError(message, details=details)
    if kind == "BuildError":
        return BuildError(message, details=details)
    return EngineError(message, details=details)
