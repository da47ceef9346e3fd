"""Archives, indexes and disks that are not what they should be: one clear error, nothing half-written."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Program
from tests.resolve.server import Server

pytestmark = [pytest.mark.host, pytest.mark.network]

Based = Callable[[str], Program]


@pytest.fixture
def mirror(tmp_path: Path, shared_home: Path, base_project: Path) -> Iterator[Server]:
    """A mirror on loopback with the signed documents that the session's base was locked from."""
    served = tmp_path / "mirror"
    lock = (base_project / "sandboxfile.lock").read_text()
    for document in (shared_home / "indexes").glob("*/dists/*/InRelease"):
        # Other tests of the session may have locked from other archives of the same suite.
        if hashlib.sha256(document.read_bytes()).hexdigest() in lock:
            suite = document.parent
            shutil.copytree(suite, served / "dists" / suite.name, dirs_exist_ok=True)
    server = Server(served)
    yield server
    server.close()


@pytest.fixture
def fresh(project: Program, tmp_path: Path, mirror: Server) -> Program:
    """A project with a base, an empty store, and that mirror."""
    project.write("name: fresh\nbase: debian:13\n")
    project.home = tmp_path / "fresh-store"
    project.env = {"SANDBOXFILE_APT_MIRROR": mirror.url, "SANDBOXFILE_APT_SECURITY_MIRROR": mirror.url}
    return project


def test_an_archive_with_a_bad_signature(fresh: Program, mirror: Server) -> None:
    document = mirror.directory / "dists/trixie/InRelease"
    document.write_text(document.read_text().replace("Origin: Debian", "Origin: Debiam"))
    ran = fresh("build", code=1)
    assert "signature" in ran.stderr
    assert "trixie" in ran.stderr
    assert ran.stderr.count("error:") == 1
    assert "Traceback" not in ran.stderr
    assert not (fresh.directory / "sandboxfile.lock").exists()
    assert list((fresh.home / "layers").iterdir()) == []


def test_an_index_that_is_not_the_one_that_was_signed(fresh: Program, mirror: Server) -> None:
    for index in (mirror.directory / "dists/trixie").rglob("Packages*"):
        content = bytearray(index.read_bytes())
        content[len(content) // 2] ^= 1
        index.write_bytes(content)
    ran = fresh("build", code=1)
    assert "Packages" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (fresh.directory / "sandboxfile.lock").exists()


def test_a_wheel_whose_bytes_do_not_match_its_hash(based: Based) -> None:
    program = based("apt: [python3]\npip: [iniconfig]\n")
    program("lock")
    lock = (program.directory / "sandboxfile.lock").read_text()
    line = next(line for line in lock.splitlines() if "iniconfig-" in line)
    changed = re.sub(r'(sha256\s*=\s*")([0-9a-f]{8})', r"\g<1>deadbeef", line)
    assert changed != line
    program.write(lock.replace(line, changed), "sandboxfile.lock")
    before = {path.name for path in (program.home / "layers").iterdir()}
    ran = program("build", "--locked", code=1)
    assert "iniconfig" in ran.stderr
    assert "promised" in ran.stderr
    after = {path.name for path in (program.home / "layers").iterdir()} - before
    # The apt layer below may have been built by then; the one that needs the wheel may not.
    assert len(after) <= 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is too small for a base."""
    place = tmp_path / "disk"
    place.mkdir()
    options = "size=150m,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "sandboxfile-test", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.root
def test_a_full_disk(project: Program, small_disk: Path) -> None:
    project.write("name: full\nbase: debian:13\n")
    project.home = small_disk / "store"
    ran = project("build", code=3)
    assert "disk is full" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list((project.home / "layers").iterdir()) == []
    assert list((project.home / "snapshots").iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=2g", small_disk], check=True)
    assert project("build").last.startswith("full-")
