"""Laws of the decision what to remove, over random stores."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.store.gc import DAY, Policy, Survey, collect
from sandboxfile.store.records import Head, LayerRecord, SnapshotRecord
from sandboxfile.store.uses import Used

NOW = 1_000_000_000.0
times = st.sampled_from([0.0, NOW - 20 * DAY, NOW - 5 * DAY, NOW - 60])


def key(number: int) -> LayerKey:
    return LayerKey(Digest(f"sha256:{number:064x}"))


@st.composite
def surveys(draw: st.DrawFn) -> Survey:
    count = draw(st.integers(1, 12))
    layers = {}
    for number in range(count):
        below = draw(st.lists(st.integers(0, number - 1), max_size=3)) if number else []
        parents = tuple(key(each) for each in below)
        layers[key(number)] = LayerRecord(key(number), "run", "x", "", None, 1, 1, parents, 0.0, draw(times))
    stacks = st.lists(st.integers(0, count + 2), max_size=4).map(lambda each: tuple(map(key, each)))
    snapshots = tuple(
        SnapshotRecord(f"s{n}", key(999), "s", stack, {}, 0.0, 0.0)
        for n, stack in enumerate(draw(st.lists(stacks, max_size=3)))
    )
    heads = tuple(
        Head(f"e{n}", None, dict(enumerate_names(stack)), {}, draw(times))
        for n, stack in enumerate(draw(st.lists(stacks, max_size=3)))
    )
    return Survey(
        busy=draw(st.booleans()),
        layers=layers,
        snapshots=snapshots,
        heads=heads,
        used=Used(layers=frozenset(draw(stacks))),
    )


def enumerate_names(stack: tuple[LayerKey, ...]) -> list[tuple[str, LayerKey]]:
    return [(f"run-{n}", each) for n, each in enumerate(stack)]


@given(surveys(), st.sampled_from([0.0, 1.0, 7.0, 30.0]))
def test_nothing_that_is_needed_goes_with_anything_it_builds_on(survey: Survey, keep_days: float) -> None:
    gone = set(collect(survey, now=NOW, policy=Policy(keep_days=keep_days)).layers)
    needed = set(survey.used.layers) | {each for s in survey.snapshots for each in s.layers}
    assert not gone & needed
    for record in survey.layers.values():
        if record.key not in gone:
            assert not gone & set(record.parents)


@given(surveys(), st.sampled_from([0.0, 1.0, 7.0, 30.0]))
def test_what_is_left_has_no_garbage(survey: Survey, keep_days: float) -> None:
    gone = collect(survey, now=NOW, policy=Policy(keep_days=keep_days)).layers
    left = {each: record for each, record in survey.layers.items() if each not in gone}
    rest = Survey(survey.busy, left, survey.snapshots, survey.heads, used=survey.used)
    assert collect(rest, now=NOW, policy=Policy(keep_days=keep_days)).layers == ()


@given(surveys())
def test_keeping_longer_never_removes_more(survey: Survey) -> None:
    removed = [set(collect(survey, now=NOW, policy=Policy(keep_days=days)).layers) for days in (0, 1, 7, 30)]
    assert all(longer <= shorter for shorter, longer in itertools.pairwise(removed))
