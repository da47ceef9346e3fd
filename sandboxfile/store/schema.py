"""The tables of the index. `user_version` counts the migrations a file has been through."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE layers (
            key TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, preimage TEXT NOT NULL,
            diff_id TEXT, size INTEGER NOT NULL, entries INTEGER NOT NULL, parents TEXT NOT NULL,
            created REAL NOT NULL, last_used REAL NOT NULL, unreproducible TEXT NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE snapshots (
            slug TEXT PRIMARY KEY, key TEXT NOT NULL, name TEXT NOT NULL, layers TEXT NOT NULL,
            config TEXT NOT NULL, created REAL NOT NULL, last_used REAL NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX snapshots_by_name ON snapshots (name, created)",
        """CREATE TABLE checks (
            key TEXT PRIMARY KEY, passed_at REAL NOT NULL, seconds REAL NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE heads (
            environment TEXT PRIMARY KEY, slug TEXT, layers TEXT NOT NULL, definitions TEXT NOT NULL,
            updated REAL NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE failures (
            environment TEXT PRIMARY KEY, workspace TEXT NOT NULL, layer TEXT NOT NULL,
            command TEXT NOT NULL, created REAL NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE stats (
            file TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
            ctime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL, recorded REAL NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE documents (
            kind TEXT NOT NULL, key TEXT NOT NULL, content TEXT NOT NULL, last_used REAL NOT NULL,
            PRIMARY KEY (kind, key)
        )""",
    ),
    (
        """CREATE TABLE volumes (
            slug TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, region TEXT NOT NULL, capacity INTEGER,
            stack TEXT NOT NULL, pending TEXT, config TEXT NOT NULL, parent TEXT, created REAL NOT NULL,
            attached_by TEXT
        ) WITHOUT ROWID""",
    ),
    (
        # What a layer was recorded under: the machine's boot, until its content is known to be on disk.
        "ALTER TABLE layers ADD COLUMN boot TEXT",
        """CREATE TABLE evictions (
            key TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, environment TEXT NOT NULL,
            size INTEGER NOT NULL, reason TEXT NOT NULL, preimage TEXT NOT NULL, evicted REAL NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX evictions_by_time ON evictions (evicted)",
        """CREATE TABLE builds (
            environment TEXT NOT NULL, number INTEGER NOT NULL, slug TEXT NOT NULL, layers TEXT NOT NULL,
            definitions BLOB NOT NULL, actions BLOB NOT NULL, built REAL NOT NULL,
            PRIMARY KEY (environment, number)
        )""",
    ),
)
"""Each migration's statements, in order. A new version appends one; none is ever changed."""
