"""Tombstones: layers that were taken out of the store, and why, so that a rebuild can be explained."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.declared import dataclass
from sandboxfile.store.database import Database
from sandboxfile.store.records import LayerRecord

KEPT = 5000
"""Tombstones that are kept; the oldest go first."""

_COLUMNS = "key, kind, name, environment, size, reason, preimage, evicted"


@dataclass(frozen=True)
class Eviction:
    """A layer that is gone.

    environment: what it was last built for, "" when that is not known
    size:        bytes its files had
    reason:      why it went, to be read after "evicted on …:"
    preimage:    the document that was hashed for its key, "" when it is not known
    evicted:     when, in seconds since the epoch
    """

    key: LayerKey
    kind: str
    name: str
    environment: str
    size: int
    reason: str
    preimage: str
    evicted: float


def eviction_of(record: LayerRecord, reason: str, environment: str, now: float) -> Eviction:
    """The tombstone of a layer."""
    return Eviction(
        record.key, record.kind, record.name, environment, record.size, reason, record.preimage, now
    )


class EvictionTable:
    """The tombstones of a store. A layer that is built again has none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, keys: Iterable[LayerKey]) -> dict[LayerKey, Eviction]:
        """Those of the layers that were evicted."""
        wanted = tuple(dict.fromkeys(keys))

        def work(connection: sqlite3.Connection) -> dict[LayerKey, Eviction]:
            query = f"SELECT {_COLUMNS} FROM evictions WHERE key = ?"
            rows = (row for key in wanted for row in connection.execute(query, (key,)))
            return {row[0]: _eviction(row) for row in rows}

        return self._database.read(work) if wanted else {}

    def all(self) -> tuple[Eviction, ...]:
        """Every tombstone, newest first."""

        def work(connection: sqlite3.Connection) -> tuple[Eviction, ...]:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM evictions ORDER BY evicted DESC, key")
            return tuple(map(_eviction, rows))

        return self._database.read(work)


def insert_evictions(connection: sqlite3.Connection, evictions: Iterable[Eviction]) -> None:
    """Add tombstones, and drop the oldest beyond the bound."""
    connection.executemany(
        f"INSERT OR REPLACE INTO evictions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(e.key, e.kind, e.name, e.environment, e.size, e.reason, e.preimage, e.evicted) for e in evictions],
    )
    connection.execute(
        "DELETE FROM evictions WHERE key IN "
        "(SELECT key FROM evictions ORDER BY evicted DESC, key LIMIT -1 OFFSET ?)",
        (KEPT,),
    )


def _eviction(row: tuple[str, str, str, str, int, str, str, float]) -> Eviction:
    key, kind, name, environment, size, reason, preimage, evicted = row
    return Eviction(LayerKey(Digest(key)), kind, name, environment, size, reason, preimage, evicted)
