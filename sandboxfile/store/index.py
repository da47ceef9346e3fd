"""The index: which layers, snapshots, checks and builds there are.

Layers and snapshots can be made anew from the store's directories; the rest is remembered work, and its
loss costs time only. Every method is one transaction and safe to call from any thread. Times are seconds
since the epoch. All methods raise StoreError when the file cannot be used.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.declared import replace
from sandboxfile.errors import NoSuchSnapshot, StoreError
from sandboxfile.store.atomic import unique, write_atomically
from sandboxfile.store.database import Database
from sandboxfile.store.durability import is_doubtful, sync_filesystem
from sandboxfile.store.environments import Environments
from sandboxfile.store.evictions import Eviction, EvictionTable, eviction_of, insert_evictions
from sandboxfile.store.failure import reported
from sandboxfile.store.faults import point
from sandboxfile.store.records import LayerRecord, SnapshotRecord, snapshot_document
from sandboxfile.store.restore import LAYER_DOCUMENT, read_layer, read_layers, read_snapshots
from sandboxfile.store.volumes import VolumeTable, check_slug_free, insert_volume, read_volumes

TOUCH_SECONDS = 3600.0
"""A time of last use is not written again within this time, so that doing nothing writes nothing."""

_LAYER = (
    "key, kind, name, preimage, diff_id, size, entries, parents, created, last_used, unreproducible, boot"
)
_SNAPSHOT = "slug, key, name, layers, config, created, last_used"


class Index(Environments):
    """The index of one store, over the SQLite file in its home."""

    def __init__(
        self,
        home: Path,
        *,
        guard: Callable[[], AbstractContextManager[None]],
        clock: Callable[[], float] = time.time,
        read_only: bool = False,
    ) -> None:
        self._home = home
        self._layers = home / "layers"
        self._snapshots = home / "snapshots"
        self._volumes = home / "volumes"
        super().__init__(Database(home, guard=guard, restore=self._restore, read_only=read_only), clock)
        self.volumes = VolumeTable(self._database, self._volumes)
        self.evictions = EvictionTable(self._database)

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know: that a damaged index was replaced."""
        return tuple(self._database.notices)

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def damage(self, *, full: bool = False) -> str | None:
        """What is wrong with the file, None when it is whole. One that cannot be read at all is made anew."""
        return self._database.damage(full=full)

    def start_over(self) -> None:
        """Leave the file as it is, and make a new one from the store's directories."""
        self._database.start_over()

    def close(self) -> None:
        """Close the file. The index can still be used, and opens it again."""
        self.flush()
        self._database.close()

    def record_layer(self, record: LayerRecord) -> None:
        """Note a layer that the engine has committed, perhaps again."""
        self._database.write(lambda connection: _insert_layer(connection, record))

    def layer(self, key: LayerKey) -> LayerRecord | None:
        """What is known of a layer, whether or not its directory is still there."""
        found = self.layers((key,))
        return found.get(key)

    def layers(self, keys: Iterable[LayerKey] | None = None) -> dict[LayerKey, LayerRecord]:
        """The records of these layers that are known, or of all."""
        wanted = None if keys is None else tuple(dict.fromkeys(keys))

        def work(connection: sqlite3.Connection) -> dict[LayerKey, LayerRecord]:
            if wanted is None:
                rows = connection.execute(f"SELECT {_LAYER} FROM layers ORDER BY key").fetchall()
            else:
                rows = [
                    row
                    for key in wanted
                    for row in connection.execute(f"SELECT {_LAYER} FROM layers WHERE key = ?", (key,))
                ]
            return {row[0]: _layer(row) for row in rows}

        return self._database.read(work)

    def layers_present(self, keys: Iterable[LayerKey]) -> frozenset[LayerKey]:
        """Those whose record and directory both exist. A directory without a record is taken in first: its
        build was killed between the rename and the record. One whose content a loss of power may have taken
        is put aside instead."""
        there = [key for key in dict.fromkeys(keys) if self._has_directory(key)]
        if not there:
            return frozenset()

        def work(connection: sqlite3.Connection) -> dict[LayerKey, str | None]:
            query = "SELECT key, boot FROM layers WHERE key = ?"
            return {row[0]: row[1] for key in there for row in connection.execute(query, (key,))}

        boots = self._database.read(work)
        unknown = [read_layer(self._layers, key) for key in there if key not in boots]
        adopted = [record for record in unknown if record is not None]
        boots |= {record.key: record.boot for record in adopted}
        doubtful = [key for key, boot in boots.items() if is_doubtful(boot)]
        if doubtful:
            records = {record.key: record for record in adopted} | self.layers(doubtful)
            self._put_aside([records[key] for key in doubtful])
            adopted = [record for record in adopted if not is_doubtful(record.boot)]
        if adopted:
            self._database.note(lambda connection: _insert_layers(connection, adopted))
        return frozenset(boots.keys() - set(doubtful))

    def adopt_layers(self) -> None:
        """Take in every layer directory that has no record."""
        known = self.layers()
        self.layers_present(
            record.key
            for record in read_layers(self._layers)
            if record.key not in known or is_doubtful(known[record.key].boot)
        )

    def _put_aside(self, records: Sequence[LayerRecord]) -> None:
        """Take layers that may not be whole out of their places, so that they are made again."""
        if self._database.read_only:
            return
        reason = "the machine stopped before its files were known to be on disk"
        self.forget_layers((record.key for record in records), reason)
        with reported("putting aside what a loss of power may have damaged"):
            for record in records:
                try:
                    os.rename(
                        self._layers / record.key.partition(":")[2], self._home / "trash" / f"lost.{unique()}"
                    )
                except FileNotFoundError:
                    continue  # another process was faster

    def make_durable(self) -> None:
        """Wait until every layer recorded so far is on disk with its content."""

        def select(connection: sqlite3.Connection) -> list[tuple[str]]:
            return connection.execute("SELECT key FROM layers WHERE boot IS NOT NULL").fetchall()

        fresh = self._database.read(select)
        if fresh:
            sync_filesystem(self._home)
            point("index:synced")
            self._database.write(
                lambda connection: connection.executemany(
                    "UPDATE layers SET boot = NULL WHERE key = ?", fresh
                )
            )

    def touch(self, keys: Iterable[LayerKey]) -> None:
        """Note that layers are used now."""
        now = self._clock()
        old = [
            (now, key) for key, record in self.layers(keys).items() if record.last_used < now - TOUCH_SECONDS
        ]
        if old:
            self._database.note(
                lambda connection: connection.executemany(
                    "UPDATE layers SET last_used = ? WHERE key = ?", old
                )
            )

    def forget_layers(self, keys: Iterable[LayerKey], reason: str | None = None) -> None:
        """Drop the records of layers; their directories are the caller's to remove afterwards. With a
        `reason`, why they went is remembered."""
        self.evict_layers(dict.fromkeys(keys, reason))

    def evict_layers(self, reasons: Mapping[LayerKey, str | None]) -> None:
        """Drop the records of layers, each for a reason of its own; see `forget_layers`."""
        gone = tuple((key,) for key in reasons)
        stones: tuple[Eviction, ...] = ()
        if any(reasons.values()):
            places = {key: where for where, _, layers in self.build_places() for key in layers.values()}
            now = self._clock()
            stones = tuple(
                eviction_of(record, reason, places.get(key, ""), now)
                for key, record in self.layers(reasons).items()
                if (reason := reasons[key]) is not None
            )

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM layers WHERE key = ?", gone)
            if stones:
                insert_evictions(connection, stones)

        self._database.write(work)

    def publish(self, snapshot: SnapshotRecord, *, new: bool = False) -> None:
        """Make a snapshot known: in the index and, for when that is lost, in a file.

        Publishing it again renews its name and what of its configuration is no part of the key. Raises
        StoreError when the slug belongs to a snapshot of another key; with `new`, SlugTaken when there is
        any of that slug, or a volume.
        """
        text = json.dumps(snapshot_document(snapshot), sort_keys=True, indent=1)

        def work(connection: sqlite3.Connection) -> None:
            if new:
                check_slug_free(connection, snapshot.slug)
            row = connection.execute("SELECT key FROM snapshots WHERE slug = ?", (snapshot.slug,)).fetchone()
            if row is not None and row[0] != snapshot.key:
                raise StoreError(
                    f"the slug `{snapshot.slug}` belongs to another snapshot, whose key is {row[0]}",
                    hint=f"remove that one with `sandboxfile snapshots rm {snapshot.slug}`, or change `name`",
                )
            with reported("writing a snapshot"):
                write_atomically(self._snapshot_path(snapshot.slug), f"{text}\n".encode())
            point("publish:file")
            _insert_snapshot(connection, snapshot)

        self._database.write(work, durable=True)

    def check_slug_free(self, slug: str) -> None:
        """Raise SlugTaken when a volume or a snapshot has that slug."""
        self._database.read(lambda connection: check_slug_free(connection, slug))

    def snapshot(self, slug: str) -> SnapshotRecord | None:
        """The snapshot of that slug."""
        found = self._select_snapshots("WHERE slug = ?", (slug,))
        return found[0] if found else None

    def newest(self, name: str) -> SnapshotRecord | None:
        """The snapshot of that name that was published last."""
        found = self._select_snapshots("WHERE name = ? ORDER BY created DESC, slug LIMIT 1", (name,))
        return found[0] if found else None

    def snapshots(self) -> tuple[SnapshotRecord, ...]:
        """Every snapshot, newest first."""
        return self._select_snapshots("ORDER BY created DESC, slug", ())

    def find(self, target: str) -> SnapshotRecord:
        """The snapshot of a slug, else the newest of a name. NoSuchSnapshot, with near misses as hint."""
        found = self.snapshot(target) or self.newest(target)
        if found is not None:
            return found
        import difflib

        known = sorted({each for record in self.snapshots() for each in (record.slug, record.name)})
        near = difflib.get_close_matches(target, known, n=3)
        hint = "`sandboxfile snapshots` lists what there is"
        if near:
            hint = f"did you mean {' or '.join(f'`{each}`' for each in near)}?"
        raise NoSuchSnapshot(f"no snapshot is called `{target}`", hint=hint)

    def touch_snapshot(self, slug: str) -> None:
        """Note that a snapshot is used now, and its layers with it."""
        record = self.snapshot(slug)
        now = self._clock()
        if record is None or record.last_used >= now - TOUCH_SECONDS:
            return
        self._database.note(
            lambda connection: connection.execute(
                "UPDATE snapshots SET last_used = ? WHERE slug = ?", (now, slug)
            )
        )
        self.touch(record.layers)

    def remove_snapshot(self, slug: str) -> None:
        """Forget a snapshot and what was remembered for its sake, so that the next gc takes the layers that
        nothing else uses. Raises NoSuchSnapshot."""

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT layers FROM snapshots WHERE slug = ?", (slug,)).fetchone()
            if row is None:
                raise NoSuchSnapshot(
                    f"no snapshot has the slug `{slug}`", hint="`sandboxfile snapshots` lists what there is"
                )
            # The file goes first: should we die here, the row still says what to remove.
            with reported("removing a snapshot"):
                self._snapshot_path(slug).unlink(missing_ok=True)
            point("remove:file")
            connection.execute("DELETE FROM snapshots WHERE slug = ?", (slug,))
            connection.execute("DELETE FROM heads WHERE slug = ?", (slug,))
            connection.executemany(
                "UPDATE layers SET last_used = 0 WHERE key = ?", [(key,) for key in json.loads(row[0])]
            )

        self._database.write(work, durable=True)

    def remove_stray_snapshot_files(self) -> None:
        """Remove the files of snapshots whose publishing was killed before it was done."""

        def work(connection: sqlite3.Connection) -> None:
            slugs = {f"{slug}.json" for (slug,) in connection.execute("SELECT slug FROM snapshots")}
            with reported("removing what a killed build left"):
                for name in set(os.listdir(self._snapshots)) - slugs:
                    (self._snapshots / name).unlink(missing_ok=True)

        self._database.write(work)

    def _has_directory(self, key: LayerKey) -> bool:
        return os.path.exists(self._layers / key.partition(":")[2] / LAYER_DOCUMENT)

    def _snapshot_path(self, slug: str) -> Path:
        return self._snapshots / f"{slug}.json"

    def _select_snapshots(self, where: str, values: Sequence[str]) -> tuple[SnapshotRecord, ...]:
        def work(connection: sqlite3.Connection) -> tuple[SnapshotRecord, ...]:
            rows = connection.execute(f"SELECT {_SNAPSHOT} FROM snapshots {where}", values)
            return tuple(
                SnapshotRecord(
                    row[0],
                    Digest(row[1]),
                    row[2],
                    tuple(json.loads(row[3])),
                    json.loads(row[4]),
                    row[5],
                    row[6],
                )
                for row in rows
            )

        return self._database.read(work)

    def _restore(self, connection: sqlite3.Connection) -> str:
        layers = list(read_layers(self._layers))
        keys = {record.key for record in layers}
        snapshots = [each for each in read_snapshots(self._snapshots) if keys.issuperset(each.layers)]
        # What was published was on disk before.
        published = {key for snapshot in snapshots for key in snapshot.layers}
        _insert_layers(
            connection,
            (replace(record, boot=None) if record.key in published else record for record in layers),
        )
        for snapshot in snapshots:
            _insert_snapshot(connection, snapshot)
        for volume in read_volumes(self._volumes):
            insert_volume(connection, volume)
        return f"layers {len(layers)}, snapshots {len(snapshots)}"


def _layer(row: Sequence[object]) -> LayerRecord:
    key, kind, name, text, diff_id, size, entries, parents, created, last_used, unreproducible, boot = row
    return LayerRecord(
        key=LayerKey(Digest(str(key))),
        kind=str(kind),
        name=str(name),
        preimage=str(text),
        diff_id=None if diff_id is None else Digest(str(diff_id)),
        size=int(str(size)),
        entries=int(str(entries)),
        parents=tuple(json.loads(str(parents))),
        created=float(str(created)),
        last_used=float(str(last_used)),
        unreproducible=tuple(json.loads(str(unreproducible))),
        boot=None if boot is None else str(boot),
    )


def _insert_layer(connection: sqlite3.Connection, record: LayerRecord) -> None:
    """Add a layer, or renew what is known of it: it may have been built again with other content."""
    connection.execute(
        f"INSERT INTO layers ({_LAYER}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (key) DO UPDATE SET name = excluded.name, diff_id = excluded.diff_id, "
        "size = excluded.size, entries = excluded.entries, unreproducible = excluded.unreproducible, "
        "boot = excluded.boot, created = excluded.created, last_used = max(last_used, excluded.last_used), "
        "preimage = CASE WHEN excluded.preimage = '' THEN preimage ELSE excluded.preimage END",
        (
            record.key,
            record.kind,
            record.name,
            record.preimage,
            record.diff_id,
            record.size,
            record.entries,
            json.dumps(record.parents),
            record.created,
            record.last_used,
            json.dumps(record.unreproducible),
            record.boot,
        ),
    )
    connection.execute("DELETE FROM evictions WHERE key = ?", (record.key,))


def _insert_layers(connection: sqlite3.Connection, records: Iterable[LayerRecord]) -> None:
    for record in records:
        _insert_layer(connection, record)


def _insert_snapshot(connection: sqlite3.Connection, record: SnapshotRecord) -> None:
    config: Mapping[str, object] = record.config
    connection.execute(
        f"INSERT INTO snapshots ({_SNAPSHOT}) VALUES (?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (slug) DO UPDATE SET name = excluded.name, config = excluded.config, "
        "last_used = max(last_used, excluded.last_used)",
        (
            record.slug,
            record.key,
            record.name,
            json.dumps(record.layers),
            json.dumps(dict(config)),
            record.created,
            record.last_used,
        ),
    )
