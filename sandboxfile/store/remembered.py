"""The half of the index that is remembered work: its loss costs time, never a result."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sandboxfile.core.digest import Digest
from sandboxfile.store.database import Database
from sandboxfile.store.statcache import StatCache

DAY = 86400.0
CHECKS_KEPT = 180 * DAY


class Remembered:
    """Results of checks, digests of files, and documents that were worked out."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._stat_cache: StatCache | None = None

    def remember_check(self, key: Digest, seconds: float) -> None:
        """Note that a check passed now, and how long it took."""
        row = (key, self._clock(), seconds)
        self._database.note(
            lambda connection: connection.execute("INSERT OR REPLACE INTO checks VALUES (?, ?, ?)", row)
        )

    def passed(self, keys: Iterable[Digest]) -> frozenset[Digest]:
        """Those of the checks that are remembered as passed."""

        def work(connection: sqlite3.Connection) -> frozenset[Digest]:
            query = "SELECT 1 FROM checks WHERE key = ?"
            return frozenset(key for key in keys if connection.execute(query, (key,)).fetchone())

        return self._database.read(work)

    def forget_checks(self, keys: Iterable[Digest]) -> None:
        """Let checks run again."""
        gone = [(key,) for key in keys]
        self._database.write(
            lambda connection: connection.executemany("DELETE FROM checks WHERE key = ?", gone)
        )

    def stat_cache(self) -> StatCache:
        """The digests of files that were hashed before. It is written when a build ends or the index is
        closed."""
        if self._stat_cache is None:
            self._stat_cache = StatCache(self._database, self._clock())
        return self._stat_cache

    def flush(self) -> None:
        """Write what is buffered."""
        if self._stat_cache is not None:
            self._stat_cache.flush()

    def document(self, kind: str, key: str) -> Any:
        """A kept JSON document, None when there is none."""
        return self.documents(kind, (key,)).get(key)

    def documents(self, kind: str, keys: Iterable[str]) -> dict[str, Any]:
        """Those of the documents of a kind that are kept."""
        wanted = tuple(dict.fromkeys(keys))
        now = self._clock()

        def work(connection: sqlite3.Connection) -> list[tuple[str, str, float]]:
            query = "SELECT key, content, last_used FROM documents WHERE kind = ? AND key = ?"
            return [row for key in wanted for row in connection.execute(query, (kind, key))]

        rows = self._database.read(work)
        old = [(now, kind, key) for key, _, used in rows if used < now - DAY]
        if old:
            self._database.note(
                lambda connection: connection.executemany(
                    "UPDATE documents SET last_used = ? WHERE kind = ? AND key = ?", old
                )
            )
        return {key: json.loads(content) for key, content, _ in rows}

    def keep_document(self, kind: str, key: str, content: Any) -> None:
        """Keep a JSON document, in place of the one of that kind and key."""
        self.keep_documents(kind, {key: content})

    def keep_documents(self, kind: str, contents: Mapping[str, Any]) -> None:
        """Keep several JSON documents of a kind in one transaction."""
        now = self._clock()
        rows = [(kind, key, json.dumps(content), now) for key, content in contents.items()]
        self._database.note(
            lambda connection: connection.executemany(
                "INSERT OR REPLACE INTO documents (kind, key, content, last_used) VALUES (?, ?, ?, ?)", rows
            )
        )

    def forget_document(self, kind: str, key: str) -> None:
        """Drop a document."""
        self._database.write(
            lambda connection: connection.execute(
                "DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key)
            )
        )

    def forget_older(self, before: float) -> None:
        """Drop what was not used since `before`. Passed checks are kept for half a year at least."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM documents WHERE last_used < ?", (before,))
            connection.execute("DELETE FROM stats WHERE recorded < ?", (before,))
            connection.execute(
                "DELETE FROM checks WHERE passed_at < ?", (min(before, self._clock() - CHECKS_KEPT),)
            )

        self._database.write(work)
