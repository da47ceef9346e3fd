"""Digests of files of this machine, remembered by what the kernel says about each file.

Whether a file had settled when it was hashed is the hasher's to judge; this only remembers.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import NamedTuple, Protocol

from sandboxfile.store.database import Database

BATCH = 256


class FileStat(Protocol):
    """What must be unchanged for a digest to be believed; times in nanoseconds. The time of change cannot
    be set by a program, unlike the time of modification."""

    @property
    def device(self) -> int: ...
    @property
    def inode(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def ctime_ns(self) -> int: ...


class _Row(NamedTuple):
    file: str
    size: int
    mtime_ns: int
    ctime_ns: int


class StatCache:
    """Remembers sha256s by FileStat. What is put is written in batches, and at the latest by `flush`."""

    def __init__(self, database: Database, recorded: float) -> None:
        self._database = database
        self._recorded = recorded
        self._pending: dict[_Row, str] = {}
        self._mutex = threading.Lock()

    def get(self, key: FileStat, /) -> str | None:
        """The digest (hex) remembered for a file, None when there is none or the file was touched since."""
        row = _row(key)
        if row in self._pending:
            return self._pending[row]

        def work(connection: sqlite3.Connection) -> str | None:
            found = connection.execute(
                "SELECT sha256 FROM stats WHERE file = ? AND size = ? AND mtime_ns = ? AND ctime_ns = ?", row
            ).fetchone()
            return None if found is None else str(found[0])

        return self._database.read(work)

    def put(self, key: FileStat, sha256: str, /) -> None:
        """Remember the digest of a file."""
        self._pending[_row(key)] = sha256
        if len(self._pending) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what was put."""
        with self._mutex:
            pending, self._pending = self._pending, {}
            rows = [(*row, sha256, self._recorded) for row, sha256 in pending.items()]
            if rows:
                self._database.note(
                    lambda connection: connection.executemany(
                        "INSERT OR REPLACE INTO stats VALUES (?, ?, ?, ?, ?, ?)", rows
                    )
                )


def _row(key: FileStat) -> _Row:
    # Device and inode as text: either may exceed SQLite's signed integers.
    return _Row(f"{key.device}:{key.inode}", key.size, key.mtime_ns, key.ctime_ns)
