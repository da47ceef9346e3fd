"""Asking one origin after the other: in which order, how often, and after what pause.

Origins come in tiers. All of a tier are asked, several times when that may help, before the next tier is.
How an origin behaves is remembered for as long as a client lives: who failed again and again is asked last.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from sandboxfile.inputs.transport import Fault, OriginError, origin_of, shown

ATTEMPTS = 3
"""How often an origin is asked for the same thing within its tier."""
TOLERATED = 3
"""How many faults in a row make an origin one that is asked last."""
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
"""Seconds before asking the same again: doubled each time, then shortened at random by up to a half."""
PATIENCE = 30.0
"""Seconds that an origin may ask us to wait. One that wants more is one that does not answer."""
WORTH = 1 << 20
"""Bytes gained before a connection broke for which the attempt does not count."""

_WEIGHT = {Fault.ABSENT: 0, Fault.LYING: TOLERATED}
"""What a fault counts, where it is not one: not having a file is no fault, lying is not tolerated."""

Take = Callable[[str, bool], Awaitable[None]]
"""Takes what is wanted from a URL or raises OriginError. The second argument says whether somebody else can
be asked, so that it need not be patient."""


@dataclass
class Health:
    """Faults in a row, by origin."""

    faults: dict[str, int] = field(default_factory=dict)

    def good(self, url: str) -> None:
        """The origin gave what was promised."""
        self.faults.pop(origin_of(url), None)

    def bad(self, url: str, fault: Fault) -> None:
        """The origin did something wrong."""
        origin = origin_of(url)
        self.faults[origin] = self.faults.get(origin, 0) + _WEIGHT.get(fault, 1)

    def is_down(self, url: str) -> bool:
        """Whether the origin is to be asked last."""
        return self.faults.get(origin_of(url), 0) >= TOLERATED


class Inquiry:
    """The way of one file through its origins. `said` holds by URL what went wrong last."""

    def __init__(self, health: Health, take: Take) -> None:
        self._health = health
        self._take = take
        self._put_off: list[str] = []
        self.said: dict[str, OriginError] = {}

    async def ask(self, *tiers: Sequence[str]) -> str | None:
        """The first URL that gave what is wanted; None when none did."""
        self._put_off = [url for tier in tiers for url in tier if self._health.is_down(url)]
        stages = [[url for url in tier if url not in self._put_off] for tier in tiers]
        for number, stage in enumerate(stages):
            later = any(stages[number + 1 :]) or bool(self._put_off)
            if (taken := await self._ask(stage, later, last=False)) is not None:
                return taken
        return await self._ask(list(self._put_off), False, last=True)

    async def _ask(self, urls: Sequence[str], later: bool, *, last: bool) -> str | None:
        left, attempt = list(dict.fromkeys(urls)), 1
        while left:
            wanted: list[float] = []
            for url in tuple(left):
                try:
                    await self._take(url, not last and (later or len(left) > 1))
                except OriginError as failure:
                    self.said[url] = failure
                    self._health.bad(url, failure.fault)
                    if self._is_out(url, failure, later, last):
                        left.remove(url)
                    else:
                        wanted.append(failure.after)
                        attempt -= failure.gained >= WORTH
                else:
                    self._health.good(url)
                    return url
            if not left or attempt >= ATTEMPTS:
                return None
            await asyncio.sleep(pause(max(1, attempt), min(wanted)))
            attempt += 1
        return None

    def _is_out(self, url: str, failure: OriginError, later: bool, last: bool) -> bool:
        """Whether it is not asked again in this tier; who is slow or down is put off to the end."""
        if failure.fault.final or failure.after > PATIENCE:
            return True
        if not last and (failure.fault is Fault.SLOW or (later and self._health.is_down(url))):
            self._put_off.append(url)
            return True
        return False

    def sayings(self) -> tuple[str, ...]:
        """What each origin said, in the order they were asked; an origin that said the same twice, once."""
        found: dict[tuple[str, str], str] = {}
        for url, failure in self.said.items():
            found.setdefault((origin_of(url), failure.reason), f"{shown(url)} {failure.reason}")
        return tuple(found.values())

    def faults(self) -> frozenset[Fault]:
        """The kinds of everything that went wrong."""
        return frozenset(failure.fault for failure in self.said.values())


def pause(attempt: int, wanted: float = 0.0) -> float:
    """Seconds to wait after the attempt of that number (from 1), at least what an origin asked for."""
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (attempt - 1))
    # Partly at random, so that many clients of one origin do not come back all at once.
    return max(wanted, longest * (0.5 + random.random() / 2))
