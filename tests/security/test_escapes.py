"""Attempts to leave a sandbox, each made inside of a real one, and again where the defence is off."""

from __future__ import annotations

from pathlib import Path

import pytest
from escape_arena import Arena
from escape_attempts import ATTEMPTS, Attempt

WANTED = 50


@pytest.mark.host
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_the_attempt_is_refused(arena: Arena, attempt: Attempt) -> None:
    outcome = arena.outcome(attempt)
    if outcome.inside.startswith("no such sandbox"):
        pytest.skip(outcome.inside)
    assert outcome.refused, outcome
    if not outcome.proven:
        pytest.skip(f"vacuous on this kernel: {attempt.control.value}, {outcome.control}")


@pytest.mark.host
def test_enough_of_the_attempts_are_not_vacuous(arena: Arena) -> None:
    outcomes = [arena.outcome(attempt) for attempt in ATTEMPTS]
    assert sum(outcome.refused and outcome.proven for outcome in outcomes) >= WANTED


def test_every_attempt_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/dev/escape-suite.md").read_text()
    missing = [attempt.name for attempt in ATTEMPTS if f"| {attempt.name} |" not in page]
    assert missing == []


def test_no_attempt_is_listed_twice() -> None:
    assert len({attempt.name for attempt in ATTEMPTS}) == len(ATTEMPTS)
