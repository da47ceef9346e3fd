"""Progress as plain lines, for logs and pipes: the same facts as the live tree, each said once.

    start    apt-1: apt: python3 jq (86 packages)
    fetch    apt-1: 12.3 MB of 40.1 MB, 5.1 MB/s
    done     apt-1: 4821 files, 437 MB (14 s)
    failed   run-2: the command ended with exit code 1 (0.3 s)

With `verbose`, each line of a step's output follows as `run-2 | text`.
"""

from __future__ import annotations

import time
from typing import TextIO

from sandboxfile.cli.progress import Clock, Progress, Running
from sandboxfile.cli.safe import safe
from sandboxfile.core.event import Event, Fallback, Notice, Outcome, TaskFinished, TaskProgress, TaskStarted
from sandboxfile.core.units import seconds_text

PAUSE = 5.0
"""Seconds between two lines about how far the same task is."""


class LineProgress(Progress):
    """Writes a line for each start, end and notice, and now and then one about how far a task is."""

    def __init__(self, stream: TextIO, *, verbose: bool = False, clock: Clock = time.monotonic) -> None:
        super().__init__()
        self._stream = stream
        self._verbose = verbose
        self._clock = clock
        self._said: dict[str, float] = {}

    def emit(self, event: Event) -> None:
        """Take an event in, and say what it means."""
        now = self._clock()
        running, lines = self.board.note(event, now)
        if self._verbose and running is not None:
            for line in lines:
                self._write(f"{running.label} | {line}")
        match event:
            case TaskStarted() if running is not None:
                self._said[running.task] = now
                self._write(f"start    {running.label}: {running.title}")
            case TaskProgress() if running is not None and self._due(running, now):
                self._said[running.task] = now
                self._write(f"at       {running.label}: {running.amount(now)}")
            case TaskFinished(task, outcome, detail) if running is not None:
                self._said.pop(task, None)
                self._write(finished_line(running, outcome, detail, now))
            case Fallback() if self.board.is_new(event):
                self._write(fallback_line(event))
            case Notice(level, text):
                self._write(notice_line(level, text))
            case _:
                pass

    def _due(self, running: Running, now: float) -> bool:
        return now - self._said.get(running.task, now) >= PAUSE

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # a reporter never fails the work: stderr may be gone


def finished_line(running: Running, outcome: Outcome, detail: str, now: float) -> str:
    """The one line that stays of a finished task."""
    amount = running.amount(now) if outcome is Outcome.DONE and running.unit == "bytes" else ""
    words = safe(detail) or amount or running.title
    return f"{outcome.value:<8} {running.label}: {words} ({seconds_text(now - running.started)})"


def fallback_line(event: Fallback) -> str:
    """The first file that came from elsewhere for a reason; how many followed is said at the task's end."""
    text = f"{event.file}: {event.origin} {event.reason}; taken from {event.taken_from}"
    return f"note: {safe(text)}"


def notice_line(level: str, text: str) -> str:
    """A notice as one line or several."""
    return f"{'warning' if level == 'warning' else 'note'}: {safe(text)}"
