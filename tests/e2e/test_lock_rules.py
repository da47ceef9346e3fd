"""The seven rules of the lock, on real packages: apt, dpkg, uv and git do what they do to users.

The archive is a small one of real packages whose versions the test moves; its base is bootstrapped once.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from sandboxfile.spec.lock import Lockfile
from tests.e2e.lock_world import OLD_ZLIB, World
from tests.e2e.program import Program

pytestmark = [pytest.mark.host, pytest.mark.network, pytest.mark.timeout(1800)]


def apt_names(lock: Lockfile, group: int) -> list[str]:
    apt = lock.groups[group].apt
    assert apt is not None
    return [row.name for row in apt.rows]


def test_a_dependency_that_forces_the_base_upwards_is_a_row_and_plan_says_so(world: World) -> None:
    program = world.start("apt: [jq]\n")
    program("build")
    before = world.keys()
    # The archive moves on: the library of the base has a security update, and its headers need just that.
    real = world.archive.index.texts("zlib1g")[-1]
    world.archive.suites["trixie-security"]["zlib1g"] = real
    version = next(line[9:] for line in real.splitlines() if line.startswith("Version: "))
    change = f"zlib1g {OLD_ZLIB} -> {version}"
    world.archive.publish()
    assert f"~ {change} (forced by zlib1g-dev)" in world.relock("apt: [jq, zlib1g-dev]\n")
    assert f"{change}, forced by zlib1g-dev" in program("plan").stdout
    assert {name: world.keys()[name] for name in before} == before
    program("build")
    assert world.installed()["zlib1g"] == version

    # The old library is hidden, not gone: whoever exports the layers ships it.
    report = json.loads(program("outdated", "--json", "--security", "--check", code=1).stdout)
    (hidden,) = report["packages"]
    assert (hidden["name"], hidden["layer"], hidden["hidden_by"]) == ("zlib1g", "base", "apt-2")
    assert program("lock", "--update", "--security").stdout.splitlines() == [
        "~ the same packages, in other groups or for other requests"
    ]
    assert {row.name: row.version for row in world.lock().base.packages}["zlib1g"] == version
    assert json.loads(program("outdated", "--json", "--security", "--check").stdout)["packages"] == []


def test_what_nobody_asked_for_goes_as_explicit_rows(world: World) -> None:
    program = world.start("apt: [bsd-mailx]\n")
    program("build")
    assert "exim4-daemon-light" in world.installed()
    before = world.keys()
    changes = world.relock("apt: [bsd-mailx, postfix]\n")
    assert any(line.startswith("- exim4-daemon-light ") for line in changes)
    apt = world.lock().groups[1].apt
    assert apt is not None
    removed = {row.name: row.because for row in apt.removed}
    assert removed["exim4-daemon-light"] == "postfix"
    version = next(row.version for row in apt.removed if row.name == "exim4-daemon-light")
    assert f"exim4-daemon-light {version}, forced by postfix" in program("explain", "apt-2").stdout
    assert {name: world.keys()[name] for name in before} == before
    program("build")
    installed = world.installed()
    assert "postfix" in installed
    assert removed.keys().isdisjoint(installed)


def test_requests_that_exclude_each_other_are_both_named_and_never_locked(
    based: Callable[[str], Program],
) -> None:
    program = based("apt: [libcurl4-gnutls-dev, libcurl4-openssl-dev]\n")
    lock = program.directory / "sandboxfile.lock"
    empty = lock.read_text()
    ran = program("lock", code=2)
    assert "`libcurl4-gnutls-dev` and `libcurl4-openssl-dev`" in ran.stderr
    assert lock.read_text() == empty
    program.write("name: test\nbase: debian:13\napt: [libcurl4-gnutls-dev]\n")
    program("lock")
    one = lock.read_text()
    program.write("name: test\nbase: debian:13\napt:\n  - libcurl4-gnutls-dev\n  - libcurl4-openssl-dev\n")
    ran = program("lock", code=2)
    assert "`libcurl4-gnutls-dev` and `libcurl4-openssl-dev`" in ran.stderr
    assert "Sandboxfile:4" in ran.stderr
    assert "Sandboxfile:5" in ran.stderr
    assert lock.read_text() == one


def git(program: Program, *args: str) -> None:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@sandboxfile.test")
    subprocess.run(["git", *identity, *args], cwd=program.directory, check=True, capture_output=True)


def test_after_a_merge_the_longest_part_that_holds_together_is_kept(world: World) -> None:
    program = world.start("apt:\n  - jq\n")
    program("build")
    # Both sides of every conflict are kept, as `keep both` does in an editor.
    program.write("* merge=union\n", ".gitattributes")
    git(program, "init", "-q", "-b", "main")
    git(program, "add", ".")
    git(program, "commit", "-qm", "first")
    for branch, package in (("one", "tree"), ("two", "ed")):
        git(program, "checkout", "-q", "-b", branch, "main")
        world.relock(f"apt:\n  - jq\n  - {package}\n")
        git(program, "commit", "-qam", package)
    git(program, "checkout", "-q", "one")
    program("build")
    before = world.keys()
    git(program, "merge", "-q", "two", "-m", "merge")
    assert len(world.lock().groups) == 3
    ran = program("build", "--locked", code=4)
    assert "package group 3 of 3 (apt: ed)" in ran.stderr
    program("lock")
    assert [apt_names(world.lock(), n) for n in (1, 2)] == [["tree"], ["ed"]]
    assert {name: world.keys()[name] for name in before} == before
    program("build", "--locked")
    assert {"jq", "tree", "ed"} <= world.installed().keys()


def test_a_security_update_moves_what_it_is_for_and_nothing_else(world: World) -> None:
    archive = world.archive
    archive.secure("jq", "1.7.1-0")
    archive.age("tree", "2.0-1")
    archive.publish()
    program = world.start("apt: [ed]\n")
    world.relock("apt: [ed, jq]\n")
    world.relock("apt: [ed, jq, tree]\n")
    first = world.lock()
    assert program("outdated").stdout == ""
    archive.release_security()
    archive.restore("tree")
    archive.publish()
    outdated = {
        row["name"]: row for row in json.loads(program("outdated", "--refresh", "--json").stdout)["packages"]
    }
    assert (outdated["jq"]["layer"], outdated["jq"]["security"]) == ("apt-2", True)
    assert (outdated["tree"]["layer"], outdated["tree"]["security"]) == ("apt-3", False)
    newest = outdated["jq"]["newest"]
    assert program("lock", "--update", "--security").stdout.splitlines() == [f"~ jq 1.7.1-0 -> {newest}"]
    after = world.lock()
    assert (after.base, after.groups[0]) == (first.base, first.groups[0])
    assert [row.version for row in after.installed_debs().values() if row.name == "tree"] == ["2.0-1"]
    # Nothing vulnerable lies below.
    report = json.loads(program("outdated", "--json", "--security").stdout)
    assert report["packages"] == []
    assert program("lock", "--update", "tree").stdout.startswith("~ tree 2.0-1 -> ")
    assert world.lock().groups[:-1] == after.groups[:1] + world.lock().groups[1:-1]


def test_another_minor_version_of_python_rewrites_the_wheels_chosen_for_the_old_one(world: World) -> None:
    world.start("apt: [python3]\npip: [markupsafe]\n")
    (old,) = list(world.lock().installed_wheels())
    assert "cp313" in old.filename
    for name, needs in (("python3.14-minimal", ""), ("python3.14", "python3.14-minimal")):
        world.archive.add(name, "3.14.0-1", **({"depends": needs} if needs else {}))
    for name in ("python3", "python3-minimal", "libpython3-stdlib"):
        needs = {"python3": "python3.14, python3-minimal (= 3.14.0-1), libpython3-stdlib (= 3.14.0-1)"}
        world.archive.add(name, "3.14.0-1", **({"depends": needs[name]} if name in needs else {}))
    world.archive.add("needs-new-python", depends="python3 (>= 3.14)")
    world.archive.publish()
    changes = world.relock("apt: [python3, needs-new-python]\npip: [markupsafe]\n")
    assert any(line.startswith("~ python3 3.13") for line in changes)
    lock = world.lock()
    assert [group.pip.python for group in lock.groups if group.pip] == ["3.14.0"]
    (new,) = list(lock.installed_wheels())
    assert "cp314" in new.filename
    # No interpreter of the old version lies below: the group that held it was written again.
    names = [name for n in range(len(lock.groups)) for name in apt_names(lock, n)]
    assert names.count("python3") == 1


def test_a_removed_request_is_solved_again_from_its_group_with_the_versions_that_were_locked(
    world: World,
) -> None:
    program = world.start("apt: [jq]\n")
    world.archive.age("ed", "1.0-1")
    world.archive.publish()
    world.relock("apt: [jq, tree]\n")
    world.relock("apt: [jq, tree, ed]\n")
    program("build")
    before = world.keys()
    world.archive.restore("ed")
    world.archive.publish()
    changes = world.relock("apt: [jq, ed]\n")
    assert [line.split()[:2] for line in changes] == [["-", "tree"]]
    after = world.keys()
    assert list(after) == ["base", "apt-1", "apt-2"]
    assert (after["base"], after["apt-1"]) == (before["base"], before["apt-1"])
    program("build")
    installed = world.installed()
    assert ("tree" in installed, installed["ed"]) == (False, "1.0-1")


def test_a_distribution_that_has_to_move_is_solved_again_where_it_was_held(world: World) -> None:
    program = world.start("apt: [python3]\npip: [urllib3, idna]\n")
    program("build")
    before = world.keys()
    changes = world.relock("apt: [python3]\npip: [urllib3, idna, 'requests==2.28.2']\n")
    assert any(line.startswith("~ urllib3 2") for line in changes)
    lock = world.lock()
    names = [row.name for row in lock.installed_wheels()]
    assert len(names) == len(set(names))
    assert sum(1 for group in lock.groups if group.pip) == 1
    after = world.keys()
    assert (after["base"], after["apt-1"]) == (before["base"], before["apt-1"])
    program("build")
    versions = "import urllib3, requests; print(urllib3.__version__[0], requests.__version__)"
    assert program("run", ".", "--", "python3", "-c", versions).stdout == "1 2.28.2\n"
    assert json.loads(program("plan", "--json").stdout)["layers"][2]["group"] == 1


def test_a_squashed_lock_is_the_same_packages_in_one_group_and_needs_no_solving(world: World) -> None:
    program = world.start("apt: [jq]\n")
    world.relock("apt: [jq, tree]\n")
    world.relock("apt: [jq, tree, libonig5, python3]\npip: [idna]\n")
    world.relock("apt: [jq, tree, libonig5, python3]\npip: [idna, six]\n")
    program("build")
    first, installed = world.lock(), world.installed()
    # No network but an empty one, and no archive: there is nothing to solve with.
    for path in (world.archive.server.directory / "dists").rglob("InRelease"):
        path.unlink()
    program.prefix = ("unshare", "--net")
    assert program("lock", "--squash").stdout == "~ 4 groups became one, with the same packages\n"
    squashed = world.lock()
    assert len(squashed.groups) == 1
    assert squashed.requests() == first.requests()
    assert squashed.base == first.base
    assert {(r.name, r.sha256) for r in squashed.installed_debs().values()} == {
        (r.name, r.sha256) for r in first.installed_debs().values()
    }
    assert program("lock", "--squash").stdout == ""
    assert program("lock").stdout == ""
    program("build", "--locked", "--offline")
    assert world.installed() == installed
