"""When a lock is stale, and when its history does not hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandboxfile.core.digest import Digest
from sandboxfile.spec.lock import (
    AptTransition,
    DebRow,
    Group,
    LockedBase,
    Lockfile,
    PipTransition,
    Requests,
    history_digest,
)
from sandboxfile.spec.staleness import after_merge, differences, valid_prefix

SHA = "ab" * 32


def lock_of(*groups: tuple[AptTransition | None, PipTransition | None]) -> Lockfile:
    lock = Lockfile(
        LockedBase("debian:trixie", "debian", "amd64", 1, suite="trixie"), inputs={"key.asc": SHA}
    )
    for apt, pip in groups:
        lock = replace(lock, groups=(*lock.groups, Group(history_digest(lock.base, lock.groups), apt, pip)))
    return lock


LOCK = lock_of(
    (AptTransition(("jq", "curl")), PipTransition(("requests", "rich>=13"))),
    (None, PipTransition(("numpy",))),
)


def test_the_same_requests_in_any_order_are_no_difference() -> None:
    wanted = LOCK.requests()
    assert differences(LOCK, wanted) == ()
    again = replace(wanted, pip=frozenset(["numpy", "rich>=13", "requests"]), apt=frozenset(["curl", "jq"]))
    assert differences(LOCK, again) == ()


@pytest.mark.parametrize(
    ("change", "kind", "what", "name", "text"),
    [
        (
            {"pip": {"requests", "rich>=13", "numpy", "flask"}},
            "added",
            "pip",
            "flask",
            "pip: flask was added",
        ),
        ({"pip": {"requests", "numpy"}}, "removed", "pip", "rich", "pip: rich>=13 was removed"),
        ({"apt": {"jq=1.7", "curl"}}, "changed", "apt", "jq", "apt: jq was changed to jq=1.7"),
        (
            {"base": "debian:bookworm"},
            "changed",
            "base",
            "debian:bookworm",
            "base: debian:trixie was changed to debian:bookworm",
        ),
        (
            {"apt_options": {"recommends": "true"}},
            "added",
            "apt-option",
            "recommends",
            "apt: recommends was added",
        ),
        ({"pip_options": {"venv": "/v"}}, "added", "pip-option", "venv", "pip: venv was added"),
        ({"recipes": {"web": SHA}}, "added", "recipe", "web", "recipe: web was added"),
        ({"inputs": {}}, "removed", "input", "key.asc", "input: key.asc was removed"),
        ({"inputs": {"key.asc": "cd" * 32}}, "changed", "input", "key.asc", "input: key.asc was changed"),
    ],
)
def test_each_difference_is_named(
    change: dict[str, object], kind: str, what: str, name: str, text: str
) -> None:
    fields = {key: frozenset(value) if isinstance(value, set) else value for key, value in change.items()}
    wanted = replace(LOCK.requests(), **fields)  # type: ignore[arg-type]
    (difference,) = differences(LOCK, wanted)
    assert (difference.kind, difference.what, difference.name, difference.text) == (kind, what, name, text)


def test_an_option_of_few_words_shows_both_values() -> None:
    lock = replace(LOCK, apt_options={"recommends": "false"})
    (difference,) = differences(lock, replace(lock.requests(), apt_options={"recommends": "true"}))
    assert difference.text == "apt: recommends was changed from false to true"


def test_everything_is_reported_at_once() -> None:
    wanted = Requests(base="scratch", apt=frozenset(), pip=frozenset(["a", "b"]))
    assert [d.text for d in differences(LOCK, wanted)] == [
        "base: debian:trixie was changed to scratch",
        "apt: curl was removed",
        "apt: jq was removed",
        "pip: a was added",
        "pip: b was added",
        "pip: numpy was removed",
        "pip: requests was removed",
        "pip: rich>=13 was removed",
        "input: key.asc was removed",
    ]


def test_a_history_that_holds_is_valid_to_its_end() -> None:
    assert valid_prefix(lock_of()) == 0
    assert valid_prefix(LOCK) == 2
    assert after_merge(LOCK) is None


def test_the_prefix_ends_where_a_group_follows_something_else() -> None:
    third = Group(history_digest(LOCK.base, LOCK.groups[:1]), None, PipTransition(("flask",)))
    merged = replace(LOCK, groups=(*LOCK.groups, third))
    assert valid_prefix(merged) == 2
    problem = after_merge(merged)
    assert problem is not None
    assert "group 3 of 3 (pip: flask)" in problem


def test_a_changed_base_breaks_the_first_group() -> None:
    row = DebRow("bash", "1", "amd64", SHA, 1, "pool/b.deb", "debian")
    moved = replace(LOCK, base=replace(LOCK.base, packages=(row,)))
    assert valid_prefix(moved) == 0
    assert "apt: jq, curl; pip: requests, rich>=13" in (after_merge(moved) or "")


def test_the_bases_diff_id_is_no_part_of_the_history() -> None:
    assert valid_prefix(replace(LOCK, base=replace(LOCK.base, diff_id=Digest(f"sha256:{SHA}")))) == 2
