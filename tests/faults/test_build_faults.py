"""Builds that fail, die, meet a full disk or each other: what was published stays, the store stays sound, and
the next build comes to what it would have come to."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import build_driver
import pytest
from build_driver import build, empty_store, make_project

from sandboxfile.api import AsyncClient
from sandboxfile.engines.memory.engine import MemoryEngine, Scripted
from sandboxfile.engines.memory.machine import Program
from sandboxfile.store.consistency import Checked

DRIVER = Path(build_driver.__file__)

host = pytest.mark.host

POINTS = [
    "lock:written",
    "store:directory",
    "index:built",
    "build:locked",
    "commit:sealed",
    "commit:prepared",
    "commit:renamed",
    "build:committed",
    "build:recorded",
    "place:prepared",
    "index:written",
    "index:committed",
    "index:synced",
    "build:checked",
    "publish:file",
    "build:unheaded",
    "build:published",
    "atomic:written",
    "atomic:renamed",
]


def drive(home: Path, directory: Path, point: str, action: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DRIVER, home, directory, point, action], capture_output=True, text=True, check=False
    )


def checked(home: Path, *, collect: bool = False) -> Checked:
    """What a full check of a store finds, after a gc if asked."""

    async def work() -> Checked:
        async with AsyncClient(home=home) as client:
            if collect:
                await client.gc(keep_days=0)
            return await client.check_store(full=True)

    return asyncio.run(work())


def published(home: Path) -> set[str]:
    with_store = AsyncClient(home=home)
    try:
        return {info.slug for info in with_store.stored_snapshots()}
    finally:
        asyncio.run(with_store.close())


@pytest.fixture
def world(finished: tuple[Path, str], tmp_path: Path) -> Iterator[tuple[Path, Path, str]]:
    """A copy of that store and project, whose second version is not built, and what is published."""
    place, slug = finished
    subprocess.run(["cp", "-a", place, tmp_path / "w"], check=True)
    home, project = tmp_path / "w" / "home", tmp_path / "w" / "project"
    make_project(project, "second")
    yield home, project, slug
    asyncio.run(empty_store(home))


@host
@pytest.mark.parametrize("action", ["raise", "kill"])
@pytest.mark.parametrize("point", POINTS)
def test_a_build_that_ends_at_any_point_loses_nothing(
    world: tuple[Path, Path, str], point: str, action: str
) -> None:
    home, project, first = world
    if point in ("store:directory", "index:built"):
        shutil.rmtree(home / "memos", ignore_errors=True)
        if point == "index:built":
            (home / "index.sqlite").write_bytes(b"\xff" * 9000)
    if point == "lock:written":
        (project / "sandboxfile.lock").unlink()
    ended = drive(home, project, point, action)
    if action == "kill":
        assert ended.returncode == -signal.SIGKILL, ended.stdout + ended.stderr
    elif ended.returncode:
        kind, _, message = ended.stdout.partition(": ")
        assert kind in ("StoreError", "UsageError"), ended.stdout + ended.stderr
        assert "full" in message or "No space left" in message or "cannot be" in message, message
    assert checked(home).problems == ()
    assert first in published(home)
    second = asyncio.run(build(home, project))
    assert published(home) == {first, second}
    found = checked(home, collect=True)
    assert (found.problems, found.leftovers) == ((), ())
    assert [path.name for path in project.iterdir() if path.name.startswith(".")] == []


@host
@pytest.mark.root
@pytest.mark.parametrize("left", [0, 16, 96, 400, 1500, 2600])
def test_a_build_on_a_disk_that_fills_up_says_so_and_loses_nothing(
    finished: tuple[Path, str], tmp_path: Path, left: int
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", small], check=True)
    try:
        place, first = finished
        subprocess.run(["cp", "-a", place / "home", small / "home"], check=True)
        project = tmp_path / "project"
        # Another program, so that every layer is new and the disk has to take it.
        make_project(project, "second")
        (project / "bin" / "owner").write_bytes(os.urandom(1 << 20))
        filler = fill(small, leave=left << 10)
        ended = drive(small / "home", project, "", "none")
        if ended.returncode:
            kind, _, message = ended.stdout.partition(": ")
            assert kind in ("StoreError", "BuildError", "StepFailed"), ended.stdout + ended.stderr
            assert "disk" in message or "run-1" in message, message
        filler.unlink()
        assert checked(small / "home").problems == ()
        assert first in published(small / "home")
        second = asyncio.run(build(small / "home", project))
        assert published(small / "home") == {first, second}
        found = checked(small / "home", collect=True)
        assert (found.problems, found.leftovers) == ((), ())
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def fill(directory: Path, *, leave: int) -> Path:
    """Use up all space but some bytes with one file."""
    filler = directory / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 65536)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        file.truncate(max(0, file.tell() - leave))
    return filler


@host
def test_builds_and_gcs_at_once_break_neither(world: tuple[Path, Path, str]) -> None:
    home, project, first = world
    gc = [sys.executable, "-m", "sandboxfile", "--home", str(home), "cache", "gc", "--keep-days", "0"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    builds = [
        subprocess.Popen([sys.executable, DRIVER, home, project, "", "none"], **quiet)  # type: ignore[call-overload]
        for _ in range(2)
    ]
    sweeps = [subprocess.Popen(gc, **quiet) for _ in range(4)]  # type: ignore[call-overload]
    ended = [(process.communicate(), process.returncode) for process in (*builds, *sweeps)]
    assert [code for _, code in ended] == [0] * 6, ended
    slugs = {out for (out, _), _ in ended[:2]}
    assert len(slugs) == 1
    assert published(home) == {first, slugs.pop().strip()}
    found = checked(home, collect=True)
    assert (found.problems, found.leftovers) == ((), ())


@host
def test_ten_builds_of_ten_files_that_share_layers_at_once(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    place, _ = finished
    home = tmp_path / "home"
    projects = []
    for number in range(10):
        project = tmp_path / f"project-{number}"
        subprocess.run(["cp", "-a", place / "project", project], check=True)
        text = (project / "Sandboxfile").read_text().replace("run:\n", "run:\n  - echo shared > /shared\n")
        # All stand on the same base, files and first step; each has a last step of its own.
        text = text.replace("  - cat /text", f"  - echo {number} > /own\n  - cat /text")
        (project / "Sandboxfile").write_text(text)
        projects.append(project)
    started = [
        subprocess.Popen(
            [sys.executable, DRIVER, home, project, "", "none"], stdout=subprocess.PIPE, text=True
        )
        for project in projects
    ]
    slugs = [process.communicate()[0].strip() for process in started]
    assert [process.returncode for process in started] == [0] * 10, slugs
    assert published(home) == set(slugs)
    assert len(set(slugs)) == 10
    found = checked(home, collect=True)
    assert (found.problems, found.leftovers) == ((), ())
    # base, files and the shared step once, and two steps of each.
    assert found.looked_at["layers"] == 3 + 2 * 10
    asyncio.run(empty_store(home))


def test_ten_builds_at_once_in_one_process_share_their_layers(tmp_path: Path) -> None:
    order = list(range(10))
    random.shuffle(order)
    for number in order:
        directory = tmp_path / f"p{number}"
        directory.mkdir()
        (directory / "Sandboxfile").write_text(
            f"name: many\nbase: scratch\nrun: [make shared, make {number}]\n"
        )
    script: dict[str, Program | str] = {
        f"make {what}": Scripted(files={f"/{what}": f"{what}"}) for what in ("shared", *order)
    }

    async def work() -> tuple[list[str], list[str], Checked]:
        async with AsyncClient(home=tmp_path / "home", engine="memory") as client:
            client._opened = MemoryEngine(script=script)
            done = await asyncio.gather(
                *(client.build(client.load(directory=tmp_path / f"p{number}")) for number in order)
            )
            layers = [name for each in done for name in each.built]
            return [each.slug for each in done], layers, await client.check_store(full=True)

    slugs, built, found = asyncio.run(work())
    assert len(set(slugs)) == 10
    assert (built.count("base"), built.count("run-1"), built.count("run-2")) == (1, 1, 10)
    assert (found.problems, found.leftovers) == ((), ())
