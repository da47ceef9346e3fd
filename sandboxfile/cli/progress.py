"""What is running, from the stream of events: the state that every way of showing progress reads.

`make_progress` chooses the way. A Progress is a Reporter that can be closed.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import field

from sandboxfile.cli.console import Console
from sandboxfile.cli.safe import LineAssembler, safe
from sandboxfile.core.event import (
    Event,
    Notice,
    Outcome,
    Reporter,
    TaskFinished,
    TaskOutput,
    TaskProgress,
    TaskStarted,
)
from sandboxfile.core.units import size_text
from sandboxfile.declared import dataclass

Clock = Callable[[], float]
KEPT_LINES = 20
"""How many last lines of a task's output are kept for when it fails."""


@dataclass
class Running:
    """A task that has started. Times are the clock's seconds."""

    task: str
    title: str
    parent: str | None
    started: float
    done: int = 0
    total: int | None = None
    unit: str = ""
    counted_from: float | None = None
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    assembler: LineAssembler = field(default_factory=LineAssembler)

    @property
    def label(self) -> str:
        """The task's name for people: `layer:apt-1` is `apt-1`."""
        kind, colon, name = self.task.partition(":")
        return name if colon and kind in {"layer", "check"} else self.task

    def tail(self, count: int) -> list[str]:
        """The last lines of its output, the one that has not ended included."""
        partial = self.assembler.partial
        lines = [*self.lines, partial] if partial else list(self.lines)
        return lines[-count:]

    def amount(self, now: float) -> str:
        """How far it is: `3.2 MB of 12.1 MB, 4.1 MB/s`, or an empty string."""
        if not self.unit:
            return ""
        if self.unit != "bytes":
            of = "" if self.total is None else f" of {self.total}"
            return f"{self.done}{of} {self.unit}"
        of = "" if self.total is None else f" of {size_text(self.total)}"
        seconds = now - (self.counted_from if self.counted_from is not None else now)
        rate = f", {size_text(round(self.done / seconds))}/s" if seconds > 0 and self.done else ""
        return f"{size_text(self.done)}{of}{rate}"


class Board:
    """The tasks that run now, by name in the order they started, and the output of those that failed."""

    def __init__(self) -> None:
        self.running: dict[str, Running] = {}
        self.failed: dict[str, tuple[str, ...]] = {}

    def note(self, event: Event, now: float) -> tuple[Running | None, list[str]]:
        """Take an event in. Returns the task it is about and the lines of output it completed."""
        if isinstance(event, Notice):
            return None, []
        if isinstance(event, TaskStarted):
            started = Running(event.task, safe(event.title), event.parent, now)
            self.running[event.task] = started
            return started, []
        running = self.running.get(event.task)
        if running is None:
            return None, []
        lines: list[str] = []
        match event:
            case TaskFinished(task, outcome, _):
                del self.running[task]
                lines = running.assembler.finish()
                running.lines.extend(lines)
                if outcome is Outcome.FAILED and running.lines:
                    self.failed[running.label] = tuple(running.lines)
            case TaskProgress(_, done, total, unit):
                if running.counted_from is None:
                    running.counted_from = now
                running.done, running.total, running.unit = done, total, unit
            case TaskOutput(_, text):
                lines = running.assembler.feed(text)
                running.lines.extend(lines)
        return running, lines

    def depth(self, running: Running) -> int:
        """How many running tasks it is part of."""
        depth, parent = 0, running.parent
        while parent is not None and parent in self.running and depth < 8:
            depth, parent = depth + 1, self.running[parent].parent
        return depth

    def tree(self) -> list[Running]:
        """The running tasks, each after the one it is part of."""
        order: list[Running] = []

        def visit(parent: str | None) -> None:
            for each in self.running.values():
                above = each.parent if each.parent in self.running else None
                if above == parent and each not in order:
                    order.append(each)
                    visit(each.task)

        visit(None)
        return order


class Progress(Reporter):
    """A reporter that shows something. It knows the output of failed tasks, for the error that follows."""

    def __init__(self) -> None:
        self.board = Board()

    def emit(self, event: Event) -> None:
        """Take an event in; this one shows nothing."""
        self.board.note(event, 0.0)

    def close(self) -> None:
        """Stop showing; the terminal is as it was. May be called twice, and events may follow."""


def make_progress(
    mode: str, console: Console, *, verbose: bool = False, clock: Clock = time.monotonic
) -> Progress:
    """The progress of a mode: `auto` (a live tree on a terminal, else lines), `live`, `plain` or `json`."""
    if mode == "json":
        from sandboxfile.cli.jsonlines import JsonProgress

        return JsonProgress(console.err, clock=clock)
    if console.quiet:
        return Progress()
    if mode == "live" or (mode == "auto" and _is_terminal(console)):
        from sandboxfile.cli.live import LiveProgress

        return LiveProgress(console, verbose=verbose, clock=clock)
    from sandboxfile.cli.lines import LineProgress

    return LineProgress(console.err, verbose=verbose, clock=clock)


def _is_terminal(console: Console) -> bool:
    import os

    return console.err is sys.stderr and console.err.isatty() and os.environ.get("TERM", "dumb") != "dumb"
