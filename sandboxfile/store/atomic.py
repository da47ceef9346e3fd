"""Files that are there whole or not at all, whatever ends the process."""

from __future__ import annotations

import os
from pathlib import Path

from sandboxfile.store.faults import point

TEMPORARY = "."
"""How the names of unfinished files begin, so that gc knows them."""


def unique() -> str:
    """A name nobody else uses: the process id and 48 random bits."""
    return f"{os.getpid()}-{os.urandom(6).hex()}"


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Make `path` a file of this content, on disk when the call returns (unless it need not be `durable`: a
    loss of power may then leave any content). Raises OSError, and leaves nothing behind then."""
    beside = path.with_name(f"{TEMPORARY}{path.name}.{unique()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            if durable:
                os.fsync(descriptor)
        point("atomic:written")
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    point("atomic:renamed")
    if durable:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Put a directory's entries on disk, so that a rename survives a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
