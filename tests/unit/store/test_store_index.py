from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from store_making import Clock, CommitLayer, MakeSnapshot

from sandboxfile.core.digest import Digest
from sandboxfile.errors import NoSuchSnapshot, StoreError
from sandboxfile.inputs.filehash import FileKey
from sandboxfile.store.database import Database
from sandboxfile.store.records import Failure, Head
from sandboxfile.store.schema import MIGRATIONS
from sandboxfile.store.store import Store

CHECK = Digest("sha256:" + "c" * 64)


def test_a_recorded_layer_comes_back_whole(store: Store, commit_layer: CommitLayer) -> None:
    below = commit_layer("make below")
    above = commit_layer("make above", parents=(below.key,))
    assert store.index.layer(above.key) == above
    definition = above.definition
    assert definition is not None
    assert definition["kind"] == "run"
    assert definition["definition"]["parents"] == [below.key]


def test_a_layer_built_again_is_known_by_its_new_content(store: Store, commit_layer: CommitLayer) -> None:
    made = commit_layer("made")
    again = replace(made, diff_id=CHECK, size=99, last_used=made.last_used + 5)
    store.index.record_layer(again)
    assert store.index.layer(made.key) == again


def test_a_layer_is_present_when_record_and_directory_exist(store: Store, commit_layer: CommitLayer) -> None:
    whole, only_record = commit_layer("whole"), commit_layer("only-record")
    shutil.rmtree(store.layer_dir(only_record.key))
    assert store.index.layers_present([whole.key, only_record.key]) == {whole.key}
    assert store.index.layer(only_record.key) is not None


def test_a_directory_whose_record_was_lost_to_a_kill_is_taken_in(
    store: Store, commit_layer: CommitLayer
) -> None:
    made = commit_layer("made", record=False)
    assert store.index.layer(made.key) is None
    assert store.index.layers_present([made.key]) == {made.key}
    assert store.index.layer(made.key) == made


def test_a_layer_document_of_another_layer_is_not_taken_in(store: Store, commit_layer: CommitLayer) -> None:
    made, other = commit_layer("made", record=False), commit_layer("other")
    shutil.copy(store.layer_dir(other.key) / "layer.json", store.layer_dir(made.key) / "layer.json")
    assert store.index.layers_present([made.key]) == frozenset()


@pytest.mark.parametrize("form", ["record", "inner"])
def test_a_document_may_hold_the_definition_as_json(
    store: Store, commit_layer: CommitLayer, form: str
) -> None:
    made = commit_layer("made", record=False)
    record = json.loads(made.preimage)[1]
    document = {"kind": "run", "definition": record if form == "record" else record["definition"]}
    (store.layer_dir(made.key) / "layer.json").write_text(json.dumps(document))
    store.index.layers_present([made.key])
    taken = store.index.layer(made.key)
    assert taken is not None
    assert taken.preimage == made.preimage


def test_touch_moves_the_last_use_but_not_within_the_hour(
    store: Store, commit_layer: CommitLayer, clock: Clock
) -> None:
    made = commit_layer("made")
    clock.now += 60
    store.index.touch([made.key])
    assert store.index.layers()[made.key].last_used == made.last_used
    clock.now += 7200
    store.index.touch([made.key])
    assert store.index.layers()[made.key].last_used == clock.now


def test_a_published_snapshot_is_found_by_slug_and_by_name(store: Store, make_snapshot: MakeSnapshot) -> None:
    snapshot = make_snapshot("web")
    store.index.publish(snapshot)
    assert store.index.snapshot(snapshot.slug) == snapshot
    assert store.index.find("web") == snapshot
    assert store.index.find(snapshot.slug) == snapshot


def test_a_name_stands_for_its_newest_snapshot(
    store: Store, commit_layer: CommitLayer, make_snapshot: MakeSnapshot, clock: Clock
) -> None:
    old = make_snapshot("web")
    clock.now += 1
    new = make_snapshot("web", commit_layer("more").key)
    for snapshot in (new, old):
        store.index.publish(snapshot)
    assert store.index.newest("web") == new
    assert store.index.snapshots() == (new, old)


def test_an_unknown_name_is_an_error_with_near_misses(store: Store, make_snapshot: MakeSnapshot) -> None:
    store.index.publish(make_snapshot("mandelbrot"))
    with pytest.raises(NoSuchSnapshot, match="`mandlebrot`") as caught:
        store.index.find("mandlebrot")
    assert "did you mean `mandelbrot`" in str(caught.value.hint)


def test_a_slug_never_changes_its_snapshot(store: Store, make_snapshot: MakeSnapshot) -> None:
    snapshot = make_snapshot("web")
    store.index.publish(snapshot)
    with pytest.raises(StoreError, match="belongs to another snapshot"):
        store.index.publish(replace(snapshot, key=CHECK))
    assert store.index.snapshot(snapshot.slug) == snapshot


def test_publishing_again_renews_what_is_no_identity(
    store: Store, make_snapshot: MakeSnapshot, clock: Clock
) -> None:
    snapshot = make_snapshot("web")
    store.index.publish(snapshot)
    clock.now += 5
    store.index.publish(
        replace(snapshot, config={"labels": {"a": "b"}}, created=clock.now, last_used=clock.now)
    )
    found = store.index.snapshot(snapshot.slug)
    assert found is not None
    assert (found.config, found.created) == ({"labels": {"a": "b"}}, snapshot.created)


def test_a_removed_snapshot_is_gone_with_its_head(
    store: Store, commit_layer: CommitLayer, make_snapshot: MakeSnapshot
) -> None:
    layer = commit_layer("made")
    snapshot = make_snapshot("web", layer.key)
    store.index.publish(snapshot)
    store.index.set_head(Head("e", snapshot.slug, {"run-1": layer.key}, {}))
    store.index.remove_snapshot(snapshot.slug)
    assert store.index.snapshots() == ()
    assert store.index.head("e") is None
    assert not (store.snapshots / f"{snapshot.slug}.json").exists()
    with pytest.raises(NoSuchSnapshot):
        store.index.remove_snapshot(snapshot.slug)


def test_checks_are_remembered_by_key(store: Store) -> None:
    store.index.remember_check(CHECK, 0.5)
    other = Digest("sha256:" + "d" * 64)
    assert store.index.passed([CHECK, other]) == {CHECK}
    store.index.forget_checks([CHECK])
    assert store.index.passed([CHECK]) == frozenset()


def test_heads_and_failures_are_kept_by_environment(store: Store, clock: Clock) -> None:
    head = Head("e", None, {"base": CHECK}, {"base": {"suite": "trixie"}}, updated=5.0)
    failure = Failure("e", "w-1", "run-1", {"argv": ["false"]}, created=6.0)
    store.index.set_head(head)
    store.index.set_failure(failure)
    assert (store.index.head("e"), store.index.head("f")) == (head, None)
    assert (store.index.failure("e"), store.index.failure("f")) == (failure, None)
    store.index.clear_failure("e")
    assert store.index.failure("e") is None


def test_documents_are_kept_by_kind_and_key(store: Store) -> None:
    store.index.keep_documents("control", {"a": {"Package": "jq"}, "b": None})
    assert store.index.documents("control", ["a", "b", "c"]) == {"a": {"Package": "jq"}, "b": None}
    assert store.index.document("other", "a") is None
    store.index.forget_document("control", "a")
    assert store.index.document("control", "a") is None


def test_a_files_digest_is_remembered_until_anything_about_it_changes(home: Path) -> None:
    key = FileKey(2**64 - 1, 2**63 + 5, 3, 4, 5)
    with Store.open(home) as store:
        store.index.stat_cache().put(key, "a" * 64)
    with Store.open(home) as store:
        cache = store.index.stat_cache()
        assert cache.get(key) == "a" * 64
        for field in FileKey._fields:
            assert cache.get(key._replace(**{field: 0})) is None


def test_a_damaged_index_is_left_and_made_anew_from_the_directories(
    home: Path, store: Store, commit_layer: CommitLayer, make_snapshot: MakeSnapshot
) -> None:
    layer = commit_layer("made")
    snapshot, dangling = make_snapshot("web", layer.key), make_snapshot("gone", CHECK)
    store.index.publish(snapshot)
    store.index.publish(dangling)
    store.close()
    (home / "index.sqlite").write_bytes(b"not a database at all" * 100)
    with Store.open(home) as again:
        assert again.index.snapshots() == (snapshot,)
        assert again.index.layers_present([layer.key]) == {layer.key}
        (notice,) = again.notices
        assert "damaged; it was left as index.sqlite and made anew as index.2.sqlite" in notice
        assert (home / "index.sqlite").read_bytes().startswith(b"not a database")
    with Store.open(home) as later:
        assert later.index.snapshots() == (snapshot,)
        assert later.notices == ()


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + b"\xff" * 5000])
def test_any_kind_of_damage_is_survived_even_while_open(
    home: Path, store: Store, make_snapshot: MakeSnapshot, content: bytes
) -> None:
    snapshot = make_snapshot("web")
    store.index.publish(snapshot)
    with Store.open(home) as other:
        assert other.index.snapshots() == (snapshot,)
        other.close()
        store.close()
        (home / "index.sqlite").write_bytes(content)
        assert other.index.snapshots() == (snapshot,)
        assert len(other.notices) == 1
        assert store.index.snapshots() == (snapshot,)
        assert store.notices == ()


def test_damage_after_damage_is_survived(home: Path, store: Store, make_snapshot: MakeSnapshot) -> None:
    snapshot = make_snapshot("web")
    store.index.publish(snapshot)
    with Store.open(home) as other:
        for name in ("index.sqlite", "index.2.sqlite", "index.3.sqlite"):
            (home / name).write_bytes(b"")
            assert other.index.snapshots() == (snapshot,)
            store.index.keep_document("kind", name, 1)
            assert other.index.document("kind", name) == 1


def test_every_process_follows_when_the_index_is_taken_away(
    home: Path, store: Store, make_snapshot: MakeSnapshot
) -> None:
    assert store.index.snapshots() == ()
    (home / "index.sqlite").rename(home / "elsewhere")
    snapshot = make_snapshot("web")
    with Store.open(home) as other:
        other.index.publish(snapshot)
    assert store.index.snapshots() == (snapshot,)


def test_an_index_of_a_newer_version_is_refused_and_left_alone(home: Path, store: Store) -> None:
    store.index.snapshots()
    store.close()
    connection = sqlite3.connect(home / "index.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer version"):
        store.index.snapshots()
    store.close()
    assert not (home / "index.2.sqlite").exists()


def test_an_older_index_is_migrated_with_its_content(home: Path, store: Store) -> None:
    store.index.keep_document("kind", "key", "content")
    store.close()
    newer = (*MIGRATIONS, ("ALTER TABLE documents ADD COLUMN note TEXT NOT NULL DEFAULT 'new'",))
    database = Database(
        home,
        guard=lambda: store.locks.lock("index"),
        restore=lambda connection: pytest.fail("made anew"),
        migrations=newer,
    )
    try:
        row = database.read(
            lambda connection: connection.execute("SELECT content, note FROM documents").fetchone()
        )
        assert row == ('"content"', "new")
    finally:
        database.close()
    with pytest.raises(StoreError, match="newer version"):
        store.index.document("kind", "key")
