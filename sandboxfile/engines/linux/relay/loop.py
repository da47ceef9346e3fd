"""The relay's poll loop: descriptors with what is to be done when they are ready, and deadlines."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

IN = select.EPOLLIN
OUT = select.EPOLLOUT
Ready = Callable[[int], None]
"""Told what is ready; EPOLLHUP and EPOLLERR may be among it though nobody asked."""


class Loop:
    """Waits for descriptors. One thread; a callback that raises ends the loop."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._watched: dict[int, tuple[int, Ready]] = {}
        self._deadlines: dict[int, tuple[float, Callable[[], None]]] = {}
        self._look_again: float | None = None
        self._new: set[int] = set()
        self._ended = False

    def watch(self, descriptor: int, wanted: int, ready: Ready) -> None:
        """Call `ready` when something wanted is possible. With nothing wanted, of a failure only."""
        known = self._watched.get(descriptor)
        if known is None:
            self._poll.register(descriptor, wanted)
            self._new.add(descriptor)
        elif known[0] != wanted:
            self._poll.modify(descriptor, wanted)
        self._watched[descriptor] = (wanted, ready)

    def forget(self, descriptor: int) -> None:
        """Watch a descriptor no longer. To be called before it is closed."""
        if self._watched.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def expire(self, name: int, seconds: float, expired: Callable[[], None]) -> None:
        """Call `expired` that long from now, instead of what was said before under that name (a descriptor
        of the caller's)."""
        when = time.monotonic() + seconds
        self._deadlines[name] = (when, expired)
        if self._look_again is None or when < self._look_again:
            self._look_again = when

    def keep(self, name: int) -> None:
        """Take a deadline back."""
        self._deadlines.pop(name, None)

    def end(self) -> None:
        """Let `run` return."""
        self._ended = True

    def close(self) -> None:
        """Let go of the kernel's part of it."""
        self._poll.close()

    def run(self) -> None:
        """Serve until `end`."""
        while not self._ended:
            events = self._poll.poll(self._patience())
            self._new.clear()
            for descriptor, ready in events:
                # A callback before this one may have closed the descriptor, and its number been given anew.
                if descriptor in self._watched and descriptor not in self._new:
                    self._watched[descriptor][1](ready)
            self._expire()

    def _patience(self) -> float | None:
        if not self._deadlines:
            self._look_again = None
        return None if self._look_again is None else max(0.0, self._look_again - time.monotonic())

    def _expire(self) -> None:
        """Call what is due. Most deadlines are moved on before they are over, so they are looked at only when
        the earliest that there ever was is."""
        now = time.monotonic()
        if self._look_again is None or now < self._look_again:
            return
        for name, (when, expired) in tuple(self._deadlines.items()):
            # What one calls may take back, or move on, another.
            if when <= now and self._deadlines.get(name) == (when, expired):
                del self._deadlines[name]
                expired()
        self._look_again = min((when for when, _ in self._deadlines.values()), default=None)
