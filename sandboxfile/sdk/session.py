"""What the namespaces of a client share: its store, its engine, and how snapshots are made known."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxfile.build.result import SnapshotInfo
from sandboxfile.core.digest import digest_of
from sandboxfile.core.layer import SNAPSHOT_TAG, LayerKey, VolumeLayer
from sandboxfile.core.units import plural
from sandboxfile.declared import dataclass
from sandboxfile.errors import NoSuchSnapshot
from sandboxfile.store.names import new_id
from sandboxfile.store.records import SnapshotRecord, layer_record

if TYPE_CHECKING:
    from sandboxfile.core.event import Reporter
    from sandboxfile.engine.base import Committed, Engine
    from sandboxfile.store.store import Store


@dataclass(frozen=True)
class Session:
    """A client's parts. `present` says which layers the engine has."""

    store: Store
    engine: Engine
    present: Callable[[Sequence[LayerKey]], Awaitable[frozenset[LayerKey]]]
    reporter: Reporter

    def record_layer(self, definition: VolumeLayer, name: str, committed: Committed) -> None:
        """Note a layer that was made of what a volume or sandbox holds."""
        self.store.index.record_layer(
            layer_record(
                definition,
                name=name,
                diff_id=committed.diff_id,
                size=committed.size,
                entries=committed.entries,
                now=time.time(),
                unreproducible=committed.unreproducible,
            )
        )

    def publish(self, slug: str, layers: tuple[LayerKey, ...], config: Mapping[str, Any]) -> SnapshotRecord:
        """Make a snapshot known under a slug of the caller. SlugTaken."""
        key = digest_of(SNAPSHOT_TAG, {"layers": list(layers), "config": _identity(config)})
        now = time.time()
        record = SnapshotRecord(slug, key, slug, layers, config, now, now)
        self.store.index.publish(record, new=True)
        return record

    def is_bootable(self, stack: Sequence[LayerKey]) -> bool:
        """Whether layers are those of a system: the lowest is a base, as far as is known."""
        lowest = self.store.index.layer(stack[0]) if stack else None
        return bool(stack) and (lowest is None or lowest.kind == "base")

    async def require(self, layers: Sequence[LayerKey], what: str) -> None:
        """Raise NoSuchSnapshot when some of the layers are gone."""
        missing = set(layers) - await self.present(layers)
        if missing:
            raise NoSuchSnapshot(
                f"{plural(len(missing), 'layer')} of {what} "
                f"{'is' if len(missing) == 1 else 'are'} no longer in the store",
                hint="build it again",
            )


def snapshot_info(store: Store, record: SnapshotRecord, *, pause: float = 0.0) -> SnapshotInfo:
    """What is told about a snapshot."""
    layers = store.index.layers(record.layers)
    return SnapshotInfo(
        slug=record.slug,
        name=record.name,
        key=record.key,
        layers=record.layers,
        config=record.config,
        size=sum(layer.size for layer in layers.values()),
        created=record.created,
        used=record.last_used,
        pause=pause,
    )


def new_layer(parents: tuple[LayerKey, ...]) -> VolumeLayer:
    """The definition of a layer that is about to be made of what stands on `parents`."""
    return VolumeLayer(parents=parents, id=new_id("lay"))


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration is part of a snapshot's key."""
    kept = {name: value for name, value in config.items() if name not in ("resources", "labels")}
    if kept.get("start"):
        kept["start"] = {name: value for name, value in kept["start"].items() if name != "timeout"}
    return kept
