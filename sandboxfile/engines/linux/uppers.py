"""What a sandbox writes to: a throw-away layer or a volume for its root, and volumes at other paths."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sandboxfile.core.layer import LayerKey
from sandboxfile.engines.linux.layers import Owned
from sandboxfile.engines.linux.operations import (
    BindMount,
    MakeDirectory,
    MemoryMount,
    Operation,
    OverlayMount,
)
from sandboxfile.engines.linux.runtimespec import BoundMount
from sandboxfile.engines.linux.volumes import Attached
from sandboxfile.errors import EngineError, UsageError

if TYPE_CHECKING:
    from sandboxfile.engines.linux.engine import LinuxEngine


_RESERVED = ("/proc", "/sys", "/dev", "/run/sandboxfile", "/run/secrets")


def check_mountpoint(path: str) -> None:
    """Raise UsageError for a path where no volume can be."""
    if not path.startswith("/") or path != os.path.normpath(path) or path.startswith("//") or path == "/":
        raise UsageError(
            f"a volume is mounted at an absolute path below /, without `.` and `..`, not at `{path}`"
        )
    for reserved in _RESERVED:
        if path == reserved or path.startswith(reserved + "/"):
            raise UsageError(f"no volume can be mounted at {path}: {reserved} is the sandbox's own")


class Uppers:
    """The writable directories of one sandbox, from before it is made until after it has ended.

    upper, work: of the overlay that is its root; `making` makes them, below `here`
    mounts:      volumes that it sees at paths of their own
    """

    def __init__(self, engine: LinuxEngine) -> None:
        self._engine = engine
        self._root: Attached | None = None
        self._others: list[tuple[str, Attached, list[str]]] = []
        self._owned: Owned | None = None
        self.upper = ""
        self.work = ""
        self.making: list[Operation] = []
        self.mounts: list[BoundMount] = []

    @property
    def stack(self) -> tuple[LayerKey, ...] | None:
        """The layers below the volume of the root; None when it writes to a throw-away layer."""
        return self._root.volume.stack if self._root else None

    @property
    def persistent(self) -> bool:
        """Whether something that is written stays."""
        return self._root is not None or bool(self._others)

    @property
    def watched(self) -> list[tuple[str, int]]:
        """Directories whose size somebody has to watch, and the size."""
        volumes = [self._root] if self._root else []
        volumes += [each for _, each, _ in self._others]
        return [(each.upper, each.watched) for each in volumes if each.watched is not None]

    async def take(self, root: str | None, others: dict[str, str]) -> None:
        """Take the volumes: one for the root, others by path. Raises NoSuchVolume, VolumeInUse."""
        volumes = self._engine.volumes
        for path in others:
            check_mountpoint(path)
        if root is not None:
            self._root = await volumes.attach(root)
        for path in sorted(others):
            attached = await volumes.attach(others[path])
            self._others.append((path, attached, []))
            directories = await self._engine.stacks.directories(attached.volume.stack)
            if directories:
                lowers = await self._engine.stacks.lowers(directories, writable=True)
                self._others[-1][2].extend(lowers)

    def prepare(self, here: str, disk: int | None) -> None:
        """Decide on the directories; `disk` is the size of a throw-away layer in memory."""
        if self._root:
            self.upper, self.work = self._root.upper, self._root.work
        elif self._engine.helper.memory_uppers:
            memory = f"{here}/memory"
            self.upper, self.work = f"{memory}/upper", f"{memory}/work"
            self.making = [
                MemoryMount(memory, disk),
                MakeDirectory(self.upper, guest=True),
                MakeDirectory(self.work),
            ]
        else:
            self._owned = Owned(self._engine.layers.workspaces)
            self.upper, self.work = str(self._owned.path / "layer" / "fs"), str(self._owned.path / "work")
            self.making = [MakeDirectory(self.upper, guest=True)]
        for number, (path, attached, lowers) in enumerate(self._others):
            # Below the helper's memory: the runtime's ids cannot walk through the store.
            source = f"{here}/volumes/{number}"
            if lowers:
                self.making.append(OverlayMount(source, lowers, attached.upper, attached.work))
            else:
                self.making.append(BindMount(attached.upper, source, readonly=False))
            self.mounts.append(BoundMount(source, path, writable=True))

    def upper_of(self, path: str) -> str:
        """The directory that a volume writes to which is mounted at a path. Raises EngineError."""
        for each, attached, _ in self._others:
            if each == path:
                return attached.upper
        raise EngineError(f"no volume is mounted at {path}")

    async def release(self) -> None:
        """Give everything back, when no mount uses it any more. May be called twice."""
        owned, self._owned = self._owned, None
        attached = [each for _, each, _ in self._others] + ([self._root] if self._root else [])
        self._others, self._root = [], None
        failures: list[EngineError] = []
        for each in attached:
            try:
                await self._engine.volumes.detach(each)
            except EngineError as error:
                failures.append(error)
        if owned:
            await self._engine.delete_tree(owned.path)
            owned.release()
        if failures:
            raise failures[0]
