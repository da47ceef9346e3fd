from __future__ import annotations

import pytest

from sandboxfile.build.rewrite import EVERYTHING, Rewrite, carried, chained, changes, rewrite_of
from sandboxfile.core.digest import Digest
from sandboxfile.errors import UsageError
from sandboxfile.spec.lock import (
    AptTransition,
    DebRow,
    Group,
    LockedBase,
    Lockfile,
    PipTransition,
    Requests,
    WheelRow,
)

NONE = Digest("")


def deb(name: str, version: str = "1", **more: object) -> DebRow:
    return DebRow(name, version, "amd64", "0" * 64, 1, f"pool/{name}.deb", "debian", **more)  # type: ignore[arg-type]


def wheel(name: str, version: str = "1") -> WheelRow:
    return WheelRow(name, version, f"{name}-{version}-py3-none-any.whl", "1" * 64, 1)


def apt(*names: str) -> AptTransition:
    return AptTransition(names, tuple(deb(name) for name in names))


def pip(*names: str) -> PipTransition:
    return PipTransition(names, "3.13.5", tuple(wheel(name) for name in names))


def lock_of(*groups: Group) -> Lockfile:
    base = LockedBase("debian:trixie", "debian", "amd64", 1, suite="trixie", packages=(deb("libc6"),))
    return Lockfile(base, chained(base, groups))


LOCK = lock_of(
    Group(NONE, apt("python3"), pip("numpy")), Group(NONE, None, pip("rich")), Group(NONE, apt("jq"), None)
)
WANTED = LOCK.requests()


def wanted(**change: object) -> Requests:
    values = {name: getattr(WANTED, name) for name in Requests.__dataclass_fields__}
    return Requests(**{**values, **change})  # type: ignore[arg-type]


def test_a_lock_that_answers_keeps_every_group() -> None:
    assert rewrite_of(LOCK, WANTED, None) == Rewrite(3, 3)


def test_added_requests_touch_no_group() -> None:
    more = wanted(apt=frozenset({"python3", "jq", "curl"}), pip=frozenset({"numpy", "rich", "attrs"}))
    assert rewrite_of(LOCK, more, None) == Rewrite(3, 3)


def test_a_removed_request_is_solved_again_from_its_group() -> None:
    assert rewrite_of(LOCK, wanted(apt=frozenset({"python3"})), None) == Rewrite(2, 3)
    assert rewrite_of(LOCK, wanted(pip=frozenset({"numpy"})), None) == Rewrite(3, 1)
    assert rewrite_of(LOCK, wanted(pip=frozenset()), None) == Rewrite(3, 0)


def test_changed_options_are_solved_again_from_the_first_group_of_their_kind() -> None:
    assert rewrite_of(LOCK, wanted(apt_options={"recommends": "true"}), None) == Rewrite(0, 3)
    assert rewrite_of(LOCK, wanted(pip_options={"prereleases": "true"}), None) == Rewrite(3, 0)


def test_recipes_alone_move_nothing() -> None:
    assert rewrite_of(LOCK, wanted(recipes={"python-dev": "sha256:1"}), None) == Rewrite(3, 3)


def test_a_moved_base_or_a_full_update_is_everything() -> None:
    assert rewrite_of(LOCK, wanted(base="debian:forky"), None) == EVERYTHING
    assert rewrite_of(LOCK, WANTED, ()) == EVERYTHING
    assert rewrite_of(LOCK, WANTED, ("libc6",)) == EVERYTHING


def test_a_name_is_renewed_from_the_group_that_holds_it() -> None:
    assert rewrite_of(LOCK, WANTED, ("jq",)) == Rewrite(2, 3)
    assert rewrite_of(LOCK, WANTED, ("Rich",)) == Rewrite(3, 1)
    with pytest.raises(UsageError) as caught:
        rewrite_of(LOCK, WANTED, ("nunpy",))
    assert caught.value.hint == "did you mean `numpy`?"


def test_after_a_merge_the_longest_valid_prefix_is_kept() -> None:
    first, second, third = LOCK.groups
    merged = Lockfile(LOCK.base, (first, second, Group(first.after, apt("jq"))))
    assert rewrite_of(merged, merged.requests(), None) == Rewrite(2, 2)
    assert third.after != first.after


def test_wheels_of_groups_that_are_rewritten_for_apt_are_carried() -> None:
    assert carried(LOCK, Rewrite(0, 3)) == (LOCK.groups[0].pip, LOCK.groups[1].pip)
    assert carried(LOCK, Rewrite(0, 0)) == ()
    assert carried(LOCK, Rewrite(3, 1)) == ()


def test_groups_name_what_is_before_them_and_empty_ones_go() -> None:
    again = chained(LOCK.base, (*LOCK.groups[:1], Group(NONE), *LOCK.groups[1:]))
    assert again == LOCK.groups


def test_changes_are_told_one_a_line() -> None:
    newer = lock_of(
        Group(NONE, apt("python3"), pip("numpy")),
        Group(NONE, AptTransition(("zlib",), (deb("libc6", "2", replaces="1", because="zlib"), deb("zlib")))),
    )
    assert changes(LOCK, newer) == ("- jq 1", "~ libc6 1 -> 2 (forced by zlib)", "+ zlib 1", "- rich 1")
    assert changes(LOCK, LOCK) == ()
    assert changes(None, LOCK) == (
        "+ base debian:trixie (1 package)", "+ jq 1", "+ python3 1", "+ numpy 1", "+ rich 1"
    )  # fmt: skip
