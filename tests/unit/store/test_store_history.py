"""What the store remembers of evictions and of earlier builds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from store_making import Clock, CommitLayer, MakeSnapshot

from sandboxfile.core.layer import LayerKey
from sandboxfile.store import durability, environments, evictions
from sandboxfile.store.gc import DAY, Policy
from sandboxfile.store.records import Done, Head
from sandboxfile.store.store import Store
from sandboxfile.store.sweep import sweep

BUILT = (Done("run-1", "build", "definition-changed", "command: a -> b", ("command: a -> b",)),)


def head(slug: str, **layers: LayerKey) -> Head:
    named = {name.replace("_", "-"): key for name, key in layers.items()}
    return Head("/home/me/Sandboxfile", slug, named, {name: {"kind": "run"} for name in named})


def test_an_eviction_is_remembered_with_its_reason_and_environment(
    store: Store, commit_layer: CommitLayer, clock: Clock
) -> None:
    made = commit_layer("make all", size=123)
    store.index.set_head(head("web-1", run_1=made.key), BUILT)
    clock.now += 20 * DAY
    sweep(store)
    stone = store.index.evictions.of([made.key])[made.key]
    assert (stone.name, stone.environment, stone.size) == ("make all", "/home/me/Sandboxfile", 123)
    assert stone.reason == "`cache gc`: nothing needs it, and it was last used 20 days ago"
    assert stone.evicted == clock.now
    assert stone.preimage == made.preimage


def test_a_layer_that_is_built_again_has_no_tombstone(store: Store, commit_layer: CommitLayer) -> None:
    made = commit_layer("make all")
    store.index.forget_layers([made.key], "a test")
    assert made.key in store.index.evictions.of([made.key])
    store.index.record_layer(made)
    assert store.index.evictions.of([made.key]) == {}


def test_a_layer_that_is_forgotten_without_a_reason_leaves_nothing(
    store: Store, commit_layer: CommitLayer
) -> None:
    made = commit_layer("make all")
    store.index.forget_layers([made.key])
    assert store.index.evictions.all() == ()


def test_tombstones_are_bounded(
    store: Store, commit_layer: CommitLayer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evictions, "KEPT", 3)
    for number in range(5):
        clock.now += 1
        store.index.forget_layers([commit_layer(f"step {number}").key], "a test")
    assert [stone.name for stone in store.index.evictions.all()] == ["step 4", "step 3", "step 2"]


def test_builds_are_numbered_and_the_last_comes_first(store: Store, commit_layer: CommitLayer) -> None:
    first, second = commit_layer("one"), commit_layer("two")
    store.index.set_head(head("web-1", run_1=first.key), BUILT)
    store.index.set_head(head("web-2", run_1=first.key, run_2=second.key), BUILT)
    last, before = store.index.builds("/home/me/Sandboxfile")
    assert (last.number, last.slug, before.number, before.slug) == (2, "web-2", 1, "web-1")
    assert last.layers == {"run-1": first.key, "run-2": second.key}
    assert last.actions == BUILT
    assert store.index.builds("/elsewhere") == ()


def test_a_build_that_did_nothing_is_no_build_of_its_own(store: Store, commit_layer: CommitLayer) -> None:
    made = commit_layer("one")
    reused = (Done("run-1", "reuse", "present", "already built"),)
    store.index.set_head(head("web-1", run_1=made.key), BUILT)
    store.index.set_head(head("web-1", run_1=made.key), reused)
    assert len(store.index.builds("/home/me/Sandboxfile")) == 1
    store.index.set_head(head("web-1", run_1=made.key), BUILT)
    assert [b.number for b in store.index.builds("/home/me/Sandboxfile")] == [2, 1]


def test_the_history_of_an_environment_is_bounded_in_number_and_bytes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "BUILDS_KEPT", 3)
    for number in range(6):
        store.index.set_head(head(f"web-{number}"), BUILT)
    assert [b.number for b in store.index.builds("/home/me/Sandboxfile")] == [6, 5, 4]
    monkeypatch.setattr(environments, "BYTES_KEPT", 1)
    store.index.set_head(head("web-9"), BUILT)
    assert [b.number for b in store.index.builds("/home/me/Sandboxfile")] == [7]


def test_gc_forgets_old_builds_but_never_the_last(store: Store, clock: Clock) -> None:
    for number in range(3):
        store.index.set_head(head(f"web-{number}"), BUILT)
    clock.now += 400 * DAY
    sweep(store, Policy(keep_days=1))
    assert [b.number for b in store.index.builds("/home/me/Sandboxfile")] == [3]


@pytest.fixture
def other_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "this_boot", lambda: "the-next-boot")


def doubtful(store: Store, made: CommitLayer, command: str) -> LayerKey:
    """A layer that was recorded, and not known to be on disk when the machine stopped."""
    from dataclasses import replace

    record = replace(made(command, record=False), boot="the-boot-before")
    store.index.record_layer(record)
    return record.key


@pytest.mark.usefixtures("other_boot")
def test_a_layer_that_a_loss_of_power_may_have_damaged_is_put_aside(
    store: Store, commit_layer: CommitLayer
) -> None:
    key = doubtful(store, commit_layer, "make all")
    assert store.index.layers_present([key]) == frozenset()
    assert not store.layer_dir(key).exists()
    assert len(os.listdir(store.trash)) == 1
    assert store.index.evictions.of([key])[key].reason == (
        "the machine stopped before its files were known to be on disk"
    )


@pytest.mark.usefixtures("other_boot")
def test_a_directory_of_an_earlier_boot_without_a_record_is_put_aside(
    store: Store, commit_layer: CommitLayer
) -> None:
    made = commit_layer("make all", record=False)
    path = store.layer_dir(made.key) / "layer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "the-boot-before"}))
    store.index.adopt_layers()
    assert store.index.layers() == {}
    assert not store.layer_dir(made.key).exists()


@pytest.mark.usefixtures("other_boot")
def test_what_was_made_durable_outlives_the_boot(store: Store, commit_layer: CommitLayer) -> None:
    key = doubtful(store, commit_layer, "make all")
    store.index.make_durable()
    assert store.index.layers_present([key]) == {key}


@pytest.mark.usefixtures("other_boot")
def test_a_published_layer_is_believed_when_the_index_is_lost(
    store: Store, home: Path, commit_layer: CommitLayer, make_snapshot: MakeSnapshot
) -> None:
    made = commit_layer("make all")
    path = store.layer_dir(made.key) / "layer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "the-boot-before"}))
    store.index.publish(make_snapshot("web", made.key))
    store.close()
    (home / "index.sqlite").write_bytes(b"\xff" * 9000)
    with Store.open(home) as again:
        assert again.index.layers_present([made.key]) == {made.key}
