"""Garbage collection carried out, and what the store takes of the disk.

What gc removes is first taken out of its place: records before directories, directories by a rename into
`trash`. A kill in between leaves a layer that is taken in again or trash that the next gc deletes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sandboxfile.core.digest import Digest, is_digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.declared import dataclass
from sandboxfile.errors import StoreError
from sandboxfile.store.atomic import TEMPORARY, unique
from sandboxfile.store.database import LOGS, generations
from sandboxfile.store.failure import reported, store_error
from sandboxfile.store.faults import point
from sandboxfile.store.gc import DAY, GRACE, KEEP_DAYS, Garbage, Item, KeptWorkspace, Survey, collect
from sandboxfile.store.locks import is_owned, try_acquire
from sandboxfile.store.restore import LAYER_DOCUMENT, key_of_directory, read_layer
from sandboxfile.store.store import Store
from sandboxfile.store.uses import GC, used_by_the_living

KINDS = ("layers", "packages", "indexes", "logs", "kept", "volumes", "workspaces", "garbage")


@dataclass(frozen=True)
class Swept:
    """What a gc took out, or would take out. `sizes` is bytes by kind and in `total`."""

    garbage: Garbage
    sizes: Mapping[str, int]


def survey(store: Store) -> Survey:
    """What there is in a store. Needs the lock `gc`, alone."""
    index = store.index
    index.adopt_layers()
    with reported("looking through the store"):
        used = used_by_the_living(store.locks)
        return Survey(
            # The lock `gc` is our own.
            busy=used.clients > 0 or store.locks.held() > 1,
            layers=index.layers(),
            snapshots=index.snapshots(),
            volumes=index.volumes.all(),
            heads=index.heads(),
            failures=index.failures(),
            used=used,
            workspaces=tuple(map(_workspace, _entries(store.workspaces))),
            kept=tuple(map(_workspace, _entries(store.kept))),
            blobs=_blobs(store),
            indexes=tuple(map(_item, _entries(store.indexes))),
            logs=tuple(map(_item, _entries(store.logs))),
            staging=tuple(map(_item, _entries(store.staging))),
            strays=tuple(_item(entry) for entry in _entries(store.layers) if not _is_layer(entry)),
        )


def sweep(store: Store, *, keep_days: float = KEEP_DAYS, dry_run: bool = False) -> Swept:
    """Take out of their places what nothing needs and what killed clients left.

    Directories end in `trash`: delete them with `empty_trash`, or each of `trash_entries` with the engine,
    which alone may delete what a sandbox's users own. With `dry_run` nothing is changed. StoreError.
    """
    now = store.clock()
    with store.locks.lock(GC):
        found = survey(store)
        garbage = collect(found, now=now, keep_days=keep_days)
        sizes = _known_sizes(found, garbage)
        places = [("garbage", path) for path in _entries(store.trash)]
        if dry_run:
            places += _directories(store, garbage)
            sizes["garbage"] += _dead_incoming(store, remove=False)
        else:
            sizes["garbage"] += _dead_incoming(store, remove=True)
            places += _take_out(store, garbage)
            store.index.remove_stray_snapshot_files()
            store.index.forget_older(now - keep_days * DAY)
            _remove_damaged_indexes(store.home, before=now - keep_days * DAY)
            _remove_unfinished(store.home, before=now - GRACE)
    if not dry_run:
        store.locks.remove_unheld()
    for kind, path in places:
        sizes[kind] += tree_size(path)
    sizes["total"] = sum(sizes.values())
    return Swept(garbage, sizes)


def trash_entries(store: Store) -> tuple[Path, ...]:
    """What waits to be deleted."""
    with reported("reading the trash"):
        return tuple(_entries(store.trash))


def empty_trash(store: Store, delete_tree: Callable[[Path], None] | None = None) -> None:
    """Delete what gc took out. `delete_tree` deletes a directory that may hold other users' files; without
    it this process's rights must do. What cannot be deleted stays, and is then named in a StoreError."""
    problem: StoreError | None = None
    for path in trash_entries(store):
        try:
            (delete_tree or _delete_tree)(path)
        except FileNotFoundError:  # another gc was faster
            continue
        except OSError as error:
            problem = problem or store_error(error, "deleting what gc took out")
        point("gc:deleted")
    if problem is not None:
        raise problem


def disk_usage(store: Store) -> dict[str, int]:
    """Bytes by kind (see KINDS, and `other` for the rest) and in `total`. What this process may not look
    into is not counted, but layers always are: their size is in the index."""
    sizes = dict.fromkeys(KINDS, 0)
    store.index.adopt_layers()
    with reported("looking through the store"):
        records = store.index.layers()
        sizes["layers"] = sum(r.size for key, r in records.items() if store.layer_dir(key).is_dir())
        sizes["layers"] += tree_size(store.placements)
        sizes["packages"] = tree_size(store.blobs.directory / "sha256")
        sizes["indexes"] = tree_size(store.indexes)
        sizes["logs"] = tree_size(store.logs)
        sizes["kept"] = tree_size(store.kept)
        sizes["volumes"] = tree_size(store.volumes)
        for path in _entries(store.workspaces):
            sizes["garbage" if is_owned(path) is False else "workspaces"] += tree_size(path)
        sizes["garbage"] += sum(map(tree_size, _entries(store.trash)))
        sizes["garbage"] += _dead_incoming(store, remove=False)
        counted = (
            "layers",
            "placements",
            "blobs",
            "indexes",
            "logs",
            "kept",
            "volumes",
            "workspaces",
            "trash",
        )
        sizes["other"] = sum(tree_size(path) for path in _entries(store.home) if path.name not in counted)
    sizes["total"] = sum(sizes.values())
    return sizes


def tree_size(path: Path) -> int:
    """Bytes of the files below a path (or of the file itself), links not followed, a file of several names
    counted once. A layer in the trash says its size itself; what may not be read counts as nothing."""
    document = _json(path / LAYER_DOCUMENT)
    if isinstance(document, dict) and isinstance(document.get("size"), int):
        return int(document["size"])
    total, seen, ahead = 0, set(), [os.fspath(path)]
    while ahead:
        here = ahead.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        ahead.append(entry.path)
                        continue
                    found = entry.stat(follow_symlinks=False)
                    if found.st_nlink > 1:
                        if (found.st_dev, found.st_ino) in seen:
                            continue
                        seen.add((found.st_dev, found.st_ino))
                    total += found.st_size
        except NotADirectoryError:
            total += _size(Path(here))
        except (FileNotFoundError, PermissionError):
            continue
    return total


def _take_out(store: Store, garbage: Garbage) -> list[tuple[str, Path]]:
    """Remove garbage from its places; the directories' new places, by kind."""
    taken: list[tuple[str, Path]] = []
    store.index.forget_layers(garbage.layers)
    point("gc:forgotten")
    with reported("taking out what is not needed"):
        for key in garbage.layers:
            _to_trash(store, store.layer_dir(key))
        for kind, path in _directories(store, garbage):
            target = _to_trash(store, path)
            if target is not None:
                taken.append((kind, target))
        for sha256 in garbage.blobs:
            store.blobs.path(sha256).unlink(missing_ok=True)
        for name in garbage.logs:
            (store.logs / name).unlink(missing_ok=True)
    return taken


def _to_trash(store: Store, path: Path) -> Path | None:
    """Where something is now; None when it went by itself."""
    target = store.trash / f"{path.name.lstrip('.')}.{unique()}"
    try:
        os.rename(path, target)
    except FileNotFoundError:
        return None
    point("gc:moved")
    return target


def _directories(store: Store, garbage: Garbage) -> list[tuple[str, Path]]:
    """The directories to remove, except those of layers, whose sizes are known."""
    return [
        *(("indexes", store.indexes / name) for name in garbage.indexes),
        *(("garbage", store.workspaces / name) for name in garbage.workspaces),
        *(("kept", store.kept / name) for name in garbage.kept),
        *(("garbage", store.staging / name) for name in garbage.staging),
        *(("garbage", store.layers / name) for name in garbage.strays),
    ]


def _known_sizes(found: Survey, garbage: Garbage) -> dict[str, int]:
    sizes = dict.fromkeys(KINDS, 0)
    sizes["layers"] = sum(found.layers[key].size for key in garbage.layers)
    blobs, logs = frozenset(garbage.blobs), frozenset(garbage.logs)
    sizes["packages"] = sum(item.size for item in found.blobs if item.name in blobs)
    sizes["logs"] = sum(item.size for item in found.logs if item.name in logs)
    return sizes


def _dead_incoming(store: Store, *, remove: bool) -> int:
    """Bytes of the blobs on their way in whose writer is dead; removes them if asked."""
    size = 0
    with reported("looking at files on their way in"):
        for path in _entries(store.blobs.incoming):
            held = try_acquire(path, fcntl.LOCK_EX, create=False)
            if held is not None:
                size += _size(path)
                if remove:
                    path.unlink(missing_ok=True)
                os.close(held)
    return size


def _remove_damaged_indexes(home: Path, *, before: float) -> None:
    """Remove the files that a newer generation of the index took the place of."""
    with reported("removing old damaged indexes"):
        found = generations(home)
        for generation in sorted(found)[:-1]:
            path = found[generation]
            if path.stat().st_mtime >= before:
                break  # no gap: whoever has this one open looks for the next
            for each in (path, *(Path(f"{path}{suffix}") for suffix in LOGS)):
                each.unlink(missing_ok=True)


def _remove_unfinished(home: Path, *, before: float) -> None:
    with reported("removing what was left in the store"):
        for path in home.glob(f"{TEMPORARY}VERSION.*"):
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)


def _entries(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in sorted(os.listdir(directory))]
    except FileNotFoundError:
        return []


def _item(path: Path) -> Item:
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return Item(path.name, 0.0)
    return Item(path.name, found.st_mtime, found.st_size)


def _workspace(path: Path) -> KeptWorkspace:
    return KeptWorkspace(path.name, _stack(path), _item(path).used, is_owned(path))


def _blobs(store: Store) -> tuple[Item, ...]:
    items = []
    for directory in _entries(store.blobs.directory / "sha256"):
        for path in _entries(directory):
            item = _item(path)
            items.append(Item(f"{directory.name}{path.name}", item.used, item.size))
    return tuple(items)


def _is_layer(path: Path) -> bool:
    key = key_of_directory(path.name)
    return key is not None and read_layer(path.parent, key) is not None


def _stack(workspace: Path) -> tuple[LayerKey, ...]:
    """What a workspace stands on, from the state its engine wrote beside it."""
    document = _json(workspace / "state.json")
    stack = document.get("stack", ()) if isinstance(document, dict) else ()
    keys: Iterable[Any] = stack if isinstance(stack, list) else ()
    return tuple(LayerKey(Digest(key)) for key in keys if isinstance(key, str) and is_digest(key))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _size(path: Path) -> int:
    try:
        return path.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def _delete_tree(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
