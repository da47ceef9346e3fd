from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from store_making import Clock, CommitLayer, MakeSnapshot

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.errors import StoreError
from sandboxfile.store.gc import DAY, GRACE, Garbage, Item, KeptWorkspace, Policy, Survey, collect
from sandboxfile.store.locks import own_new
from sandboxfile.store.records import Failure, Head, LayerRecord, SnapshotRecord
from sandboxfile.store.store import Store
from sandboxfile.store.sweep import disk_usage, empty_trash, sweep, trash_entries
from sandboxfile.store.uses import Used

NOW = 1_000_000_000.0


def key(letter: str) -> LayerKey:
    return LayerKey(Digest("sha256:" + letter * 64))


def layer(letter: str, *parents: str, used: float = 0.0) -> tuple[LayerKey, LayerRecord]:
    record = LayerRecord(key(letter), "run", letter, "", None, 1, 1, tuple(map(key, parents)), 0.0, used)
    return record.key, record


def removed(survey: Survey, *, keep_days: float = 7) -> str:
    garbage = collect(survey, now=NOW, policy=Policy(keep_days=keep_days))
    return "".join(each[-1] for each in garbage.layers)


LAYERS = dict([layer("a"), layer("b", "a"), layer("c", "b"), layer("d", "a")])


def test_what_nothing_refers_to_goes() -> None:
    assert removed(Survey(layers=LAYERS)) == "abcd"


def test_a_snapshots_layers_stay() -> None:
    snapshot = SnapshotRecord("s", key("e"), "s", (key("a"), key("b")), {}, 0.0, 0.0)
    assert removed(Survey(layers=LAYERS, snapshots=(snapshot,))) == "cd"


def test_what_a_root_builds_on_stays() -> None:
    assert removed(Survey(layers=LAYERS, used=Used(1, frozenset([key("c")])))) == "d"


def test_the_head_of_an_environment_built_lately_stays() -> None:
    head = Head("e", None, {"run-1": key("b")}, {}, updated=NOW - 6 * DAY)
    assert removed(Survey(layers=LAYERS, heads=(head,))) == "cd"
    assert removed(Survey(layers=LAYERS, heads=(head,)), keep_days=5) == "abcd"


def test_a_layer_used_lately_stays() -> None:
    lately = {**LAYERS, **dict([layer("b", "a", used=NOW - DAY)])}
    assert removed(Survey(layers=lately)) == "cd"
    assert removed(Survey(layers=lately), keep_days=0) == "abcd"


def test_while_a_client_is_at_work_what_was_just_used_stays() -> None:
    lately = {**LAYERS, **dict([layer("b", "a", used=NOW - 60)])}
    assert removed(Survey(layers=lately, busy=True), keep_days=0) == "cd"


def test_the_stack_of_a_kept_workspace_stays_while_debug_can_open_it() -> None:
    kept = KeptWorkspace("w-1", (key("b"),), used=0.0, owned=False)
    failure = Failure("e", "w-1", "run-1", {}, created=NOW - DAY)
    survey = Survey(layers=LAYERS, kept=(kept,), failures=(failure,))
    assert removed(survey) == "cd"
    assert collect(survey, now=NOW, policy=Policy(keep_days=7)).kept == ()
    assert collect(survey, now=NOW, policy=Policy(keep_days=0)).kept == ("w-1",)
    assert removed(replace(survey, failures=())) == "abcd"


@pytest.mark.parametrize(
    ("owned", "age", "goes"),
    [(True, 1e9, False), (False, 0, True), (None, GRACE / 2, False), (None, GRACE * 2, True)],
)
def test_workspaces_go_with_their_client(owned: bool | None, age: float, goes: bool) -> None:
    workspace = KeptWorkspace("w-1", (), NOW - age, owned)
    garbage = collect(Survey(workspaces=(workspace,)), now=NOW)
    assert bool(garbage.workspaces) is goes


def test_blobs_stay_when_used_lately_held_or_part_of_a_recent_build() -> None:
    blobs = (Item("a" * 64, NOW), Item("b" * 64, 0), Item("c" * 64, 0), Item("d" * 64, 0))
    head = Head("e", None, {}, {"apt-1": {"install": [{"sha256": "b" * 64}]}}, updated=NOW)
    survey = Survey(blobs=blobs, heads=(head,), used=Used(1, blobs=frozenset(["c" * 64])))
    assert collect(survey, now=NOW).blobs == ("d" * 64,)


def test_logs_stay_with_their_layer() -> None:
    logs = (Item(f"{'a' * 64}.log", 0), Item(f"{'e' * 64}.log", 0), Item(f"{'f' * 64}.log", NOW))
    survey = Survey(layers=LAYERS, logs=logs, used=Used(1, frozenset([key("a")])))
    assert collect(survey, now=NOW).logs == (f"{'e' * 64}.log",)


def test_a_sweep_takes_out_and_leaves_what_is_needed(
    store: Store, commit_layer: CommitLayer, make_snapshot: MakeSnapshot
) -> None:
    needed, unneeded = commit_layer("needed"), commit_layer("unneeded", size=500)
    unrecorded = commit_layer("unrecorded", size=7, record=False)
    store.index.publish(make_snapshot("web", needed.key))
    blob = store.blobs.put_bytes(b"hello")
    os.utime(store.blobs.path(blob), (1, 1))
    store.log_path(unneeded.key).write_text("log")
    os.utime(store.log_path(unneeded.key), (1, 1))
    dry = sweep(store, Policy(keep_days=0), dry_run=True)
    assert store.layer_dir(unneeded.key).is_dir()
    swept = sweep(store, Policy(keep_days=0))
    assert swept == dry
    assert set(swept.garbage.layers) == {unneeded.key, unrecorded.key}
    assert (swept.sizes["layers"], swept.sizes["packages"], swept.sizes["logs"]) == (507, 5, 3)
    assert swept.sizes["total"] == 515
    assert store.index.layers().keys() == {needed.key}
    assert [path.name for path in store.layers.iterdir()] == [store.layer_dir(needed.key).name]
    assert not store.blobs.has(blob)
    assert len(trash_entries(store)) == 2
    empty_trash(store)
    assert trash_entries(store) == ()
    assert sweep(store, Policy(keep_days=0)).garbage == Garbage()


def test_a_removed_snapshots_layers_go_with_the_next_sweep(
    store: Store, commit_layer: CommitLayer, make_snapshot: MakeSnapshot
) -> None:
    shared, own = commit_layer("shared"), commit_layer("own")
    first, second = make_snapshot("a", shared.key), make_snapshot("b", shared.key, own.key)
    for snapshot in (first, second):
        store.index.publish(snapshot)
    store.index.remove_snapshot(second.slug)
    assert sweep(store).garbage.layers == (own.key,)


def test_what_a_living_client_holds_stays_until_it_lets_go(store: Store, commit_layer: CommitLayer) -> None:
    made = commit_layer("made")
    with store.in_use([made.key]), Store.open(store.home, clock=store.clock) as other:
        assert sweep(other, Policy(keep_days=0)).garbage.layers == ()
        with store.in_use([made.key]):
            pass
        assert sweep(other, Policy(keep_days=0)).garbage.layers == ()
    store.uses.close()
    assert sweep(store, Policy(keep_days=0)).garbage.layers == (made.key,)


def test_what_a_killed_client_held_is_free(store: Store, commit_layer: CommitLayer) -> None:
    made = commit_layer("made")
    code = (
        "import sys; from pathlib import Path; from sandboxfile.store.store import Store\n"
        "hold = Store.open(Path(sys.argv[1])).in_use([sys.argv[2]])\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, store.home, made.key], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert sweep(store, Policy(keep_days=0)).garbage.layers == ()
        process.kill()
    assert sweep(store, Policy(keep_days=0)).garbage.layers == (made.key,)
    assert os.listdir(store.locks.directory / "uses") == []


def test_leftovers_of_dead_clients_go(store: Store) -> None:
    (store.staging / "stage-1").mkdir()
    alive, dead = own_new(store.workspaces / "alive"), own_new(store.workspaces / "dead")
    (store.workspaces / "dead" / "upper").write_bytes(b"12345")
    dead.release()
    (store.blobs.incoming / "1-dead").write_bytes(b"123")
    (store.snapshots / "half-0123456789abcdef.json").write_text("{}")
    with store.blobs.writer() as writer:
        writer.write(b"1234567")
        swept = sweep(store)
    assert swept.garbage.workspaces == ("dead",)
    assert swept.garbage.staging == ("stage-1",)
    assert swept.sizes["garbage"] >= 8
    assert os.listdir(store.workspaces) == ["alive"]
    assert os.listdir(store.blobs.incoming) == []
    assert os.listdir(store.snapshots) == []
    assert store.blobs.has(writer.sha256)
    alive.release()


def test_staged_files_stay_while_anybody_is_at_work(store: Store, clock: Clock) -> None:
    clock.now = time.time()
    (store.staging / "stage-1").mkdir()
    with store.locks.lock("lock-of-a-file"):
        assert sweep(store).garbage.staging == ()
    with store.in_use():
        assert sweep(store).garbage.staging == ()
    store.uses.close()
    assert sweep(store).garbage.staging == ("stage-1",)


def test_a_layer_whose_document_is_damaged_goes_and_is_then_absent(
    store: Store, commit_layer: CommitLayer, make_snapshot: MakeSnapshot, clock: Clock
) -> None:
    made = commit_layer("made")
    store.index.publish(make_snapshot("web", made.key))
    (store.layer_dir(made.key) / "layer.json").write_text("{")
    clock.now = time.time() + 2 * GRACE
    sweep(store)
    assert store.index.layers_present([made.key]) == frozenset()


def test_the_engine_may_delete_what_was_taken_out(store: Store, commit_layer: CommitLayer) -> None:
    commit_layer("made")
    sweep(store, Policy(keep_days=0))
    deleted: list[Path] = []
    empty_trash(store, deleted.append)
    assert deleted == list(trash_entries(store))


def test_what_cannot_be_deleted_is_said_after_the_rest_is_gone(
    store: Store, commit_layer: CommitLayer
) -> None:
    commit_layer("a")
    commit_layer("b")
    sweep(store, Policy(keep_days=0))
    first, _ = trash_entries(store)

    def delete(path: Path) -> None:
        if path == first:
            raise PermissionError(13, "Permission denied", str(path))
        (path / "layer.json").unlink()
        (path / "fs").rmdir()
        path.rmdir()

    with pytest.raises(StoreError, match="permission denied while deleting"):
        empty_trash(store, delete)
    assert trash_entries(store) == (first,)


def test_old_remembered_work_goes_and_young_stays(store: Store, clock: Clock) -> None:
    check = Digest("sha256:" + "c" * 64)
    store.index.keep_document("control", "old", 1)
    store.index.remember_check(check, 1.0)
    clock.now += 10 * DAY
    store.index.keep_document("control", "young", 2)
    sweep(store, Policy(keep_days=5))
    assert store.index.documents("control", ["old", "young"]) == {"young": 2}
    assert store.index.passed([check]) == {check}


def test_a_damaged_index_is_removed_when_it_is_old(store: Store, clock: Clock) -> None:
    store.index.snapshots()
    (store.home / "index.sqlite").write_bytes(b"damaged" * 1000)
    clock.now = time.time()
    sweep(store, Policy(keep_days=1))
    assert (store.home / "index.sqlite").exists()
    clock.now += 2 * DAY
    sweep(store, Policy(keep_days=1))
    assert sorted(path.name for path in store.home.glob("index.*sqlite")) == ["index.2.sqlite"]
    assert store.index.snapshots() == ()


def test_disk_usage_counts_every_byte_once(store: Store, commit_layer: CommitLayer) -> None:
    commit_layer("made", size=1000)
    store.blobs.put_bytes(b"hello")
    (store.logs / "x.log").write_bytes(b"1234")
    (store.kept / "w-1").mkdir()
    (store.kept / "w-1" / "state.json").write_text(json.dumps({"stack": []}))
    (store.trash / "t").mkdir()
    (store.trash / "t" / "file").write_bytes(b"12")
    os.link(store.trash / "t" / "file", store.trash / "t" / "again")
    sizes = disk_usage(store)
    assert {kind: sizes[kind] for kind in ("layers", "packages", "logs", "kept", "garbage")} == {
        "layers": 1000,
        "packages": 5,
        "logs": 4,
        "kept": 13,
        "garbage": 2,
    }
    assert sizes["total"] == sum(size for kind, size in sizes.items() if kind != "total")
