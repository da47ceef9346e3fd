"""A command of a sandbox in the foreground: on the caller's descriptors, with the caller's signals."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from contextlib import ExitStack

from sandboxfile.cli import terminal
from sandboxfile.cli.invocation import Invocation
from sandboxfile.core.units import seconds_text
from sandboxfile.declared import replace
from sandboxfile.engine.base import Command, Completed, Process, Sandbox, Stdio

PATIENCE = 3
"""How many signals a command is given before it is stopped with its sandbox."""


async def attach(invocation: Invocation, sandbox: Sandbox, command: Command) -> int:
    """Run a command on our stdin, stdout and stderr until it ends; its exit code.

    When stdin and stdout are terminals it gets a terminal of its own, of the same size, and TERM;
    otherwise SIGINT, SIGTERM and SIGHUP are passed on to it.
    """
    invocation.progress.close()
    invocation.console.out.flush()
    interactive = terminal.is_terminal(0) and terminal.is_terminal(1)
    if interactive and "TERM" in os.environ:
        command = replace(command, env={"TERM": os.environ["TERM"], **command.env})
    stdio = Stdio(0, 1, 2)
    with ExitStack() as stack:
        stack.enter_context(terminal.blocking_kept((0, 1, 2)))
        if interactive:
            stack.enter_context(terminal.raw(0))
        size = terminal.size_of(1) if interactive else None
        process = await sandbox.spawn(command, stdio, terminal=size)
        foreground = _Foreground(invocation, process, interactive)
        stack.enter_context(invocation.signals.divert(foreground.signal))
        stack.enter_context(foreground)
        completed = await process.wait()
    _explain_end(invocation, command, completed)
    return completed.exit_code


class _Foreground:
    """Passes signals and window sizes on while a process runs."""

    def __init__(self, invocation: Invocation, process: Process, interactive: bool) -> None:
        self._invocation = invocation
        self._process = process
        self._interactive = interactive
        self._signals = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def signal(self, number: int) -> None:
        """A signal for the command, or, for one on a terminal, the end of its sandbox."""
        self._signals += 1
        hung_up = self._interactive and number != signal.SIGINT
        if hung_up or self._signals > PATIENCE:
            self._invocation.signals.stop(number)
        else:
            self._start(self._process.kill(number))

    def __enter__(self) -> None:
        if self._interactive:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGWINCH, self._resized)
            loop.add_signal_handler(signal.SIGCONT, self._continued)

    def __exit__(self, *exc: object) -> None:
        if self._interactive:
            loop = asyncio.get_running_loop()
            loop.remove_signal_handler(signal.SIGWINCH)
            loop.remove_signal_handler(signal.SIGCONT)

    def _resized(self) -> None:
        self._start(self._process.resize(terminal.size_of(1)))

    def _continued(self) -> None:
        terminal.set_raw(0)
        self._resized()

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a process that has ended meanwhile needs no signal and no size


def _explain_end(invocation: Invocation, command: Command, completed: Completed) -> None:
    if completed.timed_out and command.timeout is not None:
        invocation.console.say(f"the command was stopped after {seconds_text(command.timeout)}")
    elif completed.out_of_memory:
        invocation.console.say("the command was stopped: it used more memory than the sandbox may")
