"""Which groups of a lock stay and which are solved again. Pure: a decision about values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sandboxfile.core.units import plural
from sandboxfile.declared import dataclass
from sandboxfile.errors import UsageError
from sandboxfile.spec.lock import Group, LockedBase, Lockfile, PipTransition, Requests, history_digest
from sandboxfile.spec.staleness import valid_prefix


@dataclass(frozen=True)
class Rewrite:
    """Where solving starts again: groups before `apt_from` keep their apt part, groups before `pip_from`
    their pip part. Both are the number of groups when nothing is rewritten."""

    apt_from: int
    pip_from: int
    base: bool = False

    def earlier(self, *, apt: int | None = None, pip: int | None = None) -> Rewrite:
        """The same, from further below."""
        return Rewrite(
            min(self.apt_from, apt if apt is not None else self.apt_from),
            min(self.pip_from, pip if pip is not None else self.pip_from),
            self.base,
        )


EVERYTHING = Rewrite(0, 0, base=True)


def rewrite_of(lock: Lockfile, wanted: Requests, update: Sequence[str] | None) -> Rewrite:
    """What of a lock has to be solved again to answer the wanted requests (DESIGN section 5, rules 5 and 6).

    update: None, names to renew, or nothing to renew everything
    Raises UsageError for a name that the lock does not hold.
    """
    if lock.base.request != wanted.base or (update is not None and not update):
        return EVERYTHING
    intact = valid_prefix(lock)
    rewrite = Rewrite(intact, intact)
    apt_moved = dict(lock.apt_options) != dict(wanted.apt_options)
    pip_moved = dict(lock.pip_options) != dict(wanted.pip_options)
    if dict(lock.inputs) != dict(wanted.inputs):
        # An input is a signing key or a constraints file; which one is not worth a second look.
        apt_moved = pip_moved = True
    renewed = set(update or ())
    found: set[str] = set()
    for number, group in enumerate(lock.groups[:intact]):
        if group.apt:
            held = {row.name for row in group.apt.rows} | {_apt_name(r) for r in group.apt.requests}
            found |= renewed & held
            if apt_moved or renewed & held or not wanted.apt.issuperset(group.apt.requests):
                rewrite = rewrite.earlier(apt=number)
        if group.pip:
            held = {row.name for row in group.pip.rows} | {_pip_name(r) for r in group.pip.requests}
            named = {name for name in renewed if _pip_name(name) in held}
            found |= named
            if pip_moved or named or not wanted.pip.issuperset(group.pip.requests):
                rewrite = rewrite.earlier(pip=number)
    in_base = renewed & {row.name for row in lock.base.packages}
    found |= in_base
    if missing := sorted(renewed - found):
        raise UsageError(f"the lock holds no package called `{missing[0]}`", hint=_near(missing[0], lock))
    return EVERYTHING if in_base else rewrite


def carried(lock: Lockfile, rewrite: Rewrite) -> tuple[PipTransition, ...]:
    """The pip parts that stay though the group they were in is rewritten for apt's sake."""
    return tuple(g.pip for g in lock.groups[rewrite.apt_from : rewrite.pip_from] if g.pip)


def chained(base: LockedBase, groups: Iterable[Group]) -> tuple[Group, ...]:
    """Groups whose `after` names what is before each; groups without any part are left out."""
    history: tuple[Group, ...] = ()
    for group in groups:
        if group.apt or group.pip:
            history = (*history, Group(history_digest(base, history), group.apt, group.pip))
    return history


def changes(before: Lockfile | None, after: Lockfile) -> tuple[str, ...]:
    """How the final state differs, one line each: `+ jq 1.7.1-6`, `- foo 1.0`, `~ zlib1g 1 -> 2`."""
    if before == after:
        return ()
    lines: list[str] = []
    if before is None or before.base.request != after.base.request:
        lines.append(f"+ base {after.base.request} ({plural(len(after.base.packages), 'package')})")
    old_debs = {row.name: row for row in before.installed_debs().values()} if before else {}
    new_debs = {row.name: row for row in after.installed_debs().values()}
    old_wheels = {row.name: row.version for row in before.installed_wheels()} if before else {}
    new_wheels = {row.name: row.version for row in after.installed_wheels()}
    fresh = before is None or before.base.request != after.base.request
    if fresh:
        in_base = {row.name for row in after.base.packages if new_debs.get(row.name) == row}
        new_debs = {name: row for name, row in new_debs.items() if name not in in_base}
        old_debs = {name: row for name, row in old_debs.items() if name in new_debs}
    forced = {row.name: f" (forced by {row.because})" for row in new_debs.values() if row.because}
    old = {name: row.version for name, row in old_debs.items()}
    new = {name: row.version for name, row in new_debs.items()}
    lines += _lines(old, new, forced)
    lines += _lines(old_wheels, new_wheels, {})
    if not lines and before is not None:
        lines.append("~ the same packages, in other groups or for other requests")
    return tuple(lines)


def _lines(old: dict[str, str], new: dict[str, str], notes: dict[str, str]) -> list[str]:
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            lines.append(f"+ {name} {new[name]}")
        elif name not in new:
            lines.append(f"- {name} {old[name]}")
        elif old[name] != new[name]:
            lines.append(f"~ {name} {old[name]} -> {new[name]}{notes.get(name, '')}")
    return lines


def _apt_name(request: str) -> str:
    return re.split(r"[:=/]", request, maxsplit=1)[0]


def _pip_name(request: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", request)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else request


def _near(name: str, lock: Lockfile) -> str | None:
    import difflib

    known = {row.name for row in lock.installed_debs().values()}
    known |= {row.name for row in lock.installed_wheels()}
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean `{near[0]}`?" if near else None
