"""Why a layer was built: what is remembered of evictions and of earlier builds, in the terms of plans."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from sandboxfile.core.digest import Digest, Record, hexadecimal
from sandboxfile.core.layer import LayerKey
from sandboxfile.errors import CacheMiss, UsageError
from sandboxfile.plan.model import ActionKind, Reconciled
from sandboxfile.plan.reconcile import first_miss
from sandboxfile.store.evictions import Eviction
from sandboxfile.store.records import Done, LayerRecord, PastBuild
from sandboxfile.store.store import Store

LEAST_DIGITS = 4
"""Digits of a key that have to be given."""


@dataclass(frozen=True)
class KnownLayer:
    """A layer that is no part of the present plan, as the store remembers it.

    name:       what it was called, in the build that had it last where one is known
    definition: the record that was hashed, None when it is not known
    builds:     the builds that had it, newest first, as (environment, number)
    """

    key: LayerKey
    name: str
    kind: str
    definition: Record | None
    record: LayerRecord | None
    eviction: Eviction | None
    builds: tuple[tuple[str, int], ...] = ()


def day(when: float) -> str:
    """A time of the store, for people: their own time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))


def eviction_text(eviction: Eviction) -> str:
    """What a tombstone says, as the reason of a build."""
    return f"built before, but evicted on {day(eviction.evicted)}: {eviction.reason}"


def evicted(store: Store, keys: Iterable[LayerKey]) -> dict[LayerKey, str]:
    """Of those layers that were evicted, why."""
    return {key: eviction_text(stone) for key, stone in store.index.evictions.of(keys).items()}


def done(reconciled: Reconciled) -> tuple[Done, ...]:
    """What is done with the layers and checks of a plan, to be remembered."""
    return tuple(
        Done(action.node, action.kind.value, action.reason.code, action.reason.text, action.reason.changes)
        for action in reconciled.actions
        if action.kind not in (ActionKind.FETCH, ActionKind.SKIP) and not action.node.startswith("fetch:")
    )


def check_cached(reconciled: Reconciled) -> None:
    """Raise CacheMiss when something of a plan would be built or run, for the first that would."""
    miss = first_miss(reconciled)
    if miss is None:
        return
    what = "built" if miss.kind is ActionKind.BUILD else "run"
    spans = {layer.name: layer.span for layer in reconciled.plan.layers}
    raise CacheMiss(
        f"`{miss.node}` would have to be {what}: {miss.reason.text}",
        miss.node,
        miss.reason.text,
        span=spans.get(miss.node),
        hint=f"`sandboxfile explain {miss.node}` shows more",
        details=miss.reason.changes,
    )


def past_build(store: Store, environment: str, which: str) -> PastBuild:
    """An earlier build of an environment, by its number or its slug (the newest of that slug). UsageError."""
    known = store.index.builds(environment)
    for build in known:
        if which in (str(build.number), build.slug):
            return build
    if not known:
        raise UsageError("no build of this environment is remembered", hint="run `sandboxfile build`")
    numbers = ", ".join(str(build.number) for build in reversed(known[:5]))
    more = f" and {len(known) - 5} earlier" if len(known) > 5 else ""
    raise UsageError(
        f"no build `{which}` of this environment is remembered",
        hint=f"there are {numbers}{more}; `sandboxfile explain --builds` lists them",
    )


def find_layer(store: Store, digits: str) -> KnownLayer | None:
    """The layer whose key begins with these digits, whatever it was built for and whether or not it is still
    there; None when none is known. Raises UsageError when several are."""
    digits = digits.removeprefix("sha256:").lower()
    if len(digits) < LEAST_DIGITS or not set(digits) <= set("0123456789abcdef"):
        return None
    index = store.index
    records = {key: r for key, r in index.layers().items() if hexadecimal(key).startswith(digits)}
    stones = {each.key: each for each in index.evictions.all() if hexadecimal(each.key).startswith(digits)}
    builds: dict[LayerKey, list[tuple[PastBuild, str]]] = {}
    for environment in sorted({where for where, _, _ in index.build_places()}):
        for build in index.builds(environment):
            for name, key in build.layers.items():
                if hexadecimal(Digest(key)).startswith(digits):
                    builds.setdefault(key, []).append((build, name))
    keys = sorted({*records, *stones, *builds})
    if len(keys) > 1:
        raise UsageError(
            f"`{digits}` is the beginning of several keys",
            hint=f"give more digits: {', '.join(hexadecimal(key)[: len(digits) + 8] for key in keys[:4])}",
        )
    if not keys:
        return None
    return _known(keys[0], records.get(keys[0]), stones.get(keys[0]), builds.get(keys[0], []))


def _known(
    key: LayerKey,
    record: LayerRecord | None,
    stone: Eviction | None,
    builds: list[tuple[PastBuild, str]],
) -> KnownLayer:
    import json

    builds.sort(key=lambda each: -each[0].built)
    definition: Record | None = record.definition if record else None
    if definition is None and builds:
        found = builds[0][0].definitions.get(builds[0][1])
        definition = found if found and found.get("kind") != "inherited" else None
    if definition is None and stone is not None and stone.preimage:
        definition = json.loads(stone.preimage)[1]
    name = builds[0][1] if builds else (record or stone).name  # type: ignore[union-attr]
    kind = str(definition["kind"]) if definition else (record or stone).kind  # type: ignore[union-attr]
    places = tuple((build.environment, build.number) for build, _ in builds)
    return KnownLayer(key, name, kind, definition, record, stone, places)
