"""The part of the index that is about environments: what each was last built from, its earlier builds, and
its last failure."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from sandboxfile.core.layer import LayerKey
from sandboxfile.store.records import Done, Failure, Head, PastBuild
from sandboxfile.store.remembered import Remembered

BUILDS_KEPT = 30
"""Builds of one environment that are remembered."""
BYTES_KEPT = 8 << 20
"""Bytes (compressed) that the builds of one environment may take; the last one is kept whatever it takes."""

_BUILD = "environment, number, slug, layers, definitions, actions, built"


class Environments(Remembered):
    """Heads, builds and failures by environment."""

    def head(self, environment: str) -> Head | None:
        """What an environment's last build was made of."""
        return next(iter(self.heads(environment)), None)

    def heads(self, environment: str | None = None) -> tuple[Head, ...]:
        """Every environment's head, or the one's."""

        def work(connection: sqlite3.Connection) -> tuple[Head, ...]:
            rows = connection.execute(
                "SELECT environment, slug, layers, definitions, updated FROM heads "
                "WHERE ?1 IS NULL OR environment = ?1",
                (environment,),
            )
            return tuple(Head(row[0], row[1], json.loads(row[2]), json.loads(row[3]), row[4]) for row in rows)

        return self._database.read(work)

    def set_head(self, head: Head, actions: Sequence[Done] = ()) -> None:
        """Remember what a build was made of, and what was done and why. Its time is now unless it has one.

        A build that did nothing and came to what the last one came to is no build of its own.
        """
        self.flush()
        now = head.updated or self._clock()
        layers = json.dumps(dict(head.layers))
        row = (head.environment, head.slug, layers, json.dumps(dict(head.definitions)), now)
        definitions, done = _packed(dict(head.definitions)), _packed([each.record() for each in actions])
        worked = any(each.action == "build" for each in actions)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?, ?)", row)
            last = connection.execute(
                "SELECT number, slug, definitions FROM builds WHERE environment = ? "
                "ORDER BY number DESC LIMIT 1",
                (head.environment,),
            ).fetchone()
            if last is not None and not worked and (last[1], last[2]) == (head.slug, definitions):
                return
            number = 1 if last is None else last[0] + 1
            connection.execute(
                f"INSERT INTO builds ({_BUILD}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (head.environment, number, head.slug or "", layers, definitions, done, now),
            )
            _forget_oldest(connection, head.environment)

        self._database.write(work)

    def builds(self, environment: str) -> tuple[PastBuild, ...]:
        """The builds of an environment that are remembered, the last one first."""
        return self._select_builds("WHERE environment = ? ORDER BY number DESC", (environment,))

    def build_places(self) -> tuple[tuple[str, str, Mapping[str, LayerKey]], ...]:
        """Of every remembered build: its environment, its slug, and its layers by name; oldest first."""

        def work(connection: sqlite3.Connection) -> tuple[tuple[str, str, Mapping[str, LayerKey]], ...]:
            rows = connection.execute("SELECT environment, slug, layers FROM builds ORDER BY built, number")
            return tuple((row[0], row[1], json.loads(row[2])) for row in rows)

        return self._database.read(work)

    def forget_builds(self, before: float) -> None:
        """Drop the builds that were made before, and of each environment not the last one."""
        self._database.write(
            lambda connection: connection.execute(
                "DELETE FROM builds WHERE built < ? AND number < "
                "(SELECT max(number) FROM builds AS later WHERE later.environment = builds.environment)",
                (before,),
            )
        )

    def failure(self, environment: str) -> Failure | None:
        """The last failure of an environment, with its kept workspace."""
        return next((each for each in self.failures() if each.environment == environment), None)

    def failures(self) -> tuple[Failure, ...]:
        """The last failure of every environment that has one."""

        def work(connection: sqlite3.Connection) -> tuple[Failure, ...]:
            rows = connection.execute("SELECT environment, workspace, layer, command, created FROM failures")
            return tuple(Failure(row[0], row[1], row[2], json.loads(row[3]), row[4]) for row in rows)

        return self._database.read(work)

    def set_failure(self, failure: Failure) -> None:
        """Remember a failure, in place of the environment's last one. Its time is now unless it has one."""
        row = (
            failure.environment,
            failure.workspace,
            failure.layer,
            json.dumps(dict(failure.command)),
            failure.created or self._clock(),
        )
        self._database.write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)", row
            )
        )

    def clear_failure(self, environment: str) -> None:
        """Forget an environment's failure: it was built since."""
        if self.failure(environment) is not None:
            self._database.write(
                lambda connection: connection.execute(
                    "DELETE FROM failures WHERE environment = ?", (environment,)
                )
            )

    def _select_builds(self, where: str, values: Sequence[str]) -> tuple[PastBuild, ...]:
        def work(connection: sqlite3.Connection) -> tuple[PastBuild, ...]:
            rows = connection.execute(f"SELECT {_BUILD} FROM builds {where}", values)
            return tuple(
                PastBuild(
                    row[0],
                    row[1],
                    row[2],
                    json.loads(row[3]),
                    _unpacked(row[4]),
                    tuple(Done.of(each) for each in _unpacked(row[5])),
                    row[6],
                )
                for row in rows
            )

        return self._database.read(work)


def _forget_oldest(connection: sqlite3.Connection, environment: str) -> None:
    """Keep an environment's history within its bounds."""
    rows = connection.execute(
        "SELECT number, length(definitions) + length(actions) FROM builds WHERE environment = ? "
        "ORDER BY number DESC",
        (environment,),
    ).fetchall()
    total = 0
    for position, (number, size) in enumerate(rows):
        total += size
        if position and (position >= BUILDS_KEPT or total > BYTES_KEPT):
            connection.execute(
                "DELETE FROM builds WHERE environment = ? AND number <= ?", (environment, number)
            )
            return


def _packed(document: Any) -> bytes:
    import zlib

    return zlib.compress(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


def _unpacked(content: bytes) -> Any:
    import zlib

    return json.loads(zlib.decompress(content))
