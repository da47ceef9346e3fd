"""A plan beside the one it follows: which node was which, and what changed below it.

Numbered names move when something is inserted, so a node is matched by what it holds first and by its
name second: a step put in front of three others is one new step, not four changed ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from sandboxfile.core.digest import Digest, Record, digest_of
from sandboxfile.declared import dataclass
from sandboxfile.plan.diff import CONFIG, changes, content, record_key
from sandboxfile.plan.model import Plan

_CONTENT_TAG = "sandboxfile.content"


@dataclass(frozen=True)
class Cause:
    """A layer that differs from the last build. `how` is `added`, `changed` or `removed`."""

    name: str
    kind: str
    how: str


class History:
    """Compares `now`, the records of a plan, with `previous`, those of the last build (None: no build)."""

    def __init__(self, plan: Plan, now: Mapping[str, Record], previous: Mapping[str, Record] | None) -> None:
        self._plan = plan
        self._now = now
        self._previous = previous or {}
        self.known = previous is not None
        """Whether this environment was built before."""
        self._match = _match(now, self._previous)
        self._causes: tuple[tuple[int, Cause], ...] = ()
        if self.known:
            self._causes = self._find_causes()
        self._position = {layer.name: layer.position for layer in plan.layers}
        self._keys = {layer.name: Digest(layer.key) for layer in plan.layers}

    def before(self, node: str) -> Record | None:
        """The record that a node had in the last build."""
        name = self._match.get(node)
        return None if name is None else self._previous[name]

    def changes(self, node: str) -> tuple[str, ...]:
        """The differences of a node to the last build; for a new node, what it is made of."""
        return changes(self.before(node), self._now[node])

    def config_changes(self) -> tuple[str, ...]:
        """The differences of the snapshot's configuration."""
        before = self._previous.get(CONFIG)
        return () if before is None else changes(before, self._now[CONFIG])

    def same_key(self, layer: str) -> bool:
        """Whether a layer had the same key in the last build."""
        before = self.before(layer)
        return before is not None and record_key(before) == self._keys[layer]

    def causes_below(self, node: str | None) -> tuple[Cause, ...]:
        """The layers that differ below a layer; below anything else, of the whole stack."""
        limit = len(self._position) if node is None else self._position.get(node, len(self._position))
        end = bisect_left(self._causes, limit, key=lambda item: item[0])
        return tuple(cause for _, cause in self._causes[:end])

    def _find_causes(self) -> tuple[tuple[int, Cause], ...]:
        found: list[tuple[int, Cause]] = []
        for layer in self._plan.layers:
            if layer.name not in self._match:
                found.append((layer.position, Cause(layer.name, layer.kind, "added")))
            elif changes_content(self.before(layer.name), self._now[layer.name]):
                found.append((layer.position, Cause(layer.name, layer.kind, "changed")))
        claimed = set(self._match.values())
        # A removed layer stood below whatever stood above it then and is still here.
        position = 0
        survivors = {old: name for name, old in self._match.items()}
        places = {layer.name: layer.position for layer in self._plan.layers}
        for name in sorted(self._previous, key=_rank):
            record = self._previous[name]
            if name in survivors and survivors[name] in places:
                position = places[survivors[name]] + 1
            elif name not in claimed and record["kind"] not in ("check", CONFIG):
                kind = "base" if record["kind"] == "inherited" else str(record["kind"])
                found.append((position - 1, Cause(name, kind, "removed")))
        return tuple(sorted(found, key=lambda item: item[0]))


def changes_content(before: Record | None, after: Record) -> bool:
    """Whether two records differ in more than what they stand on."""
    return before is None or content(before) != content(after)


def _rank(name: str) -> tuple[int, int, str]:
    """The order of layers by their names: however `previous` was stored, it can be restored."""
    kind, _, number = name.partition("-")
    order = {"base": 0, "apt": 1, "pip": 1, "files": 2, "run": 3}
    return order.get(kind, 4), int(number) if number.isdecimal() else 0, kind


def _match(now: Mapping[str, Record], previous: Mapping[str, Record]) -> dict[str, str]:
    """For each node of now the name it had before."""
    free: dict[Digest, list[str]] = {}
    for name, record in previous.items():
        free.setdefault(_content_digest(record), []).append(name)
    found: dict[str, str] = {}
    claimed: set[str] = set()
    digests = {name: _content_digest(record) for name, record in now.items()}
    for own_name in (True, False):
        for name, digest in digests.items():
            candidates = [old for old in free.get(digest, ()) if old not in claimed]
            if name in found or not candidates or (own_name and name not in candidates):
                continue
            found[name] = name if own_name else candidates[0]
            claimed.add(found[name])
    for name, record in now.items():
        if name in found or name not in previous or name in claimed:
            continue
        if previous[name]["kind"] == record["kind"]:
            found[name] = name
            claimed.add(name)
    return found


def _content_digest(record: Record) -> Digest:
    return digest_of(_CONTENT_TAG, {"kind": record["kind"], "content": content(record)})
