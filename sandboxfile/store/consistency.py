"""Whether a store is as it should be: what is wrong, what killed programs left, and what repairs it.

Looks at the structure, and with `full` at the bytes of every package; the bytes of layers only the engine can
read, so the caller compares those (`wrong_content`).
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from sandboxfile.core.digest import Digest, digest_bytes, hexadecimal
from sandboxfile.core.layer import LayerKey
from sandboxfile.errors import IntegrityError
from sandboxfile.store.atomic import TEMPORARY, unique, write_atomically
from sandboxfile.store.database import generations
from sandboxfile.store.failure import reported
from sandboxfile.store.gc import GRACE
from sandboxfile.store.locks import is_owned, try_acquire
from sandboxfile.store.records import LayerRecord, SnapshotRecord, snapshot_document
from sandboxfile.store.restore import LAYER_DOCUMENT, key_of_directory, read_layer
from sandboxfile.store.store import Store
from sandboxfile.store.uses import GC
from sandboxfile.store.volumes import VolumeRecord


class Remedy(StrEnum):
    """What puts a problem right."""

    REPAIR = "sandboxfile cache check --repair"
    BUILD = "build again"
    NONE = "nothing: it is lost"


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be. `kind` and `name` say of what, `text` what is wrong."""

    kind: str
    name: str
    text: str
    remedy: Remedy


@dataclass(frozen=True)
class Checked:
    """What a check found. `looked_at` is how many of each kind there are; `leftovers` is what killed programs
    left, which is garbage and no problem: `cache gc` removes it. `repaired` is what was put right."""

    problems: tuple[Problem, ...] = ()
    repaired: tuple[Problem, ...] = ()
    leftovers: tuple[str, ...] = ()
    looked_at: Mapping[str, int] = field(default_factory=dict)


def check(store: Store, *, full: bool = False, present: frozenset[LayerKey] | None = None) -> Checked:
    """Look through a store. Nothing is changed, but that layers whose build was killed before it recorded
    them are taken in, as every build would. `present` is given for an engine that keeps its layers elsewhere:
    those that it has. StoreError when the store cannot be read."""
    problems = _index_problems(store, full=full)
    if problems:
        return Checked(problems=tuple(problems))
    # Nothing is taken out meanwhile; builds go on.
    with store.locks.lock(GC, shared=True) if not store.read_only else nullcontext():
        if not store.read_only:
            store.index.adopt_layers()
        with reported("looking through the store"):
            layers, snapshots, volumes = (
                store.index.layers(),
                store.index.snapshots(),
                store.index.volumes.all(),
            )
            for record in layers.values():
                problems += _layer_problems(store, record, present)
            broken = {problem.name for problem in problems}
            whole = frozenset(key for key in layers if key not in broken)
            for snapshot in snapshots:
                problems += _snapshot_problems(store, snapshot, whole)
            for volume in volumes:
                problems += _volume_problems(store, volume, whole)
            blobs = list(_blobs(store))
            for name, path in blobs:
                problems += _blob_problems(store, name, path, full=full)
            counts = {
                "layers": len(layers),
                "snapshots": len(snapshots),
                "volumes": len(volumes),
                "packages": len(blobs),
            }
            leftovers = tuple(_leftovers(store, snapshots, volumes))
            return Checked(problems=tuple(problems), leftovers=leftovers, looked_at=counts)


def wrong_content(record: LayerRecord, found: Digest | None) -> Problem | None:
    """What to say of a layer whose files have another digest than when it was built. A layer without a
    digest of its own (a volume's, a running sandbox's) cannot be compared."""
    if record.diff_id is None or found is None or record.diff_id == found:
        return None
    text = f"its files are not what was built: their digest is {found}, not {record.diff_id}"
    return Problem("layer", record.key, f"`{record.name}`: {text}", Remedy.REPAIR)


def repair(store: Store, problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Put right what can be; the problems that were. Damaged layers and packages are taken out, so that the
    next build makes or fetches them again. What is moved to the trash is the caller's to delete."""
    done: list[Problem] = []
    for problem in problems:
        if problem.remedy is not Remedy.REPAIR:
            continue
        with reported("repairing the store"):
            _REPAIRS[problem.kind](store, problem)
        done.append(problem)
    return tuple(done)


def _index_problems(store: Store, *, full: bool) -> list[Problem]:
    found = store.index.damage(full=full)
    if found is None:
        return []
    return [Problem("index", store.index.path.name, f"the index is damaged: {found}", Remedy.REPAIR)]


def _layer_problems(
    store: Store, record: LayerRecord, present: frozenset[LayerKey] | None
) -> Iterator[Problem]:
    def problem(text: str) -> Problem:
        return Problem("layer", record.key, f"`{record.name}`: {text}", Remedy.REPAIR)

    if present is not None:
        if record.key not in present:
            yield problem("the engine does not have it")
        return
    directory = store.layer_dir(record.key)
    if not directory.is_dir():
        yield problem("its directory is missing")
        return
    document = _json(directory / LAYER_DOCUMENT)
    if not isinstance(document, dict) or read_layer(store.layers, record.key) is None:
        yield problem("its record layer.json is missing or damaged")
        return
    if document.get("diff_id") != record.diff_id:
        yield problem(f"layer.json says the digest {document.get('diff_id')}, the index {record.diff_id}")
    if record.preimage and digest_bytes(record.preimage.encode()) != record.key:
        yield problem("its definition is not what its key was made of")
    content = directory / ("image" if document.get("image") else "fs")
    if not content.exists():
        yield problem(f"its content is missing ({content.name})")


def _snapshot_problems(
    store: Store, snapshot: SnapshotRecord, whole: frozenset[LayerKey]
) -> Iterator[Problem]:
    missing = [key for key in snapshot.layers if key not in whole]
    if missing:
        text = f"{len(missing)} of its {len(snapshot.layers)} layers are not in the store"
        yield Problem("snapshot", snapshot.slug, text, Remedy.BUILD)
    document = _json(store.snapshots / f"{snapshot.slug}.json")
    expected = snapshot_document(snapshot)
    if not isinstance(document, dict):
        yield Problem("snapshot", snapshot.slug, "its file is missing or damaged", Remedy.REPAIR)
    elif any(document.get(name) != expected[name] for name in ("key", "layers")):
        yield Problem("snapshot", snapshot.slug, "its file describes another snapshot", Remedy.REPAIR)


def _volume_problems(store: Store, volume: VolumeRecord, whole: frozenset[LayerKey]) -> Iterator[Problem]:
    missing = [key for key in volume.stack if key not in whole]
    if missing:
        text = f"{len(missing)} of the {len(volume.stack)} layers it stands on are not in the store"
        yield Problem("volume", volume.slug, text, Remedy.BUILD)
    if not isinstance(_json(store.volumes / f"{volume.slug}.json"), dict):
        yield Problem("volume", volume.slug, "its file is missing or damaged", Remedy.REPAIR)
    if not (store.volumes / volume.id).exists():
        yield Problem("volume", volume.slug, "what was written to it is missing", Remedy.NONE)


def _blobs(store: Store) -> Iterator[tuple[str, Path]]:
    for directory in _entries(store.blobs.directory / "sha256"):
        if not directory.is_dir():
            yield directory.name, directory
            continue
        for path in _entries(directory):
            yield f"{directory.name}{path.name}", path


def _blob_problems(store: Store, name: str, path: Path, *, full: bool) -> Iterator[Problem]:
    try:
        expected = store.blobs.path(name)
    except ValueError:
        expected = None
    if expected != path or not stat.S_ISREG(path.lstat().st_mode):
        yield Problem("package", os.path.relpath(path, store.home), "it is no package", Remedy.REPAIR)
    elif full:
        try:
            store.blobs.verify(name, remove=False)
        except IntegrityError as error:
            yield Problem("package", name, error.message, Remedy.REPAIR)


def _leftovers(
    store: Store, snapshots: Sequence[SnapshotRecord], volumes: Sequence[VolumeRecord]
) -> Iterator[str]:
    """What is garbage, by its place in the store."""
    known = {f"{snapshot.slug}.json" for snapshot in snapshots}
    yield from (f"snapshots/{p.name}" for p in _entries(store.snapshots) if p.name not in known)
    known = {name for volume in volumes for name in (f"{volume.slug}.json", volume.id)}
    yield from (f"volumes/{p.name}" for p in _entries(store.volumes) if p.name not in known)
    yield from (f"trash/{path.name}" for path in _entries(store.trash))
    yield from (f"workspaces/{p.name}" for p in _entries(store.workspaces) if is_owned(p) is False)
    for path in _entries(store.layers):
        key = key_of_directory(path.name)
        if key is None or read_layer(store.layers, key) is None:
            yield f"layers/{path.name}"
    for path in _entries(store.blobs.incoming):
        held = try_acquire(path, fcntl.LOCK_EX, create=False) if not store.read_only else None
        if held is not None:
            os.close(held)
            yield f"blobs/incoming/{path.name}"
    made_since = store.clock() - GRACE
    for path in _entries(store.placements):
        if path.name.startswith(TEMPORARY) and path.stat().st_mtime < made_since:
            yield f"placements/{path.name}"
    if not store.read_only and not _anybody_at_work(store):
        yield from (f"staging/{path.name}" for path in _entries(store.staging))
    yield from (path.name for _, path in sorted(generations(store.home).items())[:-1])
    yield from (path.name for path in _entries(store.home) if path.name.startswith((TEMPORARY, "index.new-")))


def _anybody_at_work(store: Store) -> bool:
    """Whether a client lives that names what it uses."""
    for path in _entries(store.locks.directory / "uses"):
        free = try_acquire(path, fcntl.LOCK_SH, create=False)
        if free is None:
            return True
        os.close(free)
    return False


def _repair_layer(store: Store, problem: Problem) -> None:
    key = LayerKey(Digest(problem.name))
    store.index.forget_layers([key], "`cache check` found it damaged")
    try:
        os.rename(store.layer_dir(key), store.trash / f"damaged.{hexadecimal(key)[:16]}.{unique()}")
    except FileNotFoundError:
        pass  # that was the problem


def _repair_blob(store: Store, problem: Problem) -> None:
    path = store.home / problem.name
    try:
        path = store.blobs.path(problem.name)
    except ValueError:
        pass  # it has no package's name, and is named by its place
    if path.is_dir():
        os.rename(path, store.trash / f"damaged.{unique()}")
    else:
        path.unlink(missing_ok=True)


def _repair_snapshot(store: Store, problem: Problem) -> None:
    record = store.index.snapshot(problem.name)
    if record is not None:
        text = json.dumps(snapshot_document(record), sort_keys=True, indent=1)
        write_atomically(store.snapshots / f"{record.slug}.json", f"{text}\n".encode())


def _repair_volume(store: Store, problem: Problem) -> None:
    record = store.index.volumes.find(problem.name)
    if record is not None:
        store.index.volumes.update(record)


def _repair_index(store: Store, _problem: Problem) -> None:
    store.index.start_over()


_REPAIRS = {
    "index": _repair_index,
    "layer": _repair_layer,
    "package": _repair_blob,
    "snapshot": _repair_snapshot,
    "volume": _repair_volume,
}


def after_repair(before: Checked, after: Checked, repaired: Sequence[Problem]) -> Checked:
    """What is wrong after a repair: what is found now, and what the first look found beyond the structure."""
    left = [each for each in before.problems if each not in repaired and each not in after.problems]
    return replace(after, problems=(*after.problems, *left), repaired=tuple(repaired))


def _entries(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in sorted(os.listdir(directory))]
    except FileNotFoundError:
        return []


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
