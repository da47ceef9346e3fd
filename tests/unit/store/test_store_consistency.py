"""`check` finds every kind of damage, and `repair` leaves a store in which it finds none."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from store_making import CommitLayer, MakeSnapshot

from sandboxfile.core.digest import Digest
from sandboxfile.store.consistency import Remedy, check, repair, wrong_content
from sandboxfile.store.locks import own_new
from sandboxfile.store.records import LayerRecord, SnapshotRecord
from sandboxfile.store.store import Store


@pytest.fixture
def made(store: Store, commit_layer: CommitLayer) -> LayerRecord:
    return commit_layer("make all")


@pytest.fixture
def published(store: Store, made: LayerRecord, make_snapshot: MakeSnapshot) -> SnapshotRecord:
    snapshot = make_snapshot("web", made.key)
    store.index.publish(snapshot)
    return snapshot


def test_a_sound_store_has_no_problems_and_no_leftovers(store: Store, published: SnapshotRecord) -> None:
    store.blobs.put_bytes(b"hello")
    found = check(store, full=True)
    assert (found.problems, found.leftovers) == ((), ())
    assert found.looked_at == {"layers": 1, "snapshots": 1, "volumes": 0, "packages": 1}


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


DAMAGES: list[tuple[str, Callable[[Store, Path], object], str]] = [
    ("no directory", lambda s, d: shutil.rmtree(d), "`make all`: its directory is missing"),
    (
        "no record",
        lambda s, d: (d / "layer.json").write_text("{"),
        "`make all`: its record layer.json is missing or damaged",
    ),
    ("no content", lambda s, d: shutil.rmtree(d / "fs"), "`make all`: its content is missing (fs)"),
    (
        "another digest",
        lambda s, d: edit(d / "layer.json", diff_id="sha256:" + "0" * 64),
        f"`make all`: layer.json says the digest sha256:{'0' * 64}, the index None",
    ),
    (
        "another definition",
        lambda s, d: s.index._database.write(lambda c: c.execute("UPDATE layers SET preimage = '[1,2]'")),
        "`make all`: its definition is not what its key was made of",
    ),
]


@pytest.mark.parametrize(("damage", "text"), [(d, t) for _, d, t in DAMAGES], ids=[n for n, _, _ in DAMAGES])
def test_a_damaged_layer_is_found_taken_out_and_remembered(
    store: Store,
    made: LayerRecord,
    published: SnapshotRecord,
    damage: Callable[[Store, Path], object],
    text: str,
) -> None:
    damage(store, store.layer_dir(made.key))
    layer, snapshot = check(store).problems
    assert (layer.kind, layer.name, layer.text, layer.remedy) == ("layer", made.key, text, Remedy.REPAIR)
    assert snapshot.text == "1 of its 1 layers are not in the store"
    assert snapshot.remedy is Remedy.BUILD
    assert repair(store, (layer, snapshot)) == (layer,)
    assert store.index.layers() == {}
    assert not store.layer_dir(made.key).exists()
    assert store.index.evictions.of([made.key])[made.key].reason == "`cache check` found it damaged"
    # The snapshot is left: building again makes it whole.
    assert [each.kind for each in check(store).problems] == ["snapshot"]
    store.index.record_layer(made)


def test_content_that_is_not_what_was_built_is_a_problem(made: LayerRecord) -> None:
    from dataclasses import replace

    one, two = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)
    problem = wrong_content(replace(made, diff_id=one), two)
    assert problem is not None
    assert problem.text == f"`make all`: its files are not what was built: their digest is {two}, not {one}"
    assert wrong_content(replace(made, diff_id=one), one) is None
    assert wrong_content(made, two) is None


@pytest.mark.parametrize("content", [None, "{", '{"key": "sha256:0", "layers": []}'])
def test_a_snapshots_file_is_written_again(
    store: Store, published: SnapshotRecord, content: str | None
) -> None:
    path = store.snapshots / f"{published.slug}.json"
    before = path.read_text()
    path.unlink() if content is None else path.write_text(content)
    problems = check(store).problems
    assert [(each.kind, each.name) for each in problems] == [("snapshot", published.slug)]
    assert repair(store, problems) == problems
    assert path.read_text() == before
    assert check(store).problems == ()


def test_a_package_with_other_bytes_is_found_by_a_full_check_and_removed(store: Store) -> None:
    sha256 = store.blobs.put_bytes(b"hello")
    path = store.blobs.path(sha256)
    path.chmod(0o644)
    path.write_bytes(b"hullo")
    assert check(store).problems == ()
    problems = check(store, full=True).problems
    assert [(each.kind, each.name) for each in problems] == [("package", sha256)]
    assert path.exists()
    repair(store, problems)
    assert not path.exists()
    assert check(store, full=True).problems == ()


def test_what_is_no_package_is_found_without_a_full_check(store: Store) -> None:
    stray = store.blobs.directory / "sha256" / "README"
    stray.write_text("?")
    problems = check(store).problems
    assert [(each.name, each.text) for each in problems] == [("blobs/sha256/README", "it is no package")]
    repair(store, problems)
    assert not stray.exists()


def test_leftovers_are_named_and_are_no_problem(store: Store, made: LayerRecord) -> None:
    own_new(store.workspaces / "w-1").release()
    (store.trash / "old").mkdir()
    (store.snapshots / "gone-1.json").write_text("{}")
    (store.layers / "half-made").mkdir()
    (store.blobs.incoming / "1-abc").touch()
    (store.volumes / "gone.json").write_text("{}")
    (store.home / ".VERSION.1-abc").touch()
    (store.staging / "stage-1").mkdir()
    for name in (".new.abc", ".old.abc"):
        (store.placements / name).mkdir()
    # The clock of these tests is fixed.
    os.utime(store.placements / ".new.abc", (store.clock(), store.clock()))
    os.utime(store.placements / ".old.abc", (1, 1))
    found = check(store)
    assert found.problems == ()
    assert sorted(found.leftovers) == [
        ".VERSION.1-abc",
        "blobs/incoming/1-abc",
        "layers/half-made",
        "placements/.old.abc",
        "snapshots/gone-1.json",
        "staging/stage-1",
        "trash/old",
        "volumes/gone.json",
        "workspaces/w-1",
    ]


def test_a_layer_whose_build_was_killed_before_its_record_is_taken_in(
    store: Store, commit_layer: CommitLayer
) -> None:
    commit_layer("make all", record=False)
    found = check(store)
    assert (found.problems, found.looked_at["layers"]) == ((), 1)


def test_an_index_that_sqlite_finds_damaged_is_a_problem_and_made_anew(
    store: Store, home: Path, published: SnapshotRecord
) -> None:
    store.index.close()
    with sqlite3.connect(home / "index.sqlite") as connection:
        # A row that is in a table and not in its index: each page can be read, and they do not agree.
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_schema WHERE name = 'snapshots_by_name'")
        connection.execute("PRAGMA writable_schema = OFF")
    connection.close()
    with Store.open(home) as again:
        problems = check(again, full=True).problems
        assert [(each.kind, each.remedy) for each in problems] == [("index", Remedy.REPAIR)]
        repair(again, problems)
        assert check(again, full=True).problems == ()
        assert [each.slug for each in again.index.snapshots()] == [published.slug]
