"""Files from outside while the sandbox does its best to lead them astray."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from linux_bench import PATH, Bench, Place

from sandboxfile.engine.base import Command
from sandboxfile.engine.files import SandboxFiles
from sandboxfile.errors import FileRefused

pytestmark = pytest.mark.host

# Swaps a directory, a link out of the sandbox and a link to the root for each other, as fast as it can.
_SWAP_DIRECTORIES = r"""
my ($outside) = @ARGV;
chdir "/race" or die;
mkdir "real"; mkdir "real/sub"; open F, ">real/file"; print F "inside"; close F;
symlink $outside, "out"; symlink "../../../../../../..$outside", "up";
symlink "/proc/1/root$outside", "magic";
$| = 1; print "ready\n";
while (1) {
    for my $name ("real", "out", "up", "magic") {
        rename $name, "place"; rename "place", $name;
        symlink $outside, "place"; rename "real", "moved"; rename "place", "real";
        unlink "real"; rename "moved", "real";
        rename "real/sub", "sub"; rename "sub", "real/sub";
    }
}
"""

# Makes one name a file, a FIFO, a link to a device and a directory in turn.
_SWAP_KINDS = r"""
use POSIX;
chdir "/race" or die;
open F, ">file"; print F "inside"; close F; mkfifo("fifo", 0666); symlink "/dev/zero", "device";
symlink "/proc/self/environ", "kernel"; mkdir "directory";
$| = 1; print "ready\n";
while (1) {
    for my $name ("file", "fifo", "device", "kernel", "directory") {
        rename $name, "place" or next; rename "place", $name;
    }
}
"""


def race(bench: Bench, script: str, body: Any, *arguments: str) -> Any:
    """Run `body(fs)` while a script runs in the sandbox."""

    async def run() -> Any:
        sandbox = await bench.engine.start(bench.base)
        await Place(sandbox).sh("mkdir -m 777 /race; cp /bin/sh /race/keep")
        started = asyncio.Event()
        command = Command(("perl", "-e", script, *arguments), {"PATH": PATH})
        racer = asyncio.ensure_future(sandbox.execute(command, lambda _stream, _data: started.set()))
        await asyncio.wait([racer, asyncio.ensure_future(started.wait())], return_when="FIRST_COMPLETED")
        assert not racer.done()
        try:
            return await body(sandbox.fs)
        finally:
            await sandbox.close()
            await racer

    return bench.trial(run)


async def tolerant(operation: Any) -> Any:
    """The result of an operation that may fail, None when it did."""
    try:
        return await operation
    except (OSError, FileRefused):
        return None


def test_five_thousand_operations_against_a_racer_touch_nothing_outside(bench: Bench, tmp_path: Path) -> None:
    # World-writable, so that nothing but the resolution of paths protects it.
    outside = tmp_path / "outside"
    outside.mkdir()
    for path in (outside, *outside.parents):
        if path.owner() != "root" or path.stat().st_mode & 0o7 != 0o7:
            try:
                path.chmod(path.stat().st_mode | 0o7)
            except PermissionError:
                break
        if path == tmp_path:
            break
    (outside / "file").write_text("outside")
    (outside / "sub").mkdir(mode=0o777)
    before = _state(outside)

    async def body(fs: SandboxFiles) -> tuple[int, set[bytes]]:
        read: set[bytes] = set()
        done = 0
        for number in range(500):
            for name in ("real", "out"):
                read.add(await tolerant(fs.read_file(f"/race/{name}/file")) or b"")
                await tolerant(fs.write_file(f"/race/{name}/new-{number}", b"new"))
                await tolerant(fs.mkdir(f"/race/{name}/sub/dir-{number}"))
                await tolerant(fs.rename(f"/race/{name}/new-{number}", f"/race/{name}/sub/old"))
                await tolerant(fs.remove(f"/race/{name}/sub", recursive=number % 50 == 0))
                done += 5
        return done, read

    done, read = race(bench, _SWAP_DIRECTORIES, body, str(outside))
    assert done == 5000
    assert b"inside" in read
    assert b"outside" not in read
    assert _state(outside) == before


def _state(top: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (
            path.lstat().st_mode,
            path.lstat().st_ino,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in (top, *top.rglob("*"))
    }


def test_only_regular_files_are_read_whatever_a_name_becomes(bench: Bench) -> None:
    async def body(fs: SandboxFiles) -> set[bytes]:
        read: set[bytes] = set()
        for number in range(2000):
            path = "/race/place" if number % 2 else "/race/file"
            found = await tolerant(fs.read_file(path, limit=1000))
            if found is not None:
                read.add(found)
        return read

    assert race(bench, _SWAP_KINDS, body) == {b"inside"}


def test_a_download_stays_where_it_was_told_to(bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()

    async def body(fs: SandboxFiles) -> None:
        for number in range(60):
            await tolerant(fs.download("/race", tmp_path / f"taken-{number}", links=True))

    race(bench, _SWAP_DIRECTORIES, body, str(outside))
    assert os.listdir(outside) == []
    assert {path.name for path in tmp_path.iterdir()} <= {"outside", *(f"taken-{n}" for n in range(60))}


def test_removing_what_is_filled_meanwhile_comes_to_an_end(bench: Bench) -> None:
    script = (
        'mkdir "/race/d"; $| = 1; print "ready\\n"; my $i = 0;'
        'while (1) { mkdir "/race/d"; open F, ">/race/d/" . ($i++ % 5000);'
        'mkdir "/race/d/s"; open F, ">/race/d/s/x" }'
    )

    async def body(fs: SandboxFiles) -> bool:
        for _ in range(20):
            await tolerant(fs.remove("/race/d", recursive=True))
        return await fs.exists("/race/keep")

    assert race(bench, script, body) is True
