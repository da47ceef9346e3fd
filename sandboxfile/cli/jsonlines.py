"""Progress as JSON lines on stderr: each event as one object, for programs that show it themselves."""

from __future__ import annotations

import json
import time
from typing import TextIO

from sandboxfile.cli.progress import Clock, Progress
from sandboxfile.core.event import (
    Event,
    Fallback,
    Notice,
    TaskFinished,
    TaskOutput,
    TaskProgress,
    TaskStarted,
)


class JsonProgress(Progress):
    """Writes every event; `at` is seconds since the first."""

    def __init__(self, stream: TextIO, *, clock: Clock = time.monotonic) -> None:
        super().__init__()
        self._stream = stream
        self._clock = clock
        self._start: float | None = None

    def emit(self, event: Event) -> None:
        """Write an event."""
        now = self._clock()
        self._start = now if self._start is None else self._start
        self.board.note(event, now)
        record = {"at": round(now - self._start, 3), **event_record(event)}
        try:
            self._stream.write(json.dumps(record) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # a reporter never fails the work: stderr may be gone


def event_record(event: Event) -> dict[str, object]:
    """An event's JSON form."""
    match event:
        case TaskStarted(task, title, parent):
            return {"event": "task-started", "task": task, "title": title, "parent": parent}
        case TaskProgress(task, done, total, unit):
            return {"event": "task-progress", "task": task, "done": done, "total": total, "unit": unit}
        case TaskOutput(task, text):
            return {"event": "task-output", "task": task, "text": text}
        case TaskFinished(task, outcome, detail):
            return {"event": "task-finished", "task": task, "outcome": outcome.value, "detail": detail}
        case Fallback(task, file, origin, reason, taken_from):
            return {
                "event": "fallback",
                "task": task,
                "file": file,
                "origin": origin,
                "reason": reason,
                "taken_from": taken_from,
            }
        case Notice(level, text):
            return {"event": "notice", "level": level, "text": text}
