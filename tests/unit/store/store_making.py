"""Layers and snapshots as the engine and the builder leave them in a store."""

from __future__ import annotations

import json
from collections.abc import Callable

from sandboxfile.core.layer import LayerKey, RunLayer, SnapshotConfig, snapshot_key
from sandboxfile.core.slug import slug_of
from sandboxfile.store.records import LayerRecord, SnapshotRecord, layer_document, layer_record
from sandboxfile.store.store import Store

CommitLayer = Callable[..., LayerRecord]
MakeSnapshot = Callable[..., SnapshotRecord]


class Clock:
    """A clock that a test sets. Seconds since the epoch."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def commit_layer(
    store: Store,
    command: str,
    *,
    parents: tuple[LayerKey, ...] = (),
    size: int = 10,
    record: bool = True,
) -> LayerRecord:
    """Put a layer's directory into its place, as an engine does, and its record into the index if asked."""
    definition = RunLayer(
        parents=parents,
        command=command,
        env={},
        cwd="/",
        user="root",
        network="none",
        secrets=(),
        epoch=0,
    )
    made = layer_record(definition, name=command, diff_id=None, size=size, entries=1, now=store.clock())
    beside = store.workspaces / command
    (beside / "fs").mkdir(parents=True)
    (beside / "layer.json").write_text(json.dumps(layer_document(made)))
    store.index.layers()
    beside.rename(store.layer_dir(made.key))
    if record:
        store.index.record_layer(made)
    return made


def make_snapshot(store: Store, name: str, *layers: LayerKey) -> SnapshotRecord:
    """The record of a snapshot of layers, not yet published."""
    key = snapshot_key(layers, SnapshotConfig())
    now = store.clock()
    return SnapshotRecord(slug_of(name, key), key, name, layers, {"workdir": "/"}, now, now)
