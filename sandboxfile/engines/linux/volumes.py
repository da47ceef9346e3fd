"""Volumes on disk: what is written to them stays, and one sandbox at a time uses each.

`volumes/<id>/` has `volume.json`, the file `owner` that is locked while a sandbox uses the volume, and
`layer/`, whose `fs` is an overlay's upper directory; `work` is the overlay's. With the back end `image`, the
file `layer/image` holds a file system with both. A volume is frozen into a layer by renaming `layer`, so a
layer is never again what a mounted overlay writes to.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from sandboxfile.core.layer import Definition, LayerKey
from sandboxfile.declared import dataclass, replace
from sandboxfile.engine.base import Committed, Stack
from sandboxfile.engines.linux import disk
from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.idmap import IdMap
from sandboxfile.engines.linux.layers import Layers, Sealed, storing, sync_directory, write_json
from sandboxfile.engines.linux.limits import images_usable
from sandboxfile.engines.linux.operations import MakeDirectory
from sandboxfile.engines.linux.work import work
from sandboxfile.errors import EngineError, LimitNotEnforceable, NoSuchVolume, UsageError, VolumeInUse

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LAST_OWNER_PATIENCE = 10.0
_BEING_MADE = 3600.0


@dataclass(frozen=True)
class Volume:
    """What `volume.json` says.

    stack:    the layers below, lowest first
    capacity: bytes, None for all that the disk has
    backend:  `dir`, whose capacity is at best watched, or `image`, which enforces it
    freezing: the layer that its content was becoming when this was written
    """

    stack: tuple[LayerKey, ...]
    capacity: int | None
    backend: str
    freezing: LayerKey | None = None


@dataclass
class Attached:
    """A volume that a sandbox uses. `upper` and `work` are for an overlay on `volume.stack`; `watched` is the
    capacity that somebody has to watch, because nothing enforces it."""

    id: str
    volume: Volume
    upper: str
    work: str
    mounted: str
    lock: int

    @property
    def watched(self) -> int | None:
        return self.volume.capacity if self.volume.backend == "dir" else None


class Volumes:
    """The volumes of one store."""

    def __init__(self, layers: Layers, helper: Callable[[], HelperClient], ids: Callable[[], IdMap]) -> None:
        self._layers = layers
        self._helper = helper
        self._ids = ids

    def names(self) -> tuple[str, ...]:
        """The ids of all volumes."""
        try:
            found = sorted(os.listdir(self._layers.volumes))
        except FileNotFoundError:
            return ()
        return tuple(name for name in found if not name.startswith("."))

    def stacks(self) -> frozenset[LayerKey]:
        """Every layer that a volume stands on."""
        found: set[LayerKey] = set()
        for name in self.names():
            with contextlib.suppress(NoSuchVolume, EngineError):
                found.update(self.get(name).stack)
        return frozenset(found)

    def get(self, name: str) -> Volume:
        """What is known of a volume. Raises NoSuchVolume."""
        path = self._path(name)
        try:
            record = json.loads((path / "volume.json").read_bytes())
            volume = Volume(
                tuple(record["stack"]), record["capacity"], record["backend"], record.get("freezing")
            )
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchVolume(f"there is no volume {name}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"the record of the volume {name} is damaged") from error
        key = volume.freezing
        if key is not None and self._layers.has(key) and not (path / "layer").exists():
            # Its content had become the layer when its client was killed.
            return replace(volume, stack=(*volume.stack, key), freezing=None)
        return replace(volume, freezing=None)

    async def create(self, name: str, capacity: int | None, stack: Stack, *, best_effort: bool) -> None:
        """Make an empty volume. Raises LimitNotEnforceable, EngineError when it is there."""
        path = self._path(name)
        if capacity is not None and capacity < disk.SMALLEST:
            raise UsageError(f"a volume's capacity is at least {disk.SMALLEST} bytes, not {capacity}")
        self._layers.make()
        for key in stack:
            self._layers.sealed(key)
        backend = "image" if capacity is not None and images_usable() else "dir"
        if capacity is not None and backend == "dir" and not best_effort:
            raise LimitNotEnforceable(
                "a volume's capacity cannot be enforced here: that takes root, loop devices and mkfs.ext4",
                "disk",
                hint='leave the capacity out, or pass `limits="best-effort"` to have it watched',
            )
        volume = Volume(tuple(stack), capacity, backend)
        beside = path.with_name(f".{name}")
        with storing():
            try:
                beside.mkdir(mode=0o700)
            except FileExistsError:
                self._layers.to_trash(beside)
                beside.mkdir(mode=0o700)
            (beside / "work").mkdir(mode=0o700)
            (beside / "owner").touch(mode=0o600)
        try:
            await self._fill(beside, volume)
            write_json(beside / "volume.json", asdict(volume))
            # A directory that is there has something in it, and is not replaced.
            os.rename(beside, path)
        except OSError as error:
            await self._discard(beside)
            if path.exists():
                raise EngineError(f"the volume {name} is there already") from None
            with storing():
                raise error
        except BaseException:
            await self._discard(beside)
            raise
        sync_directory(self._layers.volumes)

    async def _fill(self, path: Path, volume: Volume) -> None:
        """Make the empty disk of a volume that has none yet."""
        layer = path / "layer"
        if layer.exists():
            return
        beside = path / ".layer"
        with storing():
            if beside.exists():
                self._layers.to_trash(beside)
            beside.mkdir(mode=0o700)
            if volume.backend == "image":
                await asyncio.to_thread(disk.make_image, beside / "image", volume.capacity or 0)
        if volume.backend == "dir":
            await self._helper().do(MakeDirectory(str(beside / "fs"), guest=True))
        with storing():
            os.rename(beside, layer)

    async def remove(self, name: str) -> None:
        """Delete a volume. Raises VolumeInUse."""
        path = self._path(name)
        if not path.exists():
            return
        with self._locked(name):
            trashed = self._layers.to_trash(path)
        if trashed:
            await self._empty([trashed])

    async def freeze(self, name: str, definition: Definition, key: LayerKey) -> Committed:
        """Make a layer of what a volume holds; nothing is copied or read. Raises VolumeInUse."""
        path = self._path(name)
        volume = self.get(name)
        if self._layers.has(key):
            return self._layers.sealed(key).committed
        with self._locked(name):
            await self._wait_last_owner(name)
            await self._fill(path, volume)
            image = path / "layer" / "image"
            if volume.backend == "image" and not disk.is_clean(image):
                # The machine went down while it was mounted; mounting it once mends that.
                await self._mount(name, image)
                await self._unmount(name)
            write_json(path / "volume.json", asdict(replace(volume, freezing=key)))
            committed = Committed(key, None, 0, 0)
            sealed = Sealed(committed, None, volume.backend == "image")
            published = self._layers.publish(path, definition, key, sealed)
            self._fresh_work(path)
            # What was written before says the same, now that the layer is there.
            above = replace(volume, stack=(*volume.stack, key))
            write_json(path / "volume.json", asdict(above), durable=False)
        return published.committed

    def _fresh_work(self, path: Path) -> None:
        """Overlay keeps notes in its work directory about the upper one that has just gone."""
        trashed = self._layers.to_trash(path / "work")
        (path / "work").mkdir(mode=0o700)
        if trashed:
            with contextlib.suppress(OSError):
                # Usually it is empty, or has one empty directory in it; `sweep` deletes what is left.
                os.rmdir(self._layers.trash / trashed / "work")
                os.rmdir(self._layers.trash / trashed)

    async def attach(self, name: str) -> Attached:
        """Take a volume for a sandbox. Raises NoSuchVolume, VolumeInUse."""
        path = self._path(name)
        volume = self.get(name)
        lock = self._lock(name)
        try:
            await self._wait_last_owner(name)
            # Somebody may have frozen it before the lock was ours.
            volume = self.get(name)
            helper = self._helper()
            await helper.start()
            self._note_owner(lock, helper.pid)
            await self._fill(path, volume)
            if volume.backend == "dir":
                upper = str(path / "layer" / "fs")
                return Attached(name, volume, upper, str(path / "work"), "", lock)
            mounted = await self._mount(name, path / "layer" / "image")
            return Attached(name, volume, f"{mounted}/fs", f"{mounted}/work", mounted, lock)
        except BaseException:
            _release(lock)
            raise

    async def detach(self, attached: Attached) -> None:
        """Give a volume back when no mount uses it any more."""
        try:
            if attached.mounted and self._helper().running:
                await self._unmount(attached.id)
        finally:
            _release(attached.lock)

    async def _mount(self, name: str, image: Path) -> str:
        target = self._target(name)
        ids = self._ids()
        args = {"image": str(image), "target": target, "guest": (ids.guest_uid, ids.guest_gid)}
        await work(self._helper(), "attach_image", args, mapped=False)
        return target

    async def _unmount(self, name: str) -> None:
        await work(self._helper(), "detach_image", {"target": self._target(name)}, mapped=False)

    def _target(self, name: str) -> str:
        return f"{self._helper().base}/volumes/{name}"

    def leftovers(self) -> list[Path]:
        """Volumes that were never finished, and are not being made now."""
        return [
            path
            for path in self._layers.volumes.iterdir()
            if path.name.startswith(".") and time.time() - path.stat().st_mtime > _BEING_MADE
        ]

    async def _discard(self, path: Path) -> None:
        trashed = self._layers.to_trash(path)
        if trashed:
            await self._empty([trashed])

    async def _empty(self, names: list[str]) -> None:
        await work(
            self._helper(), "delete", {"names": names}, {"parent": str(self._layers.trash)}, mapped=False
        )

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise NoSuchVolume(f"`{name}` is no id of a volume")
        return self._layers.volumes / name

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        lock = self._lock(name)
        try:
            yield
        finally:
            os.close(lock)

    def _lock(self, name: str) -> int:
        try:
            lock = os.open(self._path(name) / "owner", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoSuchVolume(f"there is no volume {name}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise VolumeInUse(
                f"the volume {name} is used by a sandbox", hint="close that sandbox, or use another volume"
            ) from None
        return lock

    async def _wait_last_owner(self, name: str) -> None:
        """A client that was killed lets go of its lock some moments before its mounts are gone."""
        text = (self._path(name) / "owner").read_text().split()
        if len(text) != 2 or _birth(int(text[0])) != text[1]:
            return
        if not await asyncio.to_thread(_ended, int(text[0])):
            raise VolumeInUse(f"the volume {name} is still used by a sandbox of a client that has ended")

    def _note_owner(self, lock: int, pid: int | None) -> None:
        if pid is not None:
            os.pwrite(lock, f"{pid} {_birth(pid)}\n".encode(), 0)


def _release(lock: int) -> None:
    """Let a volume go: nothing of its last owner is left."""
    os.ftruncate(lock, 0)
    os.close(lock)


def _ended(pid: int) -> bool:
    """Wait for the end of a process; whether it came in time."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], _LAST_OWNER_PATIENCE)[0])
    finally:
        os.close(watched)


def _birth(pid: int) -> str:
    """When a process began, in the kernel's ticks since the machine did; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""
