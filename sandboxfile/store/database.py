"""The SQLite file under the index: opening, migrating, transactions, and starting over when it is damaged.

A damaged file is moved aside and a new one is filled from what the store's directories say. A new file is
made beside its place and renamed in, so that no process ever sees one that is half filled. Each operation
looks whether its connection is still to the file of that name, so that every process follows at once.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from sandboxfile.errors import StoreError
from sandboxfile.store.atomic import sync_directory, unique
from sandboxfile.store.failure import FREE_SPACE, reported
from sandboxfile.store.faults import point
from sandboxfile.store.schema import MIGRATIONS

T = TypeVar("T")

BUSY_SECONDS = 30.0
DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})


class Database:
    """A SQLite file in WAL mode.

    guard:   gives a context in which no other process makes or replaces the file
    restore: fills a new file from the store's directories, and says in a few words what it found
    """

    def __init__(
        self,
        path: Path,
        *,
        guard: Callable[[], AbstractContextManager[None]],
        restore: Callable[[sqlite3.Connection], str],
        migrations: tuple[tuple[str, ...], ...] = MIGRATIONS,
    ) -> None:
        self.path = path
        self.notices: list[str] = []
        self._guard = guard
        self._restore = restore
        self._migrations = migrations
        self._mutex = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` reads from the database. StoreError."""
        return self._attempt(work)

    def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Run `work` as one transaction, which may run again from its start when the file turns out to be
        damaged. With `durable` it survives a loss of power once this returns. StoreError."""

        def transaction(connection: sqlite3.Connection) -> T:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                point("index:written")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            point("index:committed")
            return result

        with self._mutex:
            result = self._attempt(transaction)
            while self._identity != self._identity_on_disk():
                # Another process replaced the file as damaged while we wrote into the old one.
                result = self._attempt(transaction)
            return result

    def close(self) -> None:
        """Close the file; the next operation opens it again."""
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
                self._identity = None

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._mutex:
            started_over = False
            while True:
                try:
                    return work(self._connected())
                except sqlite3.Error as error:
                    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                    if code == sqlite3.SQLITE_CANTOPEN and not self.path.exists():
                        continue  # another process is replacing it: making it waits for that
                    if code not in DAMAGED or started_over:
                        raise _failure(error, code, self.path) from error
                    started_over = True
                    self._start_over()

    def _connected(self) -> sqlite3.Connection:
        identity = self._identity_on_disk()
        if self._connection is not None and identity == self._identity:
            return self._connection
        self.close()
        while identity is None:
            with self._guard():
                self._make()
            identity = self._identity_on_disk()
        self._identity = identity
        self._connection = connection = self._connect(self.path, "rw")
        if self._version(connection) != len(self._migrations):
            with self._guard():
                self._migrate(connection)
        return connection

    def _identity_on_disk(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _connect(self, path: Path, mode: str) -> sqlite3.Connection:
        quoted = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        return sqlite3.connect(
            f"file:{quoted}?mode={mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )

    def _version(self, connection: sqlite3.Connection) -> int:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(self._migrations):
            raise StoreError(
                "the store's index was written by a newer version of sandboxfile",
                hint="upgrade sandboxfile, or set SANDBOXFILE_HOME to another directory",
            )
        if version == 0:  # an empty file: a database of ours always has a version
            error = sqlite3.DatabaseError("the index is empty")
            error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
            raise error
        return int(version)

    def _migrate(self, connection: sqlite3.Connection, *, fresh: bool = False) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            done = 0 if fresh else self._version(connection)
            for statements in self._migrations[done:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(self._migrations)}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _make(self) -> str:
        """Make the file, filled from the directories, unless it is there. Needs the guard."""
        if self.path.exists():
            return ""
        with reported("making the store's index"):
            for left in self.path.parent.glob(f"{self.path.name}.new-*"):
                left.unlink(missing_ok=True)
            # A log of writes that belongs to no file any more would be replayed into the new one.
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            beside = self.path.with_name(f"{self.path.name}.new-{unique()}")
            connection = self._connect(beside, "rwc")
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                self._migrate(connection, fresh=True)
                connection.execute("BEGIN IMMEDIATE")
                found = self._restore(connection)
                connection.execute("COMMIT")
            finally:
                connection.close()
            point("index:built")
            os.replace(beside, self.path)
            sync_directory(self.path.parent)
        return found

    def _start_over(self) -> None:
        """Move the damaged file aside and make a new one, unless another process did."""
        damaged = self._identity
        self.close()
        with self._guard():
            if damaged is None or damaged != self._identity_on_disk():
                return
            with reported("moving the damaged index aside"):
                aside = self._free_name()
                for suffix in ("-wal", "-shm"):
                    if os.path.exists(f"{self.path}{suffix}"):
                        os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
                os.replace(self.path, aside)
            point("index:moved")
            found = self._make()
        self.notices.append(
            f"the store's index was damaged; it was kept as {aside.name} and made anew ({found})"
        )

    def _free_name(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        return aside


def _failure(error: sqlite3.Error, code: int, path: Path) -> StoreError:
    if code == sqlite3.SQLITE_FULL:
        return StoreError("the disk is full; it happened while writing the store's index", hint=FREE_SPACE)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(
            f"another process kept the store's index locked for {BUSY_SECONDS:.0f} seconds ({path})"
        )
    if code == sqlite3.SQLITE_READONLY:
        return StoreError(f"the store's index cannot be written to ({path})")
    return StoreError(f"the store's index cannot be used: {error} ({path})")
