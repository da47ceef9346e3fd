"""What planning produces. Frozen values, no behaviour beyond looking things up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import Definition, LayerKey, SnapshotConfig
from sandboxfile.declared import dataclass
from sandboxfile.errors import Span
from sandboxfile.spec.model import Check


@dataclass(frozen=True)
class PlannedLayer:
    """One layer of a plan.

    name:    short and stable within the file: `base`, `apt-1`, `pip-1`, `files-1`, `run-1`
    title:   for people: `apt: python3 python3-pip (86 packages, 105 MB)`
    key:     digest of `definition`
    position: its place among the plan's layers, 0 for the lowest
    chain:   keys of all the plan's layers, lowest first; one tuple that all of them share
    detached: True when its key does not depend on the stack
    inherited: True for a layer of a `snapshot:` base, which has no definition here
    forced:  better words for lines of a diff, by line (`+ zlib1g 2` is `~ zlib1g 1 -> 2, forced by z-dev`)
    """

    name: str
    title: str
    key: LayerKey
    definition: Definition | None
    position: int
    # Shared, so that a plan of n layers does not hold n * n / 2 keys.
    chain: tuple[LayerKey, ...] = field(compare=False, repr=False)
    detached: bool = False
    inherited: bool = False
    forced: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    span: Span | None = field(default=None, compare=False)

    @property
    def group(self) -> int | None:
        """The number of the lock's package group that it is a part of."""
        return int(self.name.partition("-")[2]) if self.kind in ("apt", "pip") else None

    @property
    def stack(self) -> tuple[LayerKey, ...]:
        """Keys of every layer below it, lowest first (for a detached layer: those it is placed on)."""
        return self.chain[: self.position]

    @property
    def kind(self) -> str:
        """`base`, `apt`, `pip`, `files` or `run`."""
        return "base" if self.definition is None else self.definition.kind


@dataclass(frozen=True)
class PlannedFetch:
    """Files to be in the store before `layer` is built: work that needs no sandbox.

    items: (sha256 hex, size in bytes, name for people) of each
    """

    name: str
    layer: str
    items: tuple[tuple[str, int, str], ...]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(size for _, size, _ in self.items)


@dataclass(frozen=True)
class PlannedCheck:
    """A verify entry. `key` is the digest of the check and the snapshot it gates; results are remembered
    by it."""

    name: str
    title: str
    key: Digest
    check: Check


@dataclass(frozen=True)
class Plan:
    """A keyed, ordered result of planning; knows nothing of what is already built."""

    name: str
    layers: tuple[PlannedLayer, ...]
    fetches: tuple[PlannedFetch, ...]
    checks: tuple[PlannedCheck, ...]
    config: SnapshotConfig
    key: Digest
    slug: str
    proposals: tuple[str, ...] = ()
    """Advice (`31 package groups: consider \\`sandboxfile lock --squash\\``)."""

    @property
    def stack(self) -> tuple[LayerKey, ...]:
        """The snapshot's layers, lowest first."""
        return tuple(layer.key for layer in self.layers)

    def layer(self, name: str) -> PlannedLayer:
        """The layer of that name. KeyError."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)


class ActionKind(StrEnum):
    """What will happen to a node of the plan."""

    BUILD = "build"
    REUSE = "reuse"
    PLACE = "place"
    FETCH = "fetch"
    CHECK = "check"
    REMEMBERED = "remembered"
    SKIP = "skip"


@dataclass(frozen=True)
class Reason:
    """Why. `code` is stable (`no-record`, `definition-changed`, `parent-changed`, `present`, `missing`,
    `evicted`, `forced`, …), `text` a few words, `changes` the differences to what was there before, one a
    line (`+ jq 1.7.1-6`)."""

    code: str
    text: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Action:
    """What happens to one node (a layer, fetch or check, by name), and why. `cost` is bytes to fetch."""

    node: str
    kind: ActionKind
    reason: Reason
    cost: int = 0


@dataclass(frozen=True)
class Reconciled:
    """A plan and what happens to each of its nodes, in order."""

    plan: Plan
    actions: tuple[Action, ...]
    published: bool = False
    """True when the snapshot is there already and every check is remembered as passed."""
    forced: frozenset[str] = frozenset()
    """Names of layers that are built again although they are there."""
    sizes: Mapping[LayerKey, int] = field(default_factory=dict, compare=False)
    """Bytes of the layers that were built before, by key."""

    def action(self, node: str) -> Action:
        """The action of a node. KeyError."""
        for action in self.actions:
            if action.node == node:
                return action
        raise KeyError(node)

    @property
    def builds(self) -> tuple[str, ...]:
        """Names of the layers that will be built."""
        return tuple(a.node for a in self.actions if a.kind is ActionKind.BUILD)
