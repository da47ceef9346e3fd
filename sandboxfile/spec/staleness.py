"""Whether a lock answers a Sandboxfile's requests, and whether its history holds together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

from sandboxfile.core.digest import Digest, canonical
from sandboxfile.declared import dataclass
from sandboxfile.spec.lock import GROUP_TAG, Group, LockedBase, Lockfile, Requests

Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True)
class Difference:
    """One request that the lock does not answer as it stands in the Sandboxfile.

    kind: seen from the lock: `added` is in the Sandboxfile only, `removed` in the lock only
    what: the area: `base`, `apt`, `pip`, `apt-option`, `pip-option`, `recipe` or `input`
    name: the package, option, recipe or file
    text: for people: `pip: rich was added`
    """

    kind: Kind
    what: str
    name: str
    text: str


def differences(lock: Lockfile, wanted: Requests) -> tuple[Difference, ...]:
    """What makes the lock stale, sorted by area and name; empty when it answers every request."""
    locked = lock.requests()
    found: list[Difference] = []
    if locked.base != wanted.base:
        text = f"base: {locked.base} was changed to {wanted.base}"
        found.append(Difference("changed", "base", wanted.base, text))
    found += _sets("apt", locked.apt, wanted.apt, _apt_name)
    found += _sets("pip", locked.pip, wanted.pip, _pip_name)
    found += _maps("apt-option", "apt", locked.apt_options, wanted.apt_options)
    found += _maps("pip-option", "pip", locked.pip_options, wanted.pip_options)
    found += _maps("recipe", "recipe", locked.recipes, wanted.recipes)
    found += _maps("input", "input", locked.inputs, wanted.inputs)
    return tuple(found)


def _sets(
    what: str, locked: frozenset[str], wanted: frozenset[str], name_of: Callable[[str], str]
) -> Iterator[Difference]:
    gone, new = _by_name(locked - wanted, name_of), _by_name(wanted - locked, name_of)
    for name in sorted(gone.keys() | new.keys()):
        before, after = gone.get(name, []), new.get(name, [])
        if len(before) == len(after) == 1:
            text = f"{what}: {before[0]} was changed to {after[0]}"
            yield Difference("changed", what, name, text)
            continue
        yield from (Difference("removed", what, name, f"{what}: {each} was removed") for each in before)
        yield from (Difference("added", what, name, f"{what}: {each} was added") for each in after)


def _by_name(requests: Iterable[str], name_of: Callable[[str], str]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for request in sorted(requests):
        named.setdefault(name_of(request), []).append(request)
    return named


def _maps(
    what: str, label: str, locked: Mapping[str, str], wanted: Mapping[str, str]
) -> Iterator[Difference]:
    for name in sorted(locked.keys() | wanted.keys()):
        if name not in locked:
            yield Difference("added", what, name, f"{label}: {name} was added")
        elif name not in wanted:
            yield Difference("removed", what, name, f"{label}: {name} was removed")
        elif locked[name] != wanted[name]:
            yield Difference(
                "changed",
                what,
                name,
                f"{label}: {name} was changed{_values(what, locked[name], wanted[name])}",
            )


def _values(what: str, before: str, after: str) -> str:
    """The two values, where they are short enough to say something."""
    short = all(len(each) <= 60 and each.isprintable() for each in (before, after))
    return f" from {before} to {after}" if short and what.endswith("-option") else ""


def _apt_name(request: str) -> str:
    return re.split(r"[:=/]", request, maxsplit=1)[0]


def _pip_name(request: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", request)
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else request


def valid_prefix(lock: Lockfile) -> int:
    """How many leading groups hold together: each one's `after` is the digest of what is before it."""
    for number, (group, digest) in enumerate(
        zip(lock.groups, _histories(lock.base, lock.groups), strict=True)
    ):
        if group.after != digest:
            return number
    return len(lock.groups)


def _histories(base: LockedBase, groups: tuple[Group, ...]) -> Iterator[Digest]:
    """`history_digest(base, groups[:n])` for n = 0, 1, …, each group encoded once: a canonical document
    of parts is the parts' canonical documents put together."""
    running = hashlib.sha256(
        b'["' + GROUP_TAG.encode("ascii") + b'",{"base":' + _encoded(base) + b',"groups":['
    )
    for number, group in enumerate(groups):
        closed = running.copy()
        closed.update(b"]}]")
        yield Digest("sha256:" + closed.hexdigest())
        running.update((b"," if number else b"") + _encoded(group))


def _encoded(value: LockedBase | Group) -> bytes:
    return canonical("", value)[len(b'["",') : -1]


def after_merge(lock: Lockfile) -> str | None:
    """The problem, when a group does not follow from those before it; None when the history holds.

    That is what a merge of two branches leaves, each of which had locked a group of its own.
    """
    number = valid_prefix(lock)
    if number == len(lock.groups):
        return None
    return (
        f"package group {number + 1} of {len(lock.groups)} ({_requests(lock.groups[number])}) was not locked "
        "on the groups before it, as happens when two branches are merged"
    )


def _requests(group: Group) -> str:
    parts = [
        f"{what}: {', '.join(transition.requests)}"
        for what, transition in (("apt", group.apt), ("pip", group.pip))
        if transition is not None and transition.requests
    ]
    return "; ".join(parts) or "no requests"
