"""What this host can enforce, and what is done about a limit that it cannot."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

from sandboxfile.declared import dataclass
from sandboxfile.engine.base import Capability, Limits
from sandboxfile.engines.linux.cgroups import hierarchies
from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.operations import Usage
from sandboxfile.engines.linux.work import work
from sandboxfile.errors import EngineError, LimitNotEnforceable

_ROOT_HINT = (
    'leave the limit out, run as root or with delegated control groups, or allow `limits="best-effort"`'
)
_MEMORY_PERIOD = 0.2
_DISK_PERIOD = 1.0
_TMPFS_ATTRIBUTES = (6, 6)
"""The first kernel whose tmpfs has the user attributes an overlay needs."""


def host_capabilities() -> frozenset[Capability]:
    """The limits that are enforced here, found out without changing anything."""
    found = {Capability.HARD_PIDS}
    if hierarchies():
        found |= {Capability.HARD_MEMORY, Capability.HARD_CPU}
    numbers = os.uname().release.split("-")[0].split(".")[:2]
    if all(part.isdigit() for part in numbers) and tuple(map(int, numbers)) >= _TMPFS_ATTRIBUTES:
        found.add(Capability.HARD_DISK)
    if images_usable():
        found.add(Capability.VOLUME_CAPACITY)
    return frozenset(found)


def images_usable() -> bool:
    """Whether volumes can be file systems of their own, in files."""
    return (
        os.geteuid() == 0
        and os.access("/dev/loop-control", os.R_OK | os.W_OK)
        and shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin") is not None
    )


@dataclass(frozen=True)
class Enforcement:
    """How a sandbox's limits are kept.

    group:    the limits for control groups: memory, cores, processes
    nested:   the number of processes that is kept by a user namespace of its own, None for none
    disk:     bytes of the memory that takes what is written, None for no limit
    watched:  bytes of memory somebody has to look at; `watched_disk` the same for a throw-away layer on disk
    warnings: a sentence for each limit that is not strictly enforced
    """

    group: tuple[int | None, float | None, int | None] = (None, None, None)
    nested: int | None = None
    disk: int | None = None
    watched: int | None = None
    watched_disk: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def grouped(self) -> bool:
        """Whether control groups are needed."""
        return any(each is not None for each in self.group)


def enforce(
    limits: Limits, *, groups: bool, memory_uppers: bool, throw_away: bool, best_effort: bool
) -> Enforcement:
    """Decide how limits are kept. Raises LimitNotEnforceable.

    groups:        whether there are control groups
    memory_uppers: whether a throw-away layer can be in memory of a certain size
    throw_away:    whether there is such a layer; otherwise a volume has its own capacity
    """
    warnings: list[str] = []

    def refuse(limit: str, message: str, weaker: str) -> None:
        if not best_effort:
            raise LimitNotEnforceable(message, limit, hint=_ROOT_HINT)
        warnings.append(f"{message}; {weaker}")

    memory, cpus, pids = limits.memory, limits.cpus, limits.pids
    watched = watched_disk = None
    if not groups:
        if memory is not None:
            refuse(
                "memory",
                "a sandbox's memory cannot be limited here: that takes control groups",
                "it is looked at several times a second, and the sandbox ended when it takes more",
            )
            watched = memory
        if cpus is not None:
            refuse(
                "cpus",
                "a sandbox's processors cannot be limited here: that takes control groups",
                "it can use all of them",
            )
        memory = cpus = None
    disk = limits.disk if throw_away else None
    if disk is not None and not memory_uppers:
        refuse(
            "disk",
            "what a sandbox writes cannot be limited here: that takes Linux 6.6",
            "it is looked at every second, and the sandbox ended when it takes more",
        )
        watched_disk, disk = disk, None
    elif limits.disk is not None and not throw_away:
        raise EngineError(
            "a sandbox that writes to a volume has the volume's capacity, and no other limit of its disk",
            hint="leave `disk` out, or make a volume with that capacity",
        )
    return Enforcement(
        (memory, cpus, pids if groups else None),
        None if groups else pids,
        disk,
        watched,
        watched_disk,
        tuple(warnings),
    )


class Watcher:
    """Looks at what cannot be enforced, and ends the sandbox that takes too much."""

    def __init__(self, helper: HelperClient, end: Callable[[str], None]) -> None:
        self._helper = helper
        self._end = end
        self._tasks: list[asyncio.Task[None]] = []

    def memory(self, pid: int, limit: int) -> None:
        """Watch over the memory of the processes of a sandbox, by its init."""

        async def used() -> int:
            (taken,) = await self._helper.do(Usage(pid))
            return int(taken)

        self._watch("memory", used, limit, _MEMORY_PERIOD)

    def disk(self, directory: str, limit: int) -> None:
        """Watch over the disk that a directory takes."""

        async def used() -> int:
            found: dict[str, Any] = await work(self._helper, "measure", {}, {"root": directory})
            return int(found["size"])

        self._watch("disk", used, limit, _DISK_PERIOD)

    def _watch(self, name: str, used: Callable[[], Awaitable[int]], limit: int, period: float) -> None:
        async def look() -> None:
            try:
                while await used() <= limit:
                    await asyncio.sleep(period)
            except EngineError:
                return  # the sandbox or the helper has ended
            self._end(name)

        self._tasks.append(asyncio.ensure_future(look()))

    def stop(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()
