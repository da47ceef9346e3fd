"""The ready queue, whatever happens: never early, never twice, always to the end."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sandboxfile.errors import PlanError
from sandboxfile.plan.schedule import Schedule, State

FINAL = {State.FINISHED, State.FAILED, State.CANCELLED, State.SKIPPED}


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    names = [f"n{number}" for number in range(draw(st.integers(1, 12)))]
    return {
        name: tuple(draw(st.lists(st.sampled_from(names[:at]), unique=True, max_size=4))) if at else ()
        for at, name in enumerate(names)
    }


class ScheduleMachine(RuleBasedStateMachine):
    @initialize(needs=graphs(), data=st.data())
    def make(self, needs: dict[str, tuple[str, ...]], data: st.DataObject) -> None:
        self.needs = needs
        costs = data.draw(st.dictionaries(st.sampled_from(sorted(needs)), st.floats(0, 100)))
        done = data.draw(st.sets(st.sampled_from(sorted(needs))))
        self.schedule = Schedule(needs, costs, done=done)
        self.started: set[str] = set(done)
        self.broken = False

    @precondition(lambda self: self.schedule.ready())
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.schedule.ready()))
        assert name not in self.started
        assert all(self.schedule.state(need) is State.FINISHED for need in self.needs[name])
        self.schedule.start(name)
        self.started.add(name)

    @precondition(lambda self: self.schedule.running())
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.schedule.finish(data.draw(st.sampled_from(self.schedule.running())))

    @precondition(lambda self: self.schedule.running())
    @rule(data=st.data(), cancelled=st.booleans())
    def fail(self, data: st.DataObject, cancelled: bool) -> None:
        name = data.draw(st.sampled_from(self.schedule.running()))
        self.broken = True
        skipped = self.schedule.cancel(name) if cancelled else self.schedule.fail(name)
        assert all(self.schedule.state(each) is State.SKIPPED for each in skipped)

    @rule(stop=st.sampled_from([False] * 9 + [True]))
    def stop(self, stop: bool) -> None:
        if stop:
            self.broken = True
            self.schedule.stop()
            assert self.schedule.ready() == ()

    @invariant()
    def it_is_done_when_every_node_is_at_its_end(self) -> None:
        states = {name: self.schedule.state(name) for name in self.needs}
        assert self.schedule.done == all(state in FINAL for state in states.values())
        assert self.broken or State.SKIPPED not in states.values()

    @invariant()
    def it_never_gets_stuck(self) -> None:
        assert self.schedule.done or self.schedule.ready() or self.schedule.running()

    def teardown(self) -> None:
        if not hasattr(self, "schedule"):
            return
        while not self.schedule.done:
            for name in self.schedule.ready():
                self.schedule.start(name)
            for name in self.schedule.running():
                self.schedule.finish(name)


TestSchedule = ScheduleMachine.TestCase


def test_the_longest_path_comes_first() -> None:
    needs = {"short": (), "first": (), "second": ("first",), "third": ("second",)}
    assert Schedule(needs).ready() == ("first", "short")
    assert Schedule(needs, {"short": 10.0}).ready() == ("short", "first")


def test_equals_start_in_the_order_of_the_plan() -> None:
    assert Schedule({"b": (), "a": (), "c": ()}).ready() == ("b", "a", "c")


def test_a_node_cannot_start_twice() -> None:
    schedule = Schedule({"a": ()})
    schedule.start("a")
    with pytest.raises(ValueError, match="a is running, not ready"):
        schedule.start("a")


def test_a_failure_skips_what_stands_above_it() -> None:
    schedule = Schedule({"a": (), "b": ("a",), "c": ("b",), "d": ()})
    schedule.start("a")
    assert schedule.fail("a") == ("b", "c")
    assert schedule.ready() == ("d",)


def test_a_cycle_and_an_unknown_node_are_errors() -> None:
    with pytest.raises(PlanError, match="layers wait for each other: a, b"):
        Schedule({"a": ("b",), "b": ("a",)})
    with pytest.raises(PlanError, match="a waits for z, which is not part of the plan"):
        Schedule({"a": ("z",)})
