"""The sandboxes that run, of every client of a store: one file each, which its client holds locked for as
long as it lives. The kernel drops the lock with the client, so a file without it speaks of the dead.

A detached sandbox has a client of its own (its keeper), and beside its file the socket where that is asked.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from sandboxfile.declared import dataclass
from sandboxfile.store.failure import reported
from sandboxfile.store.locks import acquire, try_acquire
from sandboxfile.store.names import new_id

_ENDING = ".json"


@dataclass(frozen=True)
class SandboxInfo:
    """A sandbox that runs. Times are seconds since the epoch.

    root:     slug of the volume or snapshot it was made from
    ends_at:  when it ends by itself, None when it lasts as long as its client, or until somebody ends it
    url:      where its first exposed port is
    client:   process id of the client that has it; of a detached sandbox, of the process that keeps it
    detached: whether it goes on without the client that made it, and every client can connect to it
    """

    id: str
    root: str
    created_at: float
    labels: Mapping[str, str] = field(default_factory=dict)
    ends_at: float | None = None
    url: str | None = None
    client: int = 0
    detached: bool = False


class Entry:
    """The file of one sandbox of this client. In a store that cannot be written there is none: what runs from
    there is not listed."""

    def __init__(self, directory: Path, info: SandboxInfo) -> None:
        self.info = info
        self._path = directory / f"{info.id}{_ENDING}"
        self._descriptor = -1
        if os.access(directory, os.W_OK):
            with reported("noting a sandbox"):
                self._descriptor = acquire(self._path, fcntl.LOCK_EX)
        self.write(info)

    def write(self, info: SandboxInfo) -> None:
        """Say something new of it."""
        self.info = info
        if self._descriptor < 0:
            return
        content = json.dumps(asdict(info)).encode()
        with reported("noting a sandbox"):
            os.pwrite(self._descriptor, content, 0)
            os.ftruncate(self._descriptor, len(content))

    def remove(self) -> None:
        """It has ended. May be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(descriptor)


def list_here(directory: Path, root: str) -> Entry:
    """List a sandbox of this process that has no handle of its own. The caller removes the entry."""
    return Entry(directory, SandboxInfo(new_id("sbx"), root, time.time(), client=os.getpid()))


def running(directory: Path) -> tuple[SandboxInfo, ...]:
    """Every sandbox whose client lives, newest first. Files of dead clients are removed."""
    found = []
    with reported("looking at the sandboxes"):
        for name in sorted(os.listdir(directory)):
            if not name.endswith(_ENDING):
                continue
            path = directory / name
            dead = try_acquire(path, fcntl.LOCK_EX, create=False)
            if dead is not None:
                # The socket first: it is found by this file alone.
                socket_of(directory, name.removesuffix(_ENDING)).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                os.close(dead)
                continue
            info = read(directory, name.removesuffix(_ENDING))
            if info is not None:
                found.append(info)
    return tuple(sorted(found, key=lambda info: (-info.created_at, info.id)))


def read(directory: Path, sandbox: str) -> SandboxInfo | None:
    """What a living client's file says; None while it is being written, or when it is gone."""
    try:
        document: Any = json.loads((directory / f"{sandbox}{_ENDING}").read_bytes())
        return SandboxInfo(**document)
    except (OSError, ValueError, TypeError):
        return None


def socket_of(directory: Path, sandbox: str) -> Path:
    """Where a detached sandbox is reached."""
    return directory / f"{sandbox}.socket"
