"""Fault points of the memory engine: places where a test makes something go wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum

Fault = BaseException | Callable[[], None]
"""What happens at a point: an exception that is raised, or a function that is called (and may raise)."""


class Point(StrEnum):
    """Where a fault can happen.

    before_commit:   a layer is complete, but not yet published
    after_rename:    it is published, but the caller has not been told
    mid_output:      a command has written something and is not done
    no_space:        a file is about to be written
    connection_lost: any verb of the engine begins
    """

    BEFORE_COMMIT = "before_commit"
    AFTER_RENAME = "after_rename"
    MID_OUTPUT = "mid_output"
    NO_SPACE = "no_space"
    CONNECTION_LOST = "connection_lost"


def cancelled() -> None:
    """A fault that ends the task it happens in, as Ctrl-C does."""
    raise asyncio.CancelledError


class FaultPlan:
    """Faults by point; each happens once, when its point is reached for the `after`-th time (0: at once)."""

    def __init__(self, faults: Mapping[Point, Fault] | None = None, *, after: int = 0) -> None:
        self._faults = dict(faults or {})
        self._after = after
        self.reached: Counter[Point] = Counter()
        """How often each point was reached."""

    def hit(self, point: Point) -> None:
        """Say that a point is reached; the engine calls this."""
        self.reached[point] += 1
        if point not in self._faults or self.reached[point] <= self._after:
            return
        fault = self._faults.pop(point)
        if isinstance(fault, BaseException):
            raise fault
        fault()
