"""What `doctor` says of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxfile.engines.linux import probe as probing
from sandboxfile.engines.linux.probe import Requirement, probe


def by_name(found: tuple[Requirement, ...]) -> dict[str, Requirement]:
    return {each.name: each for each in found}


def test_what_is_missing_has_a_remedy_and_what_is_there_has_none() -> None:
    for each in probe():
        assert bool(each.remedy) == (not each.ok), each
        assert each.detail, each


def test_missing_programs_are_named_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(probing.shutil, "which", lambda *_, **__: None)
    found = by_name(probe(home=tmp_path))
    assert found["OCI runtime"].remedy == "sudo apt-get install crun"
    assert found["mmdebstrap"].remedy == "sudo apt-get install mmdebstrap"
    assert found["catatonit"].remedy == "sudo apt-get install catatonit"
    assert not found["pasta"].needed


@pytest.mark.parametrize(
    ("file", "value", "remedy"),
    [
        ("/proc/sys/user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=65536"),
        (
            "/proc/sys/kernel/unprivileged_userns_clone",
            "0",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_switches_that_forbid_user_namespaces_are_found(
    monkeypatch: pytest.MonkeyPatch, file: str, value: str, remedy: str
) -> None:
    monkeypatch.setattr(probing, "_read", lambda path: value if path == file else "")
    monkeypatch.setattr(probing.os, "geteuid", lambda: 1000)
    found = probing._user_namespaces()
    assert not found.ok
    assert found.remedy == remedy


def test_an_older_kernel_is_told_which_one_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        release = "5.4.0-1-amd64"

    monkeypatch.setattr(probing.os, "uname", lambda: Old)
    assert probing._kernel() == Requirement(
        "kernel", False, "Linux 5.4.0-1-amd64", "upgrade to Linux 5.13 or newer"
    )


def test_a_store_that_cannot_be_looked_at_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(probing.Path, "exists", refuse)
    found = probing._disk(Path("/somebody/store"))
    assert not found.ok
    assert "SANDBOXFILE_HOME" in found.remedy


class Host:
    """A made-up tree of control groups, and of what belongs to users who are logged in."""

    def __init__(self, directory: Path, uid: int) -> None:
        self.groups, self.run = directory / "cgroup", directory / "run"
        self.manager = self.groups / f"user.slice/user-{uid}.slice/user@{uid}.service"
        self.bus = self.run / str(uid) / "bus"
        self.groups.mkdir()

    def group(self, place: Path, controllers: str, mode: int = 0o644) -> None:
        place.mkdir(parents=True, exist_ok=True)
        (place / "cgroup.controllers").write_text(controllers)
        (place / "cgroup.procs").touch(mode)
        (place / "cgroup.subtree_control").touch(mode)

    def doctor(self) -> Requirement:
        return probing._cgroups(str(self.groups), str(self.run))


def test_what_control_groups_give_an_ordinary_user_is_told_with_what_would_give_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host = Host(tmp_path, 4242)
    monkeypatch.setattr(probing.os, "geteuid", lambda: 4242)
    # The tests may be run by root, who may write everywhere.
    writable: set[Path] = set()
    monkeypatch.setattr(probing.os, "access", lambda path, mode: Path(path) in writable)
    host.group(host.groups, "cpu memory pids")
    found = host.doctor()
    assert (found.ok, found.remedy) == (False, "sudo loginctl enable-linger $(id -un)")
    host.group(host.manager, "memory pids")
    assert "dbus-user-session" in host.doctor().remedy
    host.bus.parent.mkdir(parents=True)
    host.bus.touch()
    monkeypatch.setattr(probing.shutil, "which", lambda *_, **__: "/usr/bin/busctl")
    assert "Delegate=cpu memory pids" in host.doctor().remedy
    host.group(host.manager, "cpu memory pids")
    assert not host.doctor().ok
    writable.add(host.manager / "cgroup.procs")
    found = host.doctor()
    assert (found.ok, found.detail) == (True, "v2; memory and processors can be limited")


def test_an_old_kernels_memory_is_no_place_for_what_sandboxes_write(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        release = "6.1.0-44-amd64"

    monkeypatch.setattr(probing.os, "uname", lambda: Old)
    found = probing._disk_limits()
    assert (found.ok, found.needed, found.remedy) == (False, False, "upgrade to Linux 6.6 or newer")
