"""The layers on disk: where they are and what their `layer.json` says.

Under the store's home: `layers/<hex of key>/{fs,layer.json}`, `workspaces/<id>/`, `kept/<id>/`,
`placements/<hex>/`, `volumes/<id>/` and `trash/`. Content is in `fs`, owned by the ids of the sandboxes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandboxfile.core.digest import Digest, hexadecimal
from sandboxfile.core.layer import Definition, LayerKey, preimage
from sandboxfile.declared import dataclass
from sandboxfile.engine.base import Committed
from sandboxfile.errors import EngineError, StoreError

VERSION = 1
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_BEING_MADE = 60.0
"""Seconds that a directory with a leading dot is left alone: somebody is making it."""


@dataclass(frozen=True)
class Sealed:
    """What `layer.json` says.

    implied: None unless the layer is detached: the directories that were made on the way to its files
    image:   whether its content is in a file system of its own, in the file `image` in place of `fs`
    """

    committed: Committed
    implied: tuple[str, ...] | None = None
    image: bool = False


@contextmanager
def storing() -> Iterator[None]:
    """Turn what the file system refuses into a StoreError with what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise disk_full() from error
        where = f": {error.filename}" if error.filename else ""
        raise StoreError(f"the store cannot be written: {error.strerror}{where}") from error


def disk_full() -> StoreError:
    """The error for a disk, or a quota, that is used up."""
    return StoreError("the disk is full", hint="free some space, for example with `sandboxfile cache gc`")


class Layers:
    """The layer directories of one store."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.layers = home / "layers"
        self.workspaces = home / "workspaces"
        self.kept = home / "kept"
        self.placements = home / "placements"
        self.volumes = home / "volumes"
        self.trash = home / "trash"
        self._sealed: dict[LayerKey, Sealed] = {}

    def make(self) -> None:
        """Make the directories that are missing."""
        with storing():
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            kept = (self.layers, self.workspaces, self.kept, self.placements, self.volumes, self.trash)
            for directory in kept:
                directory.mkdir(mode=0o700, exist_ok=True)

    def directory(self, key: LayerKey) -> Path:
        """The directory of a layer, there or not."""
        return self.layers / hexadecimal(key)

    def has(self, key: LayerKey) -> bool:
        """Whether the layer is committed."""
        return (self.directory(key) / "layer.json").exists()

    def sealed(self, key: LayerKey) -> Sealed:
        """What is known of a committed layer. Raises EngineError when it is not there."""
        known = self._sealed.get(key)
        if known and self.has(key):
            return known
        try:
            record = json.loads((self.directory(key) / "layer.json").read_bytes())
            implied = record["implied"]
            found = Sealed(
                Committed(
                    key,
                    Digest(record["diff_id"]) if record["diff_id"] else None,
                    record["size"],
                    record["entries"],
                    tuple(record["unreproducible"]),
                ),
                None if implied is None else tuple(implied),
                record.get("image", False),
            )
        except FileNotFoundError:
            raise EngineError(f"layer {key} is not here", hint="build it again") from None
        except (ValueError, KeyError) as error:
            raise EngineError(
                f"layer {key} is damaged", hint="sandboxfile cache gc, then build again"
            ) from error
        self._sealed[key] = found
        return found

    def publish(self, workspace: Path, definition: Definition, key: LayerKey, sealed: Sealed) -> Sealed:
        """Rename `workspace/layer` into place with its record. What is there already stays, and is told."""
        committed = sealed.committed
        record = {
            "version": VERSION,
            "key": key,
            "kind": definition.kind,
            "parents": list(definition.parents),
            "preimage": preimage(definition).decode("ascii"),
            "diff_id": committed.diff_id,
            "size": committed.size,
            "entries": committed.entries,
            "unreproducible": list(committed.unreproducible),
            "created": time.time(),
            "implied": None if sealed.implied is None else list(sealed.implied),
            "image": sealed.image,
        }
        prepared = workspace / "layer"
        write_json(prepared / "layer.json", record)
        sync_directory(prepared)
        try:
            os.rename(prepared, self.directory(key))
        except OSError as error:
            if not self.has(key):
                raise StoreError(f"the layer cannot be put into the store: {error.strerror}") from error
            return self.sealed(key)
        sync_directory(self.layers)
        self._sealed[key] = sealed
        return sealed

    def to_trash(self, path: Path) -> str | None:
        """Rename something into the trash; its new name, None when it was not there."""
        name = os.urandom(8).hex()
        try:
            os.rename(path, self.trash / name)
        except FileNotFoundError:
            return None
        return name


class Owned:
    """A new directory of a living client, whose `owner` file is locked until the client ends."""

    def __init__(self, parent: Path) -> None:
        self.id = os.urandom(8).hex()
        self.path = parent / self.id
        beside = parent / f".{self.id}"
        self._lock = -1
        with storing():
            beside.mkdir(mode=0o700)
            self._lock = os.open(beside / "owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            (beside / "layer").mkdir(mode=0o700)
            (beside / "work").mkdir(mode=0o700)
            os.rename(beside, self.path)

    def release(self) -> None:
        """Let the directory go. May be called twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def is_abandoned(path: Path) -> bool:
    """Whether the client that owned a workspace directory is gone."""
    try:
        if path.name.startswith(".") and time.time() - path.stat().st_mtime < _BEING_MADE:
            return False
        lock = os.open(path / "owner", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return path.name.startswith(".")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def placement_name(layer: LayerKey, below: Sequence[str]) -> str:
    """The name of the placement of a detached layer on the directories below it."""
    text = json.dumps([layer, list(below)])
    import hashlib  # loads OpenSSL

    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, record: dict[str, Any], *, durable: bool = True) -> None:
    """Write a document atomically, and by default so that it outlives the machine's sudden end."""
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    with storing():
        try:
            with open(beside, "w") as file:
                json.dump(record, file, sort_keys=True)
                file.write("\n")
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
