"""How commands in a sandbox ended: by themselves, or by which limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sandboxfile.declared import replace
from sandboxfile.engine.base import Completed, Output
from sandboxfile.engines.linux.helper_client import OperationFailed
from sandboxfile.engines.linux.operations import CountProcesses, LimitEvents, ReadModes
from sandboxfile.engines.linux.runtime import NOT_EXECUTABLE, Runtime
from sandboxfile.engines.linux.state import State
from sandboxfile.errors import EngineError

_BROKEN_PIPE = 141
_END_DEADLINE = 10.0
_OF_RUNTIME = 3
"""How many processes the runtime needs in the sandbox to start a command."""


class Verdicts:
    """Judges the ends of one sandbox's commands."""

    def __init__(self, state: State, runtime: Runtime, check_open: Callable[[], None]) -> None:
        self._state = state
        self._runtime = runtime
        self._check_open = check_open
        self._killed = self._refused = 0

    async def judge(self, completed: Completed, log: str, output: Output) -> Completed:
        """As the runtime judges, but that it complains of a sandbox which is being closed is no failure; and
        which limit stopped the command."""
        try:
            completed = await self._runtime.judge(completed, log, output)
        except EngineError:
            if self._state.closing is None and not self._state.over:
                await self.check_init()
                if not await self._is_full():
                    raise
                return _no_process(completed, output)
        if completed.timed_out:
            return replace(completed, limit="timeout")
        if completed.exit_code == 0:
            return completed
        if self._state.over or self._state.reason in ("timeout", "memory", "disk"):
            return replace(completed, limit=self._state.reason or "timeout")
        if self._state.closing is not None or not self._state.helper.running:
            return completed
        if completed.exit_code == _BROKEN_PIPE and await self._is_full():
            # The runtime could not even say why.
            return _no_process(completed, output)
        return await self._judge_events(completed) if self._state.cgroup else completed

    async def check_init(self) -> None:
        """After something was refused: raise the sandbox's end when that is the reason. An init that is being
        ended has no root directory any more, and its end is heard of a moment later."""
        assert self._state.init_end is not None
        try:
            await self._state.helper.do(ReadModes(f"/proc/{self._state.init_pid}/root", ["/"]))
        except OperationFailed:
            await asyncio.wait([self._state.init_end], timeout=_END_DEADLINE)
        self._check_open()

    async def _is_full(self) -> bool:
        """Whether the runtime finds no room for the few processes that it needs for a moment."""
        if self._state.options.limits.pids is None or not self._state.helper.running:
            return False
        (count,) = await self._state.helper.do(CountProcesses(self._state.init_pid))
        return bool(count > self._state.options.limits.pids - _OF_RUNTIME)

    async def _judge_events(self, completed: Completed) -> Completed:
        """Name the limit that control groups enforced since somebody looked last."""
        ((killed, refused),) = await self._state.helper.do(LimitEvents(self._state.id))
        was_killed, was_refused = self._killed, self._refused
        self._killed, self._refused = killed, refused
        if killed > was_killed:
            return replace(completed, out_of_memory=True, limit="memory")
        return replace(completed, limit="pids") if refused > was_refused else completed


def _no_process(completed: Completed, output: Output) -> Completed:
    output("stderr", b"sandboxfile: the sandbox has as many processes as it may have\n")
    return replace(completed, exit_code=NOT_EXECUTABLE, limit="pids")
