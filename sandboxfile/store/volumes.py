"""The volumes that the index knows, each also in a file, for when the index is lost.

Volumes and snapshots share one namespace of slugs. What a volume holds is the engine's; here is what it
stands on. Whether a sandbox uses it is a lock (see `lock_name`), which its client holds: the kernel drops it
when the client dies, whatever `attached_by` says then.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sandboxfile.core.digest import Digest, is_digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.declared import dataclass, replace
from sandboxfile.errors import NoSuchVolume, SlugTaken
from sandboxfile.store.atomic import write_atomically
from sandboxfile.store.database import Database
from sandboxfile.store.failure import reported
from sandboxfile.store.faults import point

_COLUMNS = "slug, id, region, capacity, stack, pending, config, parent, created, attached_by"


@dataclass(frozen=True)
class VolumeRecord:
    """A volume.

    id:          its name in the engine, never used again
    capacity:    bytes that can be written to it, None for no limit
    stack:       the layers it stands on, lowest first
    pending:     a layer that is being made of what it holds, and belongs on top of `stack` once it is there
    config:      what sandboxes on it start with: the JSON form of a SnapshotConfig
    parent:      slug of the snapshot it was made from
    attached_by: the id of the sandbox that used it last
    """

    slug: str
    id: str
    region: str
    capacity: int | None
    stack: tuple[LayerKey, ...]
    config: Mapping[str, Any]
    parent: str | None
    created: float
    pending: LayerKey | None = None
    attached_by: str | None = None

    @property
    def lock_name(self) -> str:
        """The lock that is held while something uses the volume."""
        return f"volume-{self.id}"

    @property
    def needs(self) -> tuple[LayerKey, ...]:
        """The layers that have to be kept for it."""
        return (*self.stack, self.pending) if self.pending else self.stack


class VolumeTable:
    """The volumes of a store.

    directory: where their files are
    """

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self._directory = directory

    def all(self) -> tuple[VolumeRecord, ...]:
        """Every volume, newest first."""
        return self._select("ORDER BY created DESC, slug", ())

    def find(self, target: str) -> VolumeRecord | None:
        """The volume of a slug or id."""
        found = self._select("WHERE slug = ?1 OR id = ?1", (target,))
        return found[0] if found else None

    def get(self, target: str) -> VolumeRecord:
        """The volume of a slug or id. NoSuchVolume, with near misses as hint."""
        found = self.find(target)
        if found is not None:
            return found
        import difflib

        near = difflib.get_close_matches(target, [record.slug for record in self.all()], n=3)
        hint = f"did you mean {' or '.join(f'`{each}`' for each in near)}?" if near else None
        raise NoSuchVolume(f"no volume is called `{target}`", hint=hint)

    def add(self, record: VolumeRecord) -> None:
        """Make a volume known. SlugTaken when its slug is a volume's or a snapshot's."""

        def work(connection: sqlite3.Connection) -> None:
            check_slug_free(connection, record.slug)
            self._write_file(record)
            point("volume:file")
            insert_volume(connection, record)

        self._database.write(work, durable=True)

    def update(self, record: VolumeRecord) -> None:
        """Note what a volume stands on now. NoSuchVolume when it is gone."""

        def work(connection: sqlite3.Connection) -> None:
            if connection.execute("SELECT 1 FROM volumes WHERE id = ?", (record.id,)).fetchone() is None:
                raise NoSuchVolume(f"the volume `{record.slug}` is gone")
            self._write_file(record)
            connection.execute("DELETE FROM volumes WHERE id = ?", (record.id,))
            insert_volume(connection, record)

        self._database.write(work, durable=True)

    def set_user(self, identifier: str, sandbox: str | None) -> None:
        """Note which sandbox uses a volume, for those who ask in vain."""
        self._database.write(
            lambda connection: connection.execute(
                "UPDATE volumes SET attached_by = ? WHERE id = ?", (sandbox, identifier)
            )
        )

    def remove(self, record: VolumeRecord) -> None:
        """Forget a volume; the layers it stood on count as unused."""

        def work(connection: sqlite3.Connection) -> None:
            with reported("removing a volume"):
                self._path(record.slug).unlink(missing_ok=True)
            connection.execute("DELETE FROM volumes WHERE id = ?", (record.id,))
            connection.executemany(
                "UPDATE layers SET last_used = 0 WHERE key = ?", [(key,) for key in record.needs]
            )

        self._database.write(work, durable=True)

    def _path(self, slug: str) -> Path:
        return self._directory / f"{slug}.json"

    def _write_file(self, record: VolumeRecord) -> None:
        text = json.dumps(asdict(replace(record, attached_by=None)), sort_keys=True, indent=1)
        with reported("writing a volume's record"):
            write_atomically(self._path(record.slug), f"{text}\n".encode())

    def _select(self, where: str, values: Sequence[str]) -> tuple[VolumeRecord, ...]:
        def work(connection: sqlite3.Connection) -> tuple[VolumeRecord, ...]:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM volumes {where}", values)
            return tuple(map(_record, rows))

        return self._database.read(work)


def check_slug_free(connection: sqlite3.Connection, slug: str) -> None:
    """Raise SlugTaken when a volume or a snapshot has that slug."""
    for table, noun in (("volumes", "volume"), ("snapshots", "snapshot")):
        if connection.execute(f"SELECT 1 FROM {table} WHERE slug = ?", (slug,)).fetchone() is not None:
            raise SlugTaken(
                f"there is a {noun} of the slug `{slug}` already",
                hint=f"choose another slug, or delete that {noun} first",
            )


def insert_volume(connection: sqlite3.Connection, record: VolumeRecord) -> None:
    """Add a volume's row."""
    connection.execute(
        f"INSERT INTO volumes ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.slug,
            record.id,
            record.region,
            record.capacity,
            json.dumps(record.stack),
            record.pending,
            json.dumps(dict(record.config)),
            record.parent,
            record.created,
            record.attached_by,
        ),
    )


def read_volumes(directory: Path) -> Iterator[VolumeRecord]:
    """Every volume from its file; files that are none of ours are passed over."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    for name in names:
        if not name.endswith(".json") or name.startswith("."):
            continue
        try:
            document = json.loads((directory / name).read_bytes())
            stack, pending = document["stack"], document["pending"]
            if not all(map(is_digest, (*stack, *([pending] if pending else [])))):
                continue
            record = VolumeRecord(
                **{
                    **document,
                    "stack": tuple(LayerKey(Digest(key)) for key in stack),
                    "pending": LayerKey(Digest(pending)) if pending else None,
                }
            )
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if f"{record.slug}.json" == name:
            yield record


def _record(row: Sequence[Any]) -> VolumeRecord:
    slug, identifier, region, capacity, stack, pending, config, parent, created, attached_by = row
    return VolumeRecord(
        slug=slug,
        id=identifier,
        region=region,
        capacity=capacity,
        stack=tuple(json.loads(stack)),
        pending=pending,
        config=json.loads(config),
        parent=parent,
        created=created,
        attached_by=attached_by,
    )
