"""How much gc takes, in which order, and what it says about it; and what takes the disk."""

from __future__ import annotations

import pytest
from store_making import CommitLayer, MakeSnapshot

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.store.accounting import NOBODY, account
from sandboxfile.store.gc import DAY, GRACE, Item, Policy, Survey, collect
from sandboxfile.store.records import Head, LayerRecord, SnapshotRecord
from sandboxfile.store.store import Store
from sandboxfile.store.sweep import sweep, usage
from sandboxfile.store.uses import Used

NOW = 1_000_000_000.0


def key(letter: str) -> LayerKey:
    return LayerKey(Digest("sha256:" + letter * 64))


def layer(letter: str, *parents: str, days: float, size: int = 10) -> tuple[LayerKey, LayerRecord]:
    kind = "run"
    record = LayerRecord(
        key(letter), kind, letter, "", None, size, 1, tuple(map(key, parents)), 0.0, NOW - days * DAY
    )
    return record.key, record


# a <- b <- c, and d alone; 10 bytes each.
LAYERS = dict([layer("a", days=40), layer("b", "a", days=30), layer("c", "b", days=3), layer("d", days=20)])


def gone(survey: Survey, policy: Policy) -> str:
    return "".join(each[-1] for each in collect(survey, now=NOW, policy=policy).layers)


def test_without_limits_what_was_used_lately_stays_with_what_it_stands_on() -> None:
    assert gone(Survey(layers=LAYERS), Policy()) == "d"


@pytest.mark.parametrize(
    ("ceiling", "expected"), [(40, "d"), (30, "d"), (29, "cd"), (20, "cd"), (10, "bcd"), (0, "abcd")]
)
def test_a_ceiling_takes_the_longest_unused_first_and_never_what_stands_below(
    ceiling: int, expected: str
) -> None:
    assert gone(Survey(layers=LAYERS), Policy(max_size=ceiling)) == expected


def test_a_shortage_of_disk_works_like_a_ceiling() -> None:
    assert gone(Survey(layers=LAYERS), Policy(shortage=15)) == "cd"


@pytest.mark.parametrize(("floor", "expected"), [(40, ""), (39, "d"), (35, "d"), (30, "d"), (0, "abcd")])
def test_a_floor_stops_what_goes_by_age(floor: int, expected: str) -> None:
    assert gone(Survey(layers=LAYERS), Policy(keep_days=0, keep_bytes=floor)) == expected


def test_neither_ceiling_nor_age_takes_what_a_snapshot_or_anything_running_needs() -> None:
    snapshot = SnapshotRecord("web-1", key("e"), "web", (key("a"), key("b")), {}, 0.0, 0.0)
    survey = Survey(layers=LAYERS, snapshots=(snapshot,), used=Used(1, frozenset([key("d")])))
    garbage = collect(survey, now=NOW, policy=Policy(keep_days=0, max_size=0))
    assert garbage.layers == (key("c"),)
    reasons = {each.title: each.reason for each in garbage.verdicts}
    assert reasons["a"] == "the snapshot web-1 needs it"
    assert reasons["d"] == "a running build or sandbox uses it"


def test_while_somebody_is_at_work_a_ceiling_leaves_what_was_just_used() -> None:
    layers = dict([layer("a", days=GRACE / DAY / 2), layer("b", days=1)])
    assert gone(Survey(busy=True, layers=layers), Policy(max_size=0)) == "b"


def test_packages_and_layers_go_in_one_order_of_use() -> None:
    blobs = (Item("1" * 64, NOW - 2 * DAY, 10), Item("2" * 64, NOW - 5 * DAY, 10))
    survey = Survey(layers=dict([layer("a", days=3)]), blobs=blobs)
    garbage = collect(survey, now=NOW, policy=Policy(max_size=15))
    assert (garbage.layers, garbage.blobs) == ((key("a"),), ("2" * 64,))


def test_every_layer_and_package_has_one_verdict_with_a_reason() -> None:
    survey = Survey(layers=LAYERS, blobs=(Item("1" * 64, NOW - 90 * DAY, 10), Item("2" * 64, NOW, 10)))
    verdicts = collect(survey, now=NOW).verdicts
    assert sorted(each.title for each in verdicts) == ["1" * 16, "2" * 16, "a", "b", "c", "d"]
    assert {each.title: each.reason for each in verdicts if each.title in "abcd"} == {
        "a": "`b` stands on it",
        "b": "`c` stands on it",
        "c": "last used 3 days ago",
        "d": "nothing needs it, and it was last used 20 days ago",
    }
    assert [each.title for each in verdicts if each.goes] == ["1" * 16, "d"]


def heads() -> tuple[Head, ...]:
    shared = {"base": key("a"), "apt-1": key("b")}
    pins = {"apt-1": {"install": [{"sha256": "1" * 64}]}}
    return (
        Head("/one", "one-1", {**shared, "run-1": key("c")}, pins),
        Head("/two", "two-1", shared, pins),
    )


SURVEY = Survey(
    layers=LAYERS,
    heads=heads(),
    blobs=(Item("1" * 64, NOW, 100), Item("2" * 64, NOW - 60 * DAY, 7)),
    logs=(Item("x.log", NOW, 5),),
)


def test_shared_bytes_are_in_each_row_and_once_in_the_total() -> None:
    found = account(SURVEY, (), "environment", now=NOW)
    assert [(row.name, row.layers, row.packages, row.size, row.shared) for row in found.rows] == [
        ("/one", 3, 1, 130, 120),
        ("/two", 2, 1, 120, 120),
        (NOBODY, 1, 1, 22, 0),
    ]
    assert found.total == 40 + 107 + 5


def test_groups_are_rows_of_their_environment() -> None:
    found = account(SURVEY, (), "group", now=NOW)
    assert [(row.name, row.size, row.shared) for row in found.rows] == [
        ("/one  base", 10, 10),
        ("/one  group  1", 110, 110),
        ("/one  run", 10, 0),
        ("/two  base", 10, 10),
        ("/two  group  1", 110, 110),
        (NOBODY, 22, 0),
    ]


@pytest.mark.parametrize("by", ["kind", "age"])
def test_rows_by_kind_and_by_age_add_up(by: str) -> None:
    found = account(SURVEY, (), by, now=NOW)
    assert sum(row.size for row in found.rows) == found.total == 152
    if by == "age":
        assert [(row.name, row.size) for row in found.rows] == [
            ("today", 105),
            ("this week", 10),
            ("this month", 10),
            ("older", 27),
        ]


def test_an_earlier_snapshot_counts_for_the_environment_that_built_it() -> None:
    snapshot = SnapshotRecord("one-0", key("e"), "one", (key("d"),), {}, 0.0, 0.0)
    foreign = SnapshotRecord("api-0", key("e"), "api", (key("d"),), {}, 0.0, 0.0)
    survey = Survey(layers=LAYERS, snapshots=(snapshot, foreign))
    places = (("/one", "one-0", {"run-1": key("d")}),)
    rows = {row.name: row.size for row in account(survey, places, "environment", now=NOW).rows}
    assert rows == {"/one": 10, "snapshot api-0": 10, NOBODY: 30}


def test_the_usage_of_a_store_adds_up_to_what_is_on_disk(
    store: Store, commit_layer: CommitLayer, make_snapshot: MakeSnapshot
) -> None:
    made = commit_layer("make all", size=500)
    store.index.publish(make_snapshot("web", made.key))
    store.blobs.put_bytes(b"x" * 70)
    by_kind = usage(store, "kind")
    rows = {row.name: row.size for row in by_kind.rows}
    assert (rows["layers: run"], rows["packages"]) == (500, 70)
    assert by_kind.total == sum(rows.values())
    assert usage(store, "environment").total == 570


def test_a_ceiling_is_kept_by_a_sweep(store: Store, commit_layer: CommitLayer) -> None:
    old, new = commit_layer("old", size=500), commit_layer("new", size=500)
    store.index._database.write(
        lambda c: c.execute("UPDATE layers SET last_used = last_used - 10000 WHERE key = ?", (old.key,))
    )
    swept = sweep(store, Policy(max_size=600))
    assert swept.garbage.layers == (old.key,)
    assert store.index.evictions.of([old.key])[old.key].reason.startswith(
        "`cache gc`: the store was larger than allowed; "
    )
    assert store.index.layers_present([old.key, new.key]) == {new.key}


def test_a_sweep_for_free_space_takes_what_is_missing_and_no_more(
    store: Store, commit_layer: CommitLayer
) -> None:
    made = commit_layer("made", size=500)
    assert sweep(store, min_free=1).garbage.layers == ()
    assert sweep(store, min_free=1 << 60).garbage.layers == (made.key,)
