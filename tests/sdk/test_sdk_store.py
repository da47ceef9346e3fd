"""What the store keeps of volumes."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from sandboxfile.core.digest import Digest, digest_bytes
from sandboxfile.core.layer import LayerKey
from sandboxfile.errors import NoSuchVolume, SlugTaken
from sandboxfile.store.records import SnapshotRecord
from sandboxfile.store.schema import MIGRATIONS
from sandboxfile.store.store import Store
from sandboxfile.store.volumes import VolumeRecord, read_volumes

KEY = LayerKey(digest_bytes(b"layer"))


def volume(slug: str, *, pending: LayerKey | None = None) -> VolumeRecord:
    return VolumeRecord(slug, f"vol-{slug}", "local", None, (KEY,), {"user": "root"}, None, 5.0, pending)


def snapshot(slug: str) -> SnapshotRecord:
    return SnapshotRecord(slug, Digest(KEY), slug, (KEY,), {}, 1.0, 1.0)


def test_a_store_of_the_first_version_gets_volumes_and_keeps_its_snapshots(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Store.open(home) as store:
        store.index.publish(snapshot("old"))
    (home / "index.sqlite").unlink()
    database = sqlite3.connect(home / "index.sqlite")
    for statement in MIGRATIONS[0]:
        database.execute(statement)
    row = ("old", str(KEY), "old", json.dumps([KEY]), "{}", 1.0, 1.0)
    database.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    database.execute("PRAGMA user_version = 1")
    database.commit()
    database.close()
    for name in ("volumes", "sandboxes"):
        (home / name).rmdir()
    with Store.open(home) as store:
        assert store.index.volumes.all() == ()
        store.index.volumes.add(volume("new"))
        assert [each.slug for each in store.index.snapshots()] == ["old"]
        assert store.sandboxes.is_dir()


def test_volumes_are_found_by_slug_and_id_and_read_back_from_their_files(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        made = volume("data", pending=LayerKey(digest_bytes(b"pending")))
        store.index.volumes.add(made)
        assert store.index.volumes.get("data") == store.index.volumes.get("vol-data") == made
        assert made.needs == (KEY, made.pending)
        store.index.volumes.set_user("vol-data", "sandbox")
        assert store.index.volumes.get("data").attached_by == "sandbox"
        (store.volumes / "other.json").write_text("{}")
        (store.volumes / "broken.json").write_text("{")
        assert tuple(read_volumes(store.volumes)) == (made,)
        store.index.volumes.remove(made)
        assert store.index.volumes.find("data") is None
        assert not (store.volumes / "data.json").exists()
        for verb in (store.index.volumes.get, lambda _: store.index.volumes.update(made)):
            with pytest.raises(NoSuchVolume):
                verb("data")


def test_a_slug_is_a_volumes_or_a_snapshots(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        store.index.volumes.add(volume("data"))
        store.index.publish(snapshot("snap"), new=True)
        for taken in ("data", "snap"):
            with pytest.raises(SlugTaken):
                store.index.volumes.add(volume(taken))
            with pytest.raises(SlugTaken):
                store.index.publish(snapshot(taken), new=True)
            with pytest.raises(SlugTaken):
                store.index.check_slug_free(taken)
        store.index.publish(snapshot("snap"))
