"""Does one piece of work on a store, and fails or dies at a named point.

    python driver.py HOME WORK POINT ACTION [NUMBER]

ACTION is `raise` (an OSError: the disk is full), `kill` (SIGKILL to itself) or `none`; NUMBER tells one
process's work from another's. Prints `passed POINT` when the point was reached and survived.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
from pathlib import Path

from sandboxfile.core.layer import RunLayer, SnapshotConfig, snapshot_key
from sandboxfile.core.slug import slug_of
from sandboxfile.store import faults
from sandboxfile.store.gc import Policy
from sandboxfile.store.records import LayerRecord, SnapshotRecord, layer_document, layer_record
from sandboxfile.store.store import Store
from sandboxfile.store.sweep import empty_trash, sweep

BLOB = b"a package" * 100_000


def the_layer(number: int) -> LayerRecord:
    """The record of the one layer that work of this number is about."""
    definition = RunLayer(
        parents=(),
        command=f"make {number}",
        env={},
        cwd="/",
        user="root",
        network="none",
        secrets=(),
        epoch=0,
    )
    return layer_record(definition, name="run-1", diff_id=None, size=3, entries=1, now=5.0)


def the_snapshot(number: int) -> SnapshotRecord:
    """The record of the snapshot of that layer."""
    layers = (the_layer(number).key,)
    key = snapshot_key(layers, SnapshotConfig())
    return SnapshotRecord(slug_of("web", key), key, "web", layers, {}, 5.0, 5.0)


def commit(store: Store, number: int) -> None:
    """Put the layer's directory in place, as an engine does."""
    record = the_layer(number)
    if not store.layer_dir(record.key).exists():
        beside = store.workspaces / f"w-{os.getpid()}"
        (beside / "fs").mkdir(parents=True)
        (beside / "layer.json").write_text(json.dumps(layer_document(record)))
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(beside, store.layer_dir(record.key))


def write_blob(store: Store, number: int) -> None:
    with store.blobs.writer() as writer:
        for start in range(0, len(BLOB), 65536):
            writer.write(BLOB[start : start + 65536])
            faults.point("blob:chunk")


def build(store: Store, number: int) -> None:
    commit(store, number)
    faults.point("build:committed")
    store.index.record_layer(the_layer(number))
    store.index.publish(the_snapshot(number))


def remove(store: Store, number: int) -> None:
    if store.index.snapshot(the_snapshot(number).slug):
        store.index.remove_snapshot(the_snapshot(number).slug)


def collect(store: Store, number: int) -> None:
    sweep(store, Policy(keep_days=0))
    empty_trash(store)


def damage(store: Store, number: int) -> None:
    """Make use of an index that is found damaged."""
    store.index.snapshots()


WORK = {work.__name__: work for work in (write_blob, build, remove, collect, damage)}


def main(home: str, work: str, at: str, action: str, number: str = "0") -> None:
    def fault(name: str) -> None:
        if name != at:
            return
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "raise":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "made to fail")
        print(f"passed {name}", flush=True)

    faults.install(fault)
    with Store.open(Path(home)) as store:
        WORK[work](store, int(number))


if __name__ == "__main__":
    main(*sys.argv[1:])
