"""Reading layers and snapshots back from the store's directories, without the index."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandboxfile.core.digest import Digest, is_digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.store.records import (
    LayerRecord,
    SnapshotRecord,
    layer_of_document,
    snapshot_of_document,
)

LAYER_DOCUMENT = "layer.json"


def key_of_directory(name: str) -> LayerKey | None:
    """The key a layer directory's name stands for; None for any other name."""
    digest = f"sha256:{name}"
    return LayerKey(Digest(digest)) if is_digest(digest) else None


def read_layer(layers: Path, key: LayerKey) -> LayerRecord | None:
    """The record of a committed layer from its directory; None when it is not there or not whole."""
    path = layers / key.partition(":")[2] / LAYER_DOCUMENT
    try:
        when = path.stat().st_mtime
    except OSError:
        return None
    return layer_of_document(_document(path), key, when)


def read_layers(layers: Path) -> Iterator[LayerRecord]:
    """Every committed layer. Their `fs` is not looked into: only the engine can."""
    for name in sorted(_names(layers)):
        key = key_of_directory(name)
        record = read_layer(layers, key) if key else None
        if record is not None:
            yield record


def read_snapshots(snapshots: Path) -> Iterator[SnapshotRecord]:
    """Every snapshot that was published, from its file."""
    for name in sorted(_names(snapshots)):
        if name.endswith(".json") and not name.startswith("."):
            record = snapshot_of_document(_document(snapshots / name))
            if record is not None and f"{record.slug}.json" == name:
                yield record


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _document(path: Path) -> Any:
    """A file's JSON; None when it is not there or no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
