"""What to remove: a pure decision over what there is.

Roots are the layers of snapshots and volumes, what living clients use, the stacks of kept workspaces, the
heads of environments built lately, and every layer used lately. What a root builds on is kept with it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field

from sandboxfile.core.digest import Digest
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
class Policy:
    """How much to keep of what nothing needs. Sizes are bytes of layers, packages, indexes and logs.

    keep_days:  what was used within so many days stays
    keep_bytes: the floor: no more is taken out by age once the store is down to this
    max_size:   the ceiling: what was used lately goes as well, the longest unused first, until the store is
                down to this; None for no ceiling
    shortage:   bytes that have to be freed on the disk, whatever the store's size; works like a ceiling
    """

    keep_days: float = KEEP_DAYS
    keep_bytes: int = 0
    max_size: int | None = None
    shortage: int = 0

    def ceiling(self, total: int) -> int | None:
        """To how many bytes a store of `total` is to be brought down; None when it may stay as it is."""
        limits = [self.max_size] if self.max_size is not None else []
        if self.shortage > 0:
            limits.append(max(0, total - self.shortage))
        return min(limits, default=None)


@dataclass(frozen=True)
class Verdict:
    """What happens to one thing in the store, and why. `title` is what people call it."""

    kind: str
    name: str
    title: str
    size: int
    goes: bool
    reason: str


@dataclass(frozen=True)
class Garbage:
    """What to remove, by name. `layers` holds keys, the others names of files or directories; `verdicts` says
    why each of these goes and why the rest stays."""

    layers: tuple[LayerKey, ...] = ()
    blobs: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    workspaces: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    staging: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = field(default=(), compare=False, repr=False)

    def reasons(self, kind: str) -> dict[str, str]:
        """Why each thing of a kind goes that does."""
        return {each.name: each.reason for each in self.verdicts if each.kind == kind and each.goes}


@dataclass(frozen=True)
class _Candidate:
    """Something that may be taken out. `hard` is why it must stay, `soft` why it should while there is room
    (None when nothing speaks for it), `why` the reason when it goes."""

    kind: str
    name: str
    title: str
    size: int
    used: float
    hard: str | None
    soft: str | None
    why: str
    depth: int = 0


def collect(survey: Survey, *, now: float, policy: Policy | None = None) -> Garbage:
    """What of a store can go. With `keep_days=0` everything that nothing refers to."""
    policy = policy or Policy()
    since = now - policy.keep_days * DAY
    if survey.busy:
        since = min(since, now - GRACE)
    recent_heads = tuple(head for head in survey.heads if head.updated > since)
    kept = _kept_workspaces(survey, since, now)
    hard = _with_parents(_needed(survey, kept, now), survey.layers)
    soft = _with_parents(_worth_keeping(survey, recent_heads, since, now), survey.layers)
    candidates = [
        *_layer_candidates(survey, hard, soft, now),
        *_item_candidates(survey, recent_heads, {*hard, *soft}, since, now),
    ]
    verdicts = _decide(candidates, policy, survey.layers)
    goes = {(each.kind, each.name) for each in verdicts if each.goes}

    def gone(kind: str, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if (kind, name) in goes)

    return Garbage(
        layers=tuple(sorted(key for key in survey.layers if ("layers", key) in goes)),
        blobs=gone("packages", (item.name for item in survey.blobs)),
        indexes=gone("indexes", (item.name for item in survey.indexes)),
        logs=gone("logs", (item.name for item in survey.logs)),
        workspaces=tuple(each.id for each in survey.workspaces if _is_dead(each, now)),
        kept=tuple(each.id for each in survey.kept if each.id not in kept),
        staging=tuple(item.name for item in survey.staging if not survey.busy or item.used <= now - DAY),
        strays=tuple(item.name for item in survey.strays if item.used <= now - GRACE),
        verdicts=tuple(verdicts),
    )


def _decide(
    candidates: Sequence[_Candidate], policy: Policy, layers: Mapping[LayerKey, LayerRecord]
) -> list[Verdict]:
    """The longest unused first, and what stands on a layer before it."""
    total = sum(each.size for each in candidates)
    ceiling = policy.ceiling(total)
    verdicts: list[Verdict] = []
    carrying: set[str] = set()
    for each in sorted(candidates, key=lambda c: (c.used, -c.depth, c.kind, c.name)):
        over = ceiling is not None and total > ceiling
        carries = each.kind == "layers" and each.name in carrying
        if each.hard is not None:
            goes, reason = False, each.hard
        elif each.soft is None and not 0 < total <= policy.keep_bytes and not carries:
            goes, reason = True, each.why
        elif over and not carries:
            goes, reason = True, f"{_over(policy)}; {each.why}"
        else:
            goes, reason = False, each.soft or "the store is no larger than what is to be kept"
        if goes:
            total -= each.size
        elif each.kind == "layers":
            carrying.update(layers[LayerKey(Digest(each.name))].parents)
        verdicts.append(Verdict(each.kind, each.name, each.title, each.size, goes, reason))
    return verdicts


def _over(policy: Policy) -> str:
    return (
        "the store was larger than allowed" if policy.max_size is not None else "the disk was short of space"
    )


def _needed(survey: Survey, kept: frozenset[str], now: float) -> dict[LayerKey, str]:
    """The layers that must stay whatever the policy, and why."""
    found: dict[LayerKey, str] = {}
    for snapshot in survey.snapshots:
        found.update(dict.fromkeys(snapshot.layers, f"the snapshot {snapshot.slug} needs it"))
    for volume in survey.volumes:
        found.update(dict.fromkeys(volume.needs, f"the volume {volume.slug} needs it"))
    for workspace in (*survey.kept, *survey.workspaces):
        if workspace.id in kept:
            found.update(dict.fromkeys(workspace.stack, "`debug` opens a failed step that stands on it"))
        elif workspace.owned:
            found.update(dict.fromkeys(workspace.stack, "a build is at work on it"))
    if survey.busy:
        text = "it was used within the last hour, and somebody is at work"
        found.update({key: text for key, r in survey.layers.items() if r.last_used > now - GRACE})
    found.update(dict.fromkeys(survey.used.layers, "a running build or sandbox uses it"))
    return found


def _worth_keeping(survey: Survey, heads: Sequence[Head], since: float, now: float) -> dict[LayerKey, str]:
    """The layers that stay as long as there is room, and why."""
    found = {
        key: f"last used {_ago(now - record.last_used)} ago"
        for key, record in survey.layers.items()
        if record.last_used > since
    }
    for head in heads:
        found.update(dict.fromkeys(head.layers.values(), f"the last build of {head.environment} has it"))
    return found


def _layer_candidates(
    survey: Survey, hard: Mapping[LayerKey, str], soft: Mapping[LayerKey, str], now: float
) -> Iterator[_Candidate]:
    """A layer counts as used when what stands on it was."""
    used: dict[LayerKey, float] = {key: record.last_used for key, record in survey.layers.items()}
    depth = dict.fromkeys(used, 0)
    for key in _topmost_first(survey.layers):
        for parent in survey.layers[key].parents:
            if parent in used:
                used[parent] = max(used[parent], used[key])
    for key in reversed(_topmost_first(survey.layers)):
        below = [depth[parent] for parent in survey.layers[key].parents if parent in depth]
        depth[key] = 1 + max(below, default=-1)
    for key, record in survey.layers.items():
        why = "the snapshot or volume it belonged to was removed"
        if record.last_used > 0:
            why = f"nothing needs it, and it was last used {_ago(now - record.last_used)} ago"
        reasons = (hard.get(key), soft.get(key), why)
        yield _Candidate("layers", key, record.name, record.size, used[key], *reasons, depth[key])


def _topmost_first(layers: Mapping[LayerKey, LayerRecord]) -> list[LayerKey]:
    """The layers in an order in which each stands before what it builds on."""
    order: list[LayerKey] = []
    seen: set[LayerKey] = set()
    for root in layers:
        ahead = [(root, False)]
        while ahead:
            key, done = ahead.pop()
            if done:
                order.append(key)
            elif key not in seen and key in layers:
                seen.add(key)
                ahead.append((key, True))
                ahead += [(parent, False) for parent in layers[key].parents]
    order.reverse()
    return order


def _item_candidates(
    survey: Survey, heads: Sequence[Head], live: Collection[LayerKey], since: float, now: float
) -> Iterator[_Candidate]:
    wanted: dict[str, str] = {}
    for head in heads:
        wanted.update(
            dict.fromkeys(sha256s(head.definitions), f"the last build of {head.environment} has it")
        )
    held = {
        "packages": survey.used.blobs,
        "indexes": survey.used.indexes,
        "logs": frozenset(f"{key.partition(':')[2]}.log" for key in live),
    }
    kinds = {"packages": survey.blobs, "indexes": survey.indexes, "logs": survey.logs}
    for kind, items in kinds.items():
        for item in items:
            ago = f"last used {_ago(now - item.used)} ago"
            hard = None
            if item.name in held[kind]:
                hard = "its layer is there" if kind == "logs" else "a running build uses it"
            elif survey.busy and item.used > now - GRACE:
                hard = f"{ago}, and somebody is at work"
            soft = wanted.get(item.name) if kind == "packages" else None
            if item.used > since:
                soft = soft or ago
            yield _Candidate(kind, item.name, item.name[:16], item.size, item.used, hard, soft, ago)


def _ago(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{max(0, seconds) / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours" if seconds < 2 * DAY else f"{seconds / DAY:.0f} days"


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


def _with_parents(
    roots: Mapping[LayerKey, str], layers: Mapping[LayerKey, LayerRecord]
) -> dict[LayerKey, str]:
    """The roots and all they build on, each with the reason why it stays."""
    live: dict[LayerKey, str] = {}
    ahead = list(roots.items())
    while ahead:
        key, reason = ahead.pop()
        if key not in live:
            live[key] = roots.get(key, reason)
            if key in layers:
                text = f"`{layers[key].name}` stands on it"
                ahead += [(parent, text) for parent in layers[key].parents]
    return live


def sha256s(value: object) -> Iterator[str]:
    """Every sha256 in a definition record."""
    if isinstance(value, str):
        if re.fullmatch(r"[0-9a-f]{64}", value):
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from sha256s(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from sha256s(item)
