"""How old a lock is, and what making it anew would change, in words."""

from __future__ import annotations

from sandboxfile.build.outdated import OutdatedReport
from sandboxfile.core.units import plural
from sandboxfile.spec.lock import Archive, Lockfile

_HOUR, _DAY = 3600, 86400
_NAMED = 3
"""How many packages a note names."""


def older_than(lock: Lockfile, seconds: float, *, now: float) -> float | None:
    """The age of a lock in seconds when that is more than so many; None when it is not, or not known.

    A lock is as old as its oldest part: the base, and each group, has the newest date of the archives it was
    solved with.
    """
    parts: list[tuple[Archive, ...]] = [lock.base.archives]
    parts += [group.apt.archives for group in lock.groups if group.apt]
    dates = [max(archive.date for archive in part) for part in parts if part]
    age = now - min(dates) if dates else 0.0
    return age if age > seconds else None


def age_text(seconds: float) -> str:
    """An age for people: `5 hours`, `9 days`."""
    if seconds < 2 * _DAY:
        return plural(int(seconds // _HOUR), "hour")
    return plural(int(seconds // _DAY), "day")


def refresh_notes(report: OutdatedReport) -> str:
    """What `lock --update` would change, in one clause."""
    moving = [each for each in report.packages if each.newest is not None and each.hidden_by is None]
    words = []
    if moving:
        named = ", ".join(f"{each.name} {each.locked} -> {each.newest}" for each in moving[:_NAMED])
        rest = f" and {len(moving) - _NAMED} more" if len(moving) > _NAMED else ""
        secure = sum(1 for each in moving if each.security)
        marked = f", {secure} of them for security" if secure else ""
        words.append(f"`lock --update` would move {plural(len(moving), 'package')}{marked}: {named}{rest}")
    elif not report.unknown:
        words.append("`lock --update` would change nothing")
    if report.unknown:
        words.append(f"not known: {'; '.join(report.unknown)}")
    return "; ".join(words)
