"""Rows of several groups replayed to one."""

from __future__ import annotations

from sandboxfile.build.rewrite import chained
from sandboxfile.build.squash import squashed
from sandboxfile.core.digest import Digest
from sandboxfile.spec.lock import (
    AptTransition,
    Archive,
    DebRow,
    Group,
    LockedBase,
    Lockfile,
    PipTransition,
    RemovedRow,
    WheelRow,
)
from sandboxfile.spec.lockfile import dump, load
from sandboxfile.spec.staleness import valid_prefix

NONE = Digest("")
ARCHIVE = Archive("debian", "trixie", ("main",), Digest("sha256:" + "a" * 64), 100)
LATER = Archive("debian", "trixie", ("main",), Digest("sha256:" + "b" * 64), 200)


def deb(name: str, version: str = "1", **more: object) -> DebRow:
    sha256 = f"{abs(hash((name, version))):064x}"[-64:]
    return DebRow(name, version, "amd64", sha256, 1, f"pool/{name}.deb", "debian", **more)  # type: ignore[arg-type]


def wheel(name: str) -> WheelRow:
    return WheelRow(name, "1", f"{name}-1-py3-none-any.whl", "1" * 64, 1)


def lock_of(*groups: Group) -> Lockfile:
    packages = (deb("libc6"), deb("zlib1g"), deb("mawk"))
    base = LockedBase("debian:trixie", "debian", "amd64", 1, suite="trixie", packages=packages)
    return Lockfile(base, chained(base, groups))


def apt(*requests: str, **more: object) -> AptTransition:
    return AptTransition(requests, **{"archives": (ARCHIVE,), **more})  # type: ignore[arg-type]


LOCK = lock_of(
    Group(NONE, apt("jq", rows=(deb("jq"), deb("libjq1", auto=True), deb("mta-one", auto=True)))),
    Group(NONE, None, PipTransition(("rich",), "3.13.5", (wheel("rich"),))),
    Group(
        NONE,
        apt(
            "zlib1g-dev",
            rows=(
                deb("libjq1", "2", auto=True, replaces="1", because="zlib1g-dev"),
                deb("zlib1g", "2", replaces="1", because="zlib1g-dev"),
                deb("zlib1g-dev", "2"),
            ),
            archives=(LATER,),
        ),
    ),
    Group(
        NONE,
        apt(
            "gawk",
            "libjq1",
            rows=(deb("gawk"), deb("mta-two", auto=True)),
            removed=(
                RemovedRow("mawk", "1", "amd64", "gawk"),
                RemovedRow("mta-one", "1", "amd64", "mta-two"),
            ),
            manual=("libjq1:amd64", "libc6:amd64"),
        ),
        PipTransition(("attrs",), "3.13.5", (wheel("attrs"),)),
    ),
)


def test_the_rows_lead_to_the_same_state_in_one_group() -> None:
    one = squashed(LOCK)
    (group,) = one.groups
    assert group.apt is not None
    assert group.pip is not None
    rows = {row.name: (row.version, row.auto, row.replaces, row.because) for row in group.apt.rows}
    assert rows == {
        "gawk": ("1", False, None, None),
        "jq": ("1", False, None, None),
        # Brought and replaced above the base: it is simply new. Asked for later: no longer automatic.
        "libjq1": ("2", False, None, None),
        "mta-two": ("1", True, None, None),
        "zlib1g": ("2", False, "1", "zlib1g-dev"),
        "zlib1g-dev": ("2", False, None, None),
    }
    # What a group brought and a later one took was never there; what the base had is removed.
    assert [(row.name, row.version, row.because) for row in group.apt.removed] == [("mawk", "1", "gawk")]
    assert group.apt.manual == ("libc6:amd64",)
    assert group.apt.requests == ("gawk", "jq", "libjq1", "zlib1g-dev")
    assert group.apt.archives == (ARCHIVE, LATER)
    assert [row.name for row in group.pip.rows] == ["attrs", "rich"]
    assert one.requests() == LOCK.requests()
    assert {r.name: r.version for r in one.installed_debs().values()} == {
        r.name: r.version for r in LOCK.installed_debs().values()
    }


def test_a_squashed_lock_holds_together_and_is_read_back() -> None:
    one = squashed(LOCK)
    assert valid_prefix(one) == 1
    assert load(dump(one)) == one
    assert squashed(one) == one


def test_a_row_that_ends_where_the_base_began_is_left_out() -> None:
    lock = lock_of(
        Group(NONE, apt("a", rows=(deb("a"), deb("zlib1g", "2", replaces="1", because="a")))),
        Group(NONE, apt("b", rows=(deb("b"), deb("zlib1g", "1", replaces="2", because="b")))),
        Group(NONE, apt("mawk", removed=(RemovedRow("libc6", "1", "amd64", "mawk"),))),
        Group(NONE, apt("libc6", rows=(deb("libc6"),))),
    )
    (group,) = squashed(lock).groups
    assert group.apt is not None
    assert ([row.name for row in group.apt.rows], group.apt.removed) == (["a", "b"], ())


def test_a_replaced_and_then_removed_package_is_removed_in_the_version_of_the_base() -> None:
    lock = lock_of(
        Group(NONE, apt("a", rows=(deb("zlib1g", "2", replaces="1", because="a"),))),
        Group(NONE, apt("b", removed=(RemovedRow("zlib1g", "2", "amd64", "b"),))),
    )
    (group,) = squashed(lock).groups
    assert group.apt is not None
    assert [(row.name, row.version) for row in group.apt.removed] == [("zlib1g", "1")]
