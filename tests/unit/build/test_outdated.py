"""What is newer on offer, and what of the old still lies in lower layers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sandboxfile.build.freshness import age_text, older_than, refresh_notes
from sandboxfile.build.outdated import Outdated, OutdatedReport, outdated_debs, outdated_wheels
from sandboxfile.build.rewrite import chained
from sandboxfile.core.digest import Digest
from sandboxfile.errors import FetchError, ResolveError
from sandboxfile.inputs.archive import Suite, SuiteRequest
from sandboxfile.inputs.interpreter import Interpreter
from sandboxfile.inputs.sdists import Release
from sandboxfile.inputs.signature import Keyring
from sandboxfile.inputs.wheels import Candidate
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

NONE = Digest("")
TRIXIE = Interpreter("3.13.5", "amd64", (2, 41))


def archive(date: int) -> Archive:
    return Archive("debian", "trixie", ("main",), Digest("sha256:" + "a" * 64), date)


def deb(name: str, version: str = "1.0", **more: object) -> DebRow:
    sha256 = f"{abs(hash((name, version))):064x}"[-64:]
    return DebRow(name, version, "amd64", sha256, 1, f"pool/{name}.deb", "debian", **more)  # type: ignore[arg-type]


def lock_of(*groups: Group, date: int = 100) -> Lockfile:
    base = LockedBase(
        "debian:trixie", "debian", "amd64", 1, "trixie", archives=(archive(date),),
        packages=(deb("libc6"), deb("zlib1g"), deb("mawk")),
    )  # fmt: skip
    return Lockfile(base, chained(base, groups))


def suite(tmp_path: Path, name: str, **versions: str) -> Suite:
    request = SuiteRequest("debian", name, ("main",), "amd64", (), Keyring("a key", b""))
    made = Suite(request, archive(1), tmp_path / name)
    made.files[0].parent.mkdir(parents=True)
    made.files[0].write_text(
        "".join(
            f"Package: {package}\nVersion: {version}\nArchitecture: amd64\n\n"
            for package, version in versions.items()
        )
    )
    return made


LOCK = lock_of(
    Group(NONE, AptTransition(("jq", "old"), (deb("jq"), deb("old")))),
    Group(
        NONE,
        AptTransition(
            ("zlib1g-dev",),
            (deb("zlib1g", "2.0", replaces="1.0", because="zlib1g-dev"), deb("zlib1g-dev", "2.0")),
            (RemovedRow("old", "1.0", "amd64", "zlib1g-dev"),),
        ),
    ),
)


def test_newer_versions_are_listed_with_their_layer_and_security_updates_marked(tmp_path: Path) -> None:
    suites = (
        suite(tmp_path, "trixie", libc6="1.0+u1", jq="1.0", zlib1g="0.9"),
        suite(tmp_path, "trixie-security", jq="1.0+deb13u1", mawk="0.9~rc1"),
    )
    assert tuple(outdated_debs(LOCK, suites)) == (
        Outdated("base", "libc6", "base", "1.0", "1.0+u1"),
        Outdated("apt", "jq", "apt-1", "1.0", "1.0+deb13u1", security=True),
    )


def test_a_newer_version_after_a_security_update_is_one_too(tmp_path: Path) -> None:
    suites = (suite(tmp_path, "trixie", jq="1.2"), suite(tmp_path, "trixie-security", jq="1.1"))
    (found,) = outdated_debs(LOCK, suites)
    assert (found.newest, found.security) == ("1.2", True)


def test_vulnerable_files_that_a_higher_layer_hides_are_counted(tmp_path: Path) -> None:
    suites = (suite(tmp_path, "trixie-security", zlib1g="2.0", old="1.5"),)
    assert tuple(outdated_debs(LOCK, suites)) == (
        Outdated("apt", "old", "apt-1", "1.0", "1.5", security=True, hidden_by="apt-2"),
        Outdated("base", "zlib1g", "base", "1.0", "2.0", security=True, hidden_by="apt-2"),
    )


def wheel(name: str, version: str = "1.0", **more: object) -> WheelRow:
    return WheelRow(name, version, f"{name}-{version}-py3-none-any.whl", "1" * 64, 1, **more)  # type: ignore[arg-type]


def offer(name: str, *versions: str, tag: str = "py3-none-any") -> tuple[Release, ...]:
    return tuple(
        Release(version, (Candidate(f"{name}-{version}-{tag}.whl", "", ""),)) for version in versions
    )


def test_distributions_are_compared_with_what_fits_the_interpreter() -> None:
    rows = (wheel("a"), wheel("b"), wheel("c"), wheel("d"), wheel("e"), wheel("f"))
    lock = lock_of(Group(NONE, None, PipTransition(("a",), "3.13.5", rows)))
    offers = {
        "a": offer("a", "2.0", "1.0"),
        "b": (*offer("b", "3.0", tag="cp312-cp312-win32"), *offer("b", "2.0rc1", "1.0")),
        "c": offer("c", "0.9"),
        "d": offer("d", "1.10", "1.9", "1.0"),
    }

    async def ask(name: str) -> tuple[Release, ...]:
        if name == "e":
            raise ResolveError("no index has it")
        if name == "f":
            raise FetchError("the package index does not answer")
        return offers[name]

    found, unknown = asyncio.run(outdated_wheels(lock, TRIXIE, ask))
    assert found == (
        Outdated("pip", "a", "pip-1", "1.0", "2.0"),
        Outdated("pip", "c", "pip-1", "1.0", None, withdrawn=True),
        Outdated("pip", "d", "pip-1", "1.0", "1.10"),
        Outdated("pip", "e", "pip-1", "1.0", None, withdrawn=True),
    )
    assert unknown == ("f: the package index does not answer",)


def test_a_lock_is_as_old_as_its_oldest_part() -> None:
    newer = Group(NONE, AptTransition(("jq",), (deb("jq"),), archives=(archive(1000), archive(50))))
    lock = lock_of(newer, date=500)
    assert older_than(lock, 99, now=600) == 100
    assert older_than(lock, 100, now=600) is None
    assert older_than(Lockfile(LockedBase("scratch", "scratch", "amd64", 1)), 1, now=1e9) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(3600, "1 hour"), (47 * 3600, "47 hours"), (49 * 3600, "2 days"), (7e5, "8 days")]
)
def test_ages_are_told_in_hours_and_days(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


def test_what_a_refresh_would_change_is_said_in_one_clause() -> None:
    moved = tuple(Outdated("apt", name, "apt-1", "1", "2", security=name == "a") for name in "abcd")
    hidden = Outdated("base", "z", "base", "1", "2", True, hidden_by="apt-1")
    assert refresh_notes(OutdatedReport((*moved, hidden), 9)) == (
        "`lock --update` would move 4 packages, 1 of them for security: "
        "a 1 -> 2, b 1 -> 2, c 1 -> 2 and 1 more"
    )
    assert refresh_notes(OutdatedReport((), 9)) == "`lock --update` would change nothing"
    assert refresh_notes(OutdatedReport((), 9, ("this is offline",))) == "not known: this is offline"
