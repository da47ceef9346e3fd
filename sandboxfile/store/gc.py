"""What to remove: a pure decision over what there is.

Roots are the layers of snapshots and volumes, what living clients use, the stacks of kept workspaces, the
heads of environments built lately, and every layer used lately. What a root builds on is kept with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field

from sandboxfile.core.layer import LayerKey
from sandboxfile.declared import dataclass
from sandboxfile.store.records import Failure, Head, LayerRecord, SnapshotRecord
from sandboxfile.store.uses import Used
from sandboxfile.store.volumes import VolumeRecord

DAY = 86400.0
KEEP_DAYS = 14.0
"""How long what nothing refers to is kept after its last use, unless the caller says otherwise."""
GRACE = 3600.0
"""Seconds that a directory without a sign of its owner is left alone, since it may be on its way in, and
that what was just used stays while anybody is at work."""


@dataclass(frozen=True)
class Item:
    """A file or directory of the store by its name there, with its last use (seconds since the epoch)."""

    name: str
    used: float
    size: int = 0


@dataclass(frozen=True)
class KeptWorkspace:
    """A workspace, or one kept for `debug`. `stack` is what it stands on; `owned` says whether its client
    lives, None when there is no sign of a client: it may be on its way in."""

    id: str
    stack: tuple[LayerKey, ...]
    used: float
    owned: bool | None


@dataclass(frozen=True)
class Survey:
    """What there is in a store.

    busy:   whether anybody is at work in it
    strays: entries of the layers' directory that are no layers
    """

    busy: bool = False
    layers: Mapping[LayerKey, LayerRecord] = field(default_factory=dict)
    snapshots: tuple[SnapshotRecord, ...] = ()
    heads: tuple[Head, ...] = ()
    failures: tuple[Failure, ...] = ()
    used: Used = field(default_factory=Used)
    workspaces: tuple[KeptWorkspace, ...] = ()
    kept: tuple[KeptWorkspace, ...] = ()
    blobs: tuple[Item, ...] = ()
    indexes: tuple[Item, ...] = ()
    logs: tuple[Item, ...] = ()
    staging: tuple[Item, ...] = ()
    strays: tuple[Item, ...] = ()
    volumes: tuple[VolumeRecord, ...] = ()


@dataclass(frozen=True)
class Garbage:
    """What to remove, by name. `layers` holds keys, the others names of files or directories."""

    layers: tuple[LayerKey, ...] = ()
    blobs: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    workspaces: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    staging: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()


def collect(survey: Survey, *, now: float, keep_days: float = KEEP_DAYS) -> Garbage:
    """What of a store can go. With `keep_days=0` everything that nothing refers to."""
    since = now - keep_days * DAY
    if survey.busy:
        since = min(since, now - GRACE)
    recent_heads = tuple(head for head in survey.heads if head.updated > since)
    kept = _kept_workspaces(survey, since, now)
    roots = set(survey.used.layers)
    for snapshot in survey.snapshots:
        roots.update(snapshot.layers)
    for volume in survey.volumes:
        roots.update(volume.needs)
    for head in recent_heads:
        roots.update(head.layers.values())
    for workspace in survey.kept:
        if workspace.id in kept:
            roots.update(workspace.stack)
    for workspace in survey.workspaces:
        if workspace.owned:
            roots.update(workspace.stack)
    roots.update(key for key, record in survey.layers.items() if record.last_used > since)
    live = _with_parents(roots, survey.layers)
    wanted = set(survey.used.blobs)
    for head in recent_heads:
        wanted.update(_sha256s(head.definitions))
    return Garbage(
        layers=tuple(sorted(key for key in survey.layers if key not in live)),
        blobs=_unused(survey.blobs, wanted, since),
        indexes=_unused(survey.indexes, survey.used.indexes, since),
        logs=_unused(survey.logs, {f"{key.partition(':')[2]}.log" for key in live}, since),
        workspaces=tuple(each.id for each in survey.workspaces if _is_dead(each, now)),
        kept=tuple(each.id for each in survey.kept if each.id not in kept),
        staging=tuple(item.name for item in survey.staging if not survey.busy or item.used <= now - DAY),
        strays=tuple(item.name for item in survey.strays if item.used <= now - GRACE),
    )


def _kept_workspaces(survey: Survey, since: float, now: float) -> frozenset[str]:
    """Those that `debug` can still open, and those whose build is about to say that they failed."""
    named = {failure.workspace: failure.created for failure in survey.failures}
    return frozenset(
        each.id
        for each in survey.kept
        if each.owned or (named[each.id] > since if each.id in named else not _is_dead(each, now))
    )


def _is_dead(workspace: KeptWorkspace, now: float) -> bool:
    if workspace.owned is None:
        return workspace.used <= now - GRACE
    return not workspace.owned


def _with_parents(roots: Iterable[LayerKey], layers: Mapping[LayerKey, LayerRecord]) -> set[LayerKey]:
    live: set[LayerKey] = set()
    ahead = list(roots)
    while ahead:
        key = ahead.pop()
        if key not in live:
            live.add(key)
            if key in layers:
                ahead.extend(layers[key].parents)
    return live


def _unused(items: Iterable[Item], wanted: Iterable[str], since: float) -> tuple[str, ...]:
    names = frozenset(wanted)
    return tuple(item.name for item in items if item.name not in names and item.used <= since)


def _sha256s(value: object) -> Iterator[str]:
    """Every sha256 in a definition record."""
    if isinstance(value, str):
        if re.fullmatch(r"[0-9a-f]{64}", value):
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _sha256s(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _sha256s(item)
