"""Stores that cannot be used as they are: one sentence that says what is wrong and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from build_driver import make_project

from sandboxfile.errors import StoreError
from sandboxfile.store import filesystem
from sandboxfile.store.filesystem import FOR_LAYERS, FOR_STORE, lacking, require
from sandboxfile.store.store import Store

Run = Callable[..., subprocess.CompletedProcess[str]]


def program(home: Path, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandboxfile", "--home", str(home), "-C", str(directory), *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts file systems, and takes them away afterwards."""
    places: list[Path] = []

    def mount(*words: str) -> Path:
        place = tmp_path / f"mount-{len(places)}"
        place.mkdir()
        subprocess.run(["mount", *words, place], check=True)
        places.append(place)
        return place

    yield mount
    for place in reversed(places):
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_usual_file_system_lacks_nothing(tmp_path: Path) -> None:
    assert lacking(tmp_path, FOR_STORE + FOR_LAYERS) == ()
    assert os.listdir(tmp_path) == []


def test_what_is_lacking_is_named_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(place: Path) -> bool:
        raise OSError(95, "Operation not supported")

    for feature in ("case", "hard links"):
        monkeypatch.setitem(filesystem._TRIALS, feature, refuses)
    with pytest.raises(
        StoreError, match="names that differ only in upper and lower case; hard links"
    ) as caught:
        require(tmp_path, FOR_LAYERS)
    assert "SANDBOXFILE_HOME" in str(caught.value.hint)


def test_a_store_of_a_newer_version_says_which_and_what_to_do(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Store.open(home).close()
    (home / "VERSION").write_text("7\n")
    with pytest.raises(
        StoreError, match=r"newer version of sandboxfile \(layout 7; this one knows layout 1\)"
    ):
        Store.open(home)


def test_a_store_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Store.open(home).close()
    home.chmod(0o755)
    Store.open(home).close()
    assert home.stat().st_mode & 0o777 == 0o700


@pytest.mark.root
def test_another_users_store_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Store.open(home).close()
    os.chown(home, 12345, 12345)
    with pytest.raises(StoreError, match="belongs to another user"):
        Store.open(home)


@pytest.mark.host
@pytest.mark.root
def test_a_file_system_without_extended_attributes_is_named(
    mounted: Callable[..., Path], tmp_path: Path
) -> None:
    home = mounted("-t", "ramfs", "ramfs") / "home"
    make_project(tmp_path / "project", "x")
    ended = program(home, tmp_path / "project", "build")
    assert ended.returncode == 3
    assert "it lacks extended attributes of users (user.*)" in ended.stderr
    assert "hint: set SANDBOXFILE_HOME to a directory on a local file system" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.host
@pytest.mark.root
def test_an_overlay_cannot_hold_a_store(mounted: Callable[..., Path], tmp_path: Path) -> None:
    base = mounted("-t", "tmpfs", "tmpfs")
    for name in ("lower", "upper", "work"):
        (base / name).mkdir()
    options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work,userxattr"
    home = mounted("-t", "overlay", "overlay", "-o", options) / "home"
    make_project(tmp_path / "project", "x")
    ended = program(home, tmp_path / "project", "build")
    assert ended.returncode == 3
    assert "it lacks overlays on it, being one itself" in ended.stderr


@pytest.fixture
def read_only(finished: tuple[Path, str], mounted: Callable[..., Path]) -> tuple[Path, Path, str]:
    """A finished store on a file system that was then made read-only; its project; the slug."""
    place, slug = finished
    mount = mounted("-t", "tmpfs", "-o", "mode=0700", "tmpfs")
    subprocess.run(["cp", "-a", place / "home", mount / "home"], check=True)
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    return mount / "home", place / "project", slug


@pytest.mark.host
@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("build",), "{slug}\n"),
        (("snapshots",), "{slug}"),
        (("snapshots", "show", "tiny"), "{slug}"),
        (("plan",), "nothing to build"),
        (("explain", "run-1"), "already built"),
        (("explain", "--builds"), "{slug}"),
        (("explain", "--build", "1"), "cat /text /bin/owner"),
        (("cache", "du"), "layers: run"),
        (("cache", "check"), ""),
        (("run", "tiny", "--", "cat", "/made"), "first"),
    ],
)
def test_a_read_only_store_can_be_looked_at_and_run_from(
    read_only: tuple[Path, Path, str], words: tuple[str, ...], expected: str
) -> None:
    home, project, slug = read_only
    ended = program(home, project, *words)
    assert ended.returncode == 0, ended.stderr
    assert expected.format(slug=slug) in ended.stdout


@pytest.mark.host
@pytest.mark.root
@pytest.mark.parametrize(
    "words", [("build", "--force", "run-1"), ("cache", "gc"), ("snapshots", "rm", "tiny")]
)
def test_what_would_write_into_a_read_only_store_says_so(
    read_only: tuple[Path, Path, str], words: tuple[str, ...]
) -> None:
    home, project, _ = read_only
    ended = program(home, project, *words)
    assert ended.returncode == 3
    assert "the store is read-only" in ended.stderr
    assert "Traceback" not in ended.stderr
