"""The SQLite file under the index: opening, migrating, transactions, and starting over when it is damaged.

A damaged file stays where it is and a new generation is made beside it, filled from what the store's
directories say: `index.sqlite`, then `index.2.sqlite`, and so on; the highest is the index. SQLite removes
the log of a file *by name* when the last connection to it is closed, so a file that others may have open must
never be replaced under its name. A new file is made under another name and renamed in, so that no process
sees one that is half filled. Each operation looks for a newer generation, so that every process follows.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sandboxfile.errors import StoreError
from sandboxfile.store.atomic import sync_directory, unique
from sandboxfile.store.failure import FREE_SPACE, read_only_store, reported
from sandboxfile.store.faults import point
from sandboxfile.store.schema import MIGRATIONS

if TYPE_CHECKING:
    import tempfile

T = TypeVar("T")

BUSY_SECONDS = 30.0
ATTEMPTS = 3
"""How often one operation starts over."""
LOGS = ("-wal", "-shm")
UNFINISHED = "index.new-"
DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})


class Database:
    """SQLite files in WAL mode, of which the newest generation counts.

    directory: where they are
    guard:   gives a context in which no other process makes a file
    restore: fills a new file from the store's directories, and says in a few words what it found
    read_only: whether nothing can be written where they are
    """

    def __init__(
        self,
        directory: Path,
        *,
        guard: Callable[[], AbstractContextManager[None]],
        restore: Callable[[sqlite3.Connection], str],
        migrations: tuple[tuple[str, ...], ...] = MIGRATIONS,
        read_only: bool = False,
    ) -> None:
        self.notices: list[str] = []
        self.read_only = read_only
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._directory = directory
        self._guard = guard
        self._restore = restore
        self._migrations = migrations
        self._mutex = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._generation = 0
        self._names = ("", "")
        self._identity: tuple[int, int] | None = None

    @property
    def path(self) -> Path:
        """The file that counts."""
        return self._path(max(self._newest(), 1))

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` reads from the database. StoreError."""
        return self._attempt(work)

    def note(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Like `write`, for what costs time and nothing else when it is lost: a read-only store goes
        without."""
        if not self.read_only:
            self.write(work)

    def damage(self, *, full: bool) -> str | None:
        """What SQLite finds wrong with the file, None when it is whole."""

        def work(connection: sqlite3.Connection) -> str | None:
            pragma = "integrity_check" if full else "quick_check"
            (found,) = connection.execute(f"PRAGMA {pragma}(1)").fetchone()
            return None if found == "ok" else str(found)

        return self.read(work)

    def start_over(self) -> None:
        """Leave the file as it is and make the next generation."""
        with self._mutex:
            self._start_over()

    def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Run `work` as one transaction, which may run again from its start when the file turns out to be
        damaged. With `durable` it survives a loss of power once this returns. StoreError."""

        if self.read_only:
            raise read_only_store("writing the store's index")

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
            while not self._is_current():
                # Another process found the file damaged while we wrote into it.
                result = self._attempt(transaction)
            return result

    def close(self) -> None:
        """Close the file; the next operation opens it again."""
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
                self._identity = None
            if self._copy is not None:
                self._copy.cleanup()
                self._copy = None

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._mutex:
            damages = 0
            while True:
                try:
                    return work(self._connected())
                except sqlite3.Error as error:
                    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                    damages += 1
                    if code not in DAMAGED or damages == ATTEMPTS:
                        raise _failure(error, code, self._path(self._generation)) from error
                    self._start_over()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_current():
            return self._connection
        self.close()
        self._generation = max(self._newest(), 1)
        path = self._path(self._generation)
        self._names = str(path), str(self._path(self._generation + 1))
        if self.read_only:
            return self._connected_for_reading(path)
        if not path.exists():
            with self._guard():
                self._make(path)
        self._identity = _identity(path)
        self._connection = connection = self._connect(path, "rw")
        if self._version(connection) != len(self._migrations):
            with self._guard():
                self._migrate(connection)
        return connection

    def _connected_for_reading(self, path: Path) -> sqlite3.Connection:
        """A connection that writes nothing beside the file. What is still in a log is seen in a copy: SQLite
        cannot use a log where it cannot write."""
        if not path.exists():
            raise read_only_store("making the store's index")
        self._identity = _identity(path)
        log = Path(f"{path}{LOGS[0]}")
        mode = "ro&immutable=1"
        with reported("reading the store's index"):
            if log.exists() and log.stat().st_size > 0:
                import shutil
                import tempfile

                self._copy = tempfile.TemporaryDirectory(prefix="sandboxfile-index-")
                for each in (path, log):
                    shutil.copyfile(each, Path(self._copy.name) / each.name)
                path, mode = Path(self._copy.name) / path.name, "rw"
        self._connection = connection = self._connect(path, mode)
        version = self._version(connection)
        if version != len(self._migrations):
            raise StoreError(
                f"the store's index is of an older version of sandboxfile ({version}), and the store is "
                "read-only",
                hint="use the store once where it can be written to, or set SANDBOXFILE_HOME to another one",
            )
        return connection

    def _is_current(self) -> bool:
        """Whether the open file is the one that counts."""
        # Asked before each operation, a hundred thousand times for a large context: texts, not paths.
        open_file, next_file = self._names
        return not os.path.exists(next_file) and self._identity == _identity(open_file)

    def _path(self, generation: int) -> Path:
        return self._directory / ("index.sqlite" if generation < 2 else f"index.{generation}.sqlite")

    def _newest(self) -> int:
        """The highest generation there is, 0 for none."""
        return max(generations(self._directory), default=0)

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
                "the store's index was written by a newer version of sandboxfile "
                f"(index {version}; this one knows up to {len(self._migrations)})",
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

    def _make(self, path: Path) -> str:
        """Make a file, filled from the directories, unless it is there; what was found. Needs the guard."""
        if path.exists():
            return ""
        with reported("making the store's index"):
            for left in self._directory.glob(f"{UNFINISHED}*"):
                left.unlink(missing_ok=True)
            # A log that belongs to no file any more would be replayed into the new one.
            for suffix in LOGS:
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            beside = self._directory / f"{UNFINISHED}{unique()}"
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
            os.replace(beside, path)
            sync_directory(self._directory)
        return found

    def _start_over(self) -> None:
        """Make the next generation of the file that was open, unless another process did."""
        if self.read_only:
            raise StoreError(
                f"the store's index is damaged, and the store is read-only ({self._path(self._generation)})",
                hint="use the store once where it can be written to: the index is made anew there",
            )
        damaged = self._generation
        self.close()
        with self._guard():
            if self._newest() > damaged:
                return
            point("index:damaged")
            found = self._make(self._path(damaged + 1))
        self.notices.append(
            f"the store's index was damaged; it was left as {self._path(damaged).name} "
            f"and made anew as {self._path(damaged + 1).name} ({found})"
        )


def generations(directory: Path) -> dict[int, Path]:
    """The index files of a store by generation; the highest counts."""
    found = {}
    for name in os.listdir(directory):
        if name == "index.sqlite":
            found[1] = directory / name
        elif name.startswith("index.") and name.endswith(".sqlite") and name[6:-7].isdecimal():
            found[int(name[6:-7])] = directory / name
    return found


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


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
