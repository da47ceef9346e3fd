"""What happens during long work, as data; whoever wants to show or record it is a Reporter.

Work is a tree of tasks. A task starts, may report progress and output, and finishes once. Nothing below
`cli` prints: the live tree, the plain lines, the JSON lines and the tests are reporters of this stream.
Output is text that was made safe to show; secrets are redacted before an event is made.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from sandboxfile.declared import dataclass


class Outcome(StrEnum):
    """How a task ended."""

    DONE = "done"
    REUSED = "reused"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class TaskStarted:
    """`task` is unique while it runs (`layer:apt-1`), `parent` the task it belongs to, `title` for people."""

    task: str
    title: str
    parent: str | None = None


@dataclass(frozen=True)
class TaskProgress:
    """`done` of `total` units (`bytes`, `packages`, …); `total` is None while it is not known."""

    task: str
    done: int
    total: int | None
    unit: str


@dataclass(frozen=True)
class TaskOutput:
    """A piece of what the task's program wrote, decoded, as it came (not split into lines)."""

    task: str
    text: str


@dataclass(frozen=True)
class TaskFinished:
    """`detail` says what came of it in a few words (`apt-1: 86 packages, 437 MB`)."""

    task: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Fallback:
    """A file that `task` fetched came from another origin than the one expected: that `origin` gave `reason`
    (`answered 404 Not Found`), `taken_from` had it."""

    task: str
    file: str
    origin: str
    reason: str
    taken_from: str


@dataclass(frozen=True)
class Notice:
    """Something worth knowing that is no failure. `level` is `info` or `warning`."""

    level: str
    text: str


Event = TaskStarted | TaskProgress | TaskOutput | TaskFinished | Fallback | Notice


class Reporter(Protocol):
    """Listens to events. Called from one thread; must return quickly and never raise."""

    def emit(self, event: Event) -> None:
        """Take note of an event."""


class NullReporter:
    """A reporter that ignores everything."""

    def emit(self, event: Event) -> None:
        """Do nothing."""
