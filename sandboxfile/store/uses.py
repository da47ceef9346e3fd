"""What living clients use, so that gc never takes it from under them.

Each client has one file that it holds locked while it lives, and that names what it uses. Naming something
takes the lock `gc` shared, gc takes it alone: what is present after `hold` returned stays present.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.declared import dataclass
from sandboxfile.store.atomic import unique
from sandboxfile.store.failure import reported
from sandboxfile.store.locks import Locks, acquire, try_acquire

GC = "gc"
"""The lock between those who name what they use and the gc."""


@dataclass(frozen=True)
class Used:
    """Keys of layers, sha256s of blobs and names of indexes that living clients use; how many clients."""

    clients: int = 0
    layers: frozenset[LayerKey] = frozenset()
    blobs: frozenset[str] = frozenset()
    indexes: frozenset[str] = frozenset()


class Uses:
    """What this client uses."""

    def __init__(self, locks: Locks) -> None:
        self._locks = locks
        self._path = locks.directory / "uses" / unique()
        self._descriptor = -1
        self._counts: Counter[tuple[str, str]] = Counter()
        self._mutex = threading.Lock()

    def hold(
        self,
        *,
        layers: Iterable[LayerKey] = (),
        blobs: Iterable[str] = (),
        indexes: Iterable[str] = (),
    ) -> Hold:
        """Keep these from gc until the hold is released or this process ends. They need not exist yet: a
        build holds what it is going to make. Without anything named, it says that a client is at work, which
        keeps what was used in the last hour. StoreError."""
        names: list[tuple[str, str]] = [("layers", key) for key in layers]
        names += [("blobs", sha256) for sha256 in blobs]
        names += [("indexes", name) for name in indexes]
        self._change(names, 1)
        return Hold(self, names)

    def close(self) -> None:
        """Release every hold."""
        with self._mutex:
            self._counts.clear()
            if self._descriptor >= 0:
                self._path.unlink(missing_ok=True)
                os.close(self._descriptor)
                self._descriptor = -1

    def _change(self, names: list[tuple[str, str]], by: int) -> None:
        with self._mutex, self._locks.lock(GC, shared=True), reported("noting what is in use"):
            changed = self._counts.copy()
            for name in names:
                changed[name] += by
            changed = +changed
            if self._descriptor < 0 or changed.keys() != self._counts.keys():
                self._write(changed.keys())
            self._counts = changed

    def _write(self, names: Iterable[tuple[str, str]]) -> None:
        if self._descriptor < 0:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._descriptor = acquire(self._path, fcntl.LOCK_EX)
        document: dict[str, list[str]] = {"layers": [], "blobs": [], "indexes": []}
        for kind, name in names:
            document[kind].append(name)
        content = json.dumps(document).encode()
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))


class Hold:
    """Something kept from gc; a context manager."""

    def __init__(self, uses: Uses, names: list[tuple[str, str]]) -> None:
        self._uses = uses
        self._names = names

    def release(self) -> None:
        """Let gc have it. May be called twice."""
        names, self._names = self._names, []
        if names:
            self._uses._change(names, -1)

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def used_by_the_living(locks: Locks) -> Used:
    """What all living clients use; the files of dead ones are removed. Needs the lock `gc`, alone."""
    clients = 0
    found: dict[str, set[str]] = {"layers": set(), "blobs": set(), "indexes": set()}
    with reported("reading what is in use"):
        directory = locks.directory / "uses"
        for name in os.listdir(directory):
            path = directory / name
            dead = try_acquire(path, fcntl.LOCK_EX, create=False)
            if dead is not None:
                path.unlink(missing_ok=True)
                os.close(dead)
                continue
            clients += 1
            for kind, names in _document(path).items():
                found[kind].update(names)
    return Used(
        clients,
        frozenset(LayerKey(Digest(key)) for key in found["layers"]),
        frozenset(found["blobs"]),
        frozenset(found["indexes"]),
    )


def _document(path: Path) -> dict[str, list[str]]:
    """What a living client's file says. One that has just been made says nothing yet, or only who made it."""
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
