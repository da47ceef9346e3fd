"""What takes the disk, by environment, package group, kind or age: sums over a Survey, without any I/O.

A byte that several environments need is in the row of each and in its column `shared`; the total counts it
once. So what a row takes for itself is its size less what is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from sandboxfile.core.layer import LayerKey
from sandboxfile.store.gc import DAY, Item, Survey, sha256s

BY = ("kind", "environment", "group", "age")
NOBODY = "(no environment)"
_AGES = ((1 * DAY, "today"), (7 * DAY, "this week"), (30 * DAY, "this month"))
_KINDS = ("layers: base", "layers: apt", "layers: pip", "layers: files", "layers: run", "layers: other")

Places = tuple[tuple[str, str, Mapping[str, LayerKey]], ...]
"""Of every remembered build its environment, its slug and its layers."""


@dataclass(frozen=True)
class Row:
    """One row: how many layers and packages, their bytes, how many of those bytes more than one environment
    needs, and the last use in seconds since the epoch."""

    name: str
    layers: int = 0
    packages: int = 0
    size: int = 0
    shared: int = 0
    used: float = 0.0


@dataclass(frozen=True)
class Account:
    """Rows, and the bytes of everything in them, each counted once."""

    by: str
    rows: tuple[Row, ...]
    total: int


@dataclass
class _Thing:
    """Something that takes space. `places` are the environments that need it, each with what it is there."""

    kind: str
    size: int
    used: float
    places: set[tuple[str, str]] = field(default_factory=set)

    @property
    def owners(self) -> frozenset[str]:
        return frozenset(owner for owner, _ in self.places)


def account(survey: Survey, places: Places, by: str, *, now: float) -> Account:
    """Sum up the layers, packages, indexes and logs of a store, by one of `BY`."""
    things = _things(survey, places)
    labels: dict[str, Callable[[_Thing], Iterator[str]]] = {
        "kind": lambda thing: iter((thing.kind,)),
        "environment": lambda thing: iter(sorted(thing.owners) or (NOBODY,)),
        "group": lambda thing: iter(sorted({f"{o}  {g}" for o, g in thing.places}) or (NOBODY,)),
        "age": lambda thing: iter((_age(now - thing.used),)),
    }
    rows: dict[str, Row] = {}
    for thing in things:
        for label in labels[by](thing):
            rows[label] = _added(rows.get(label, Row(label)), thing)
    order = sorted(rows.values(), key=lambda row: _order(by, row))
    return Account(by, tuple(order), sum(thing.size for thing in things))


def _added(row: Row, thing: _Thing) -> Row:
    return Row(
        row.name,
        row.layers + thing.kind.startswith("layers"),
        row.packages + (thing.kind == "packages"),
        row.size + thing.size,
        row.shared + (thing.size if len(thing.owners) > 1 else 0),
        max(row.used, thing.used),
    )


def _order(by: str, row: Row) -> tuple[float, str]:
    if by == "kind":
        rank = _KINDS.index(row.name) if row.name in _KINDS else len(_KINDS)
        return float(rank), row.name
    if by == "age":
        return -row.used, row.name
    if row.name == NOBODY:
        return float("inf"), row.name
    return (0.0, row.name) if by == "group" else (-float(row.size), row.name)


def _things(survey: Survey, places: Places) -> list[_Thing]:
    layers = {
        key: _Thing(_layer_kind(record.kind), record.size, record.last_used)
        for key, record in survey.layers.items()
    }
    blobs = {item.name: _Thing("packages", item.size, item.used) for item in survey.blobs}
    for owner, label, key in _layer_places(survey, places):
        if key in layers:
            layers[key].places.add((owner, label))
    for head in survey.heads:
        for node, record in head.definitions.items():
            for sha256 in sha256s(record):
                if sha256 in blobs:
                    blobs[sha256].places.add((head.environment, _group(node)))
    others = [*_others("indexes", survey.indexes), *_others("logs", survey.logs)]
    return [*layers.values(), *blobs.values(), *others]


def _layer_places(survey: Survey, places: Places) -> Iterator[tuple[str, str, LayerKey]]:
    """Who needs which layer, and as what."""
    for head in survey.heads:
        for name, key in head.layers.items():
            yield head.environment, _group(name), key
    snapshots = {snapshot.slug: snapshot for snapshot in survey.snapshots}
    built: set[str] = {head.slug for head in survey.heads if head.slug is not None}
    for environment, slug, layers in places:
        if slug in snapshots:
            built.add(slug)
            for name, key in layers.items():
                yield environment, _group(name), key
    for slug, snapshot in snapshots.items():
        if slug not in built:
            for key in snapshot.layers:
                yield f"snapshot {slug}", "layers", key
    for volume in survey.volumes:
        for key in volume.needs:
            yield f"volume {volume.slug}", "layers", key


def _others(kind: str, items: tuple[Item, ...]) -> Iterator[_Thing]:
    return (_Thing(kind, item.size, item.used) for item in items)


def _layer_kind(kind: str) -> str:
    name = f"layers: {kind}"
    return name if name in _KINDS else _KINDS[-1]


def _group(node: str) -> str:
    """The group that a node of a plan belongs to: `base`, `group 2` (for `apt-2` and `pip-2`), `files`, …"""
    kind, _, number = node.partition("-")
    return f"group {int(number):2d}" if kind in ("apt", "pip") and number.isdecimal() else kind


def _age(seconds: float) -> str:
    return next((name for limit, name in _AGES if seconds < limit), "older")
