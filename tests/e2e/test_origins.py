"""A lock builds wherever its bytes are: in the store, in an archive of old versions, vendored."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxfile.inputs.origins import stamp
from sandboxfile.spec.lock import Lockfile
from sandboxfile.spec.lockfile import load
from tests.conftest import remove_store
from tests.e2e.conftest import Program
from tests.resolve.server import Server, dead_url

pytestmark = [pytest.mark.host, pytest.mark.network]

NO_NETWORK = ("unshare", "--net")
"""A network namespace without any interface that is up: nothing can be asked for anything."""
TEXT = """\
name: origins
base: debian:13
apt: [python3, jq]
pip: [idna]
verify:
  - jq --version
  - python3 -c "import idna"
"""


@dataclass(frozen=True)
class Locked:
    """A project that was locked and built, and the store that has every file of its lock."""

    program: Program
    text: str
    slug: str

    @property
    def lock(self) -> Lockfile:
        return load(self.text)

    def blob(self, sha256: str) -> Path:
        return self.program.home / "blobs/sha256" / sha256[:2] / sha256[2:]


@pytest.fixture(scope="module")
def locked(shared_home: Path, base_lock: str, tmp_path_factory: pytest.TempPathFactory) -> Locked:
    directory = tmp_path_factory.mktemp("origins")
    program = Program(directory, shared_home)
    program.write(TEXT)
    program.write(base_lock, "sandboxfile.lock")
    slug = program("build").last
    return Locked(program, (directory / "sandboxfile.lock").read_text(), slug)


@pytest.fixture
def elsewhere(locked: Locked, tmp_path: Path) -> Iterator[Program]:
    """The same project and its lock, with an empty store."""
    directory = tmp_path / "project"
    directory.mkdir()
    program = Program(directory, tmp_path / "store")
    program.write(TEXT)
    program.write(locked.text, "sandboxfile.lock")
    yield program
    remove_store(program.home)


@pytest.mark.root
def test_a_build_offline_needs_the_lock_and_the_store_alone(locked: Locked, elsewhere: Program) -> None:
    lock = locked.lock
    elsewhere("snapshots")  # makes the store
    rows = (*lock.base.packages, *lock.installed_debs().values(), *lock.installed_wheels())
    for sha256 in {row.sha256 for row in rows}:
        target = elsewhere.home / "blobs/sha256" / sha256[:2] / sha256[2:]
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(locked.blob(sha256), target)
    elsewhere.prefix = NO_NETWORK
    ran = elsewhere("build", "--locked", "--offline", "--progress=json")
    assert ran.last == locked.slug
    assert [task for task in ran.tasks() if task.startswith("fetch:")] == []


def test_offline_names_what_is_missing(elsewhere: Program) -> None:
    ran = elsewhere("build", "--locked", "--offline", code=1)
    assert "neither in the store nor vendored, and this is offline" in ran.stderr
    assert "sandboxfile vendor" in ran.stderr


def test_a_version_that_the_mirror_has_dropped_comes_from_a_snapshot_archive(
    locked: Locked, elsewhere: Program, tmp_path: Path
) -> None:
    lock = locked.lock
    mirror, snapshot = Server(tmp_path), Server(tmp_path)
    index = Server(tmp_path)
    dropped = {"jq", "libjq1", "base-files"}
    try:
        rows = [(row, lock.base.archives) for row in lock.base.packages]
        rows += [(row, g.apt.archives) for g in lock.groups if g.apt for row in g.apt.rows]
        for row, archives in rows:
            if row.name not in dropped:
                mirror.files[f"/{row.archive}/{row.path}"] = locked.blob(row.sha256)
            else:
                when = stamp(max(a.date for a in archives if a.name == row.archive))
                snapshot.files[f"/archive/{row.archive}/{when}/{row.path}"] = locked.blob(row.sha256)
        (wheel,) = lock.installed_wheels()
        index.files[f"/files/{wheel.filename}"] = locked.blob(wheel.sha256)
        page = tmp_path / "page.html"
        page.write_text(f'<a data-yanked="gone" href="/files/{wheel.filename}#sha256={wheel.sha256}">x</a>')
        index.files["/simple/idna/"] = page
        config = tmp_path / "config.toml"
        config.write_text(
            f'[apt]\nsnapshot-hosts = ["{dead_url()}", "{snapshot.url}"]\n'
            f'[apt.mirrors]\ndebian = ["{mirror.url}/debian"]\n'
            f'debian-security = ["{dead_url()}/debian-security", "{mirror.url}/debian-security"]\n'
            f'[pip]\nindex-url = "{index.url}/simple"\n'
        )
        # Whatever is not on loopback has to pass a proxy that is not there.
        nowhere = dead_url()
        elsewhere.env = {
            "SANDBOXFILE_CONFIG": str(config),
            **{f"{scheme}_proxy": nowhere for scheme in ("http", "https", "all")},
            "no_proxy": "127.0.0.1",
            "NO_PROXY": "127.0.0.1",
        }
        ran = elsewhere("build", "--locked", "--progress=json")
    finally:
        for server in (mirror, snapshot, index):
            server.close()
    assert ran.last == locked.slug
    fallbacks = [event for event in ran.events() if event["event"] == "fallback"]
    past = [event for event in fallbacks if event["taken_from"] == snapshot.url.removeprefix("http://")]
    assert {str(event["file"]).partition("_")[0] for event in past} == dropped & {row.name for row, _ in rows}
    assert {event["reason"] for event in past} == {"answered 404 Not Found"}
    assert [str(e["file"]) for e in fallbacks if e["taken_from"] == index.url[7:]] == [wheel.filename]
    assert elsewhere("cache", "check", "--full").code == 0


@pytest.mark.root
def test_a_build_on_a_machine_without_network_uses_what_is_vendored_beside_the_lock(
    locked: Locked, elsewhere: Program
) -> None:
    place = elsewhere.directory / "sandboxfile.vendor"
    assert locked.program("vendor", str(place)).last == str(place)
    (elsewhere.directory / "sandboxfile.lock").unlink()
    elsewhere.prefix = NO_NETWORK
    ran = elsewhere("build", "--progress=json")
    assert ran.last == locked.slug
    assert [event for event in ran.events() if event["event"] == "fallback"] == []
    assert (elsewhere.directory / "sandboxfile.lock").read_text() == locked.text


def test_vendoring_again_changes_nothing_and_vendors_are_the_same_bytes_everywhere(
    locked: Locked, elsewhere: Program
) -> None:
    place = elsewhere.directory / "sandboxfile.vendor"
    locked.program("vendor", str(place))
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    again = elsewhere("vendor", "--offline")
    assert "holds what the lock names" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before
    assert locked.program("vendor", "--check", str(place)).stdout == ""
    one, two = elsewhere.directory / "one.tar", elsewhere.directory / "two.tar"
    locked.program("vendor", str(one))
    # The second comes from another store, which has its files from the directory alone.
    elsewhere("vendor", "--offline", str(two))
    digests = {hashlib.sha256(tar.read_bytes()).hexdigest() for tar in (one, two)}
    assert len(digests) == 1
    inode = one.stat().st_ino
    locked.program("vendor", str(one))
    assert one.stat().st_ino == inode


def test_a_check_names_what_is_missing_damaged_or_not_wanted(locked: Locked, elsewhere: Program) -> None:
    place = elsewhere.directory / "sandboxfile.vendor"
    locked.program("vendor", str(place))
    jq = next(place.glob("apt/*/pool/main/j/jq/jq_*.deb"))
    jq.write_bytes(b"x" * jq.stat().st_size)
    wheel = next(place.glob("pip/*.whl"))
    wheel.unlink()
    sums = place / "SHA256SUMS"
    (place / "pip/old.whl").write_bytes(b"old")
    sums.write_text(sums.read_text() + f"{hashlib.sha256(b'old').hexdigest()}  pip/old.whl\n")
    ran = elsewhere("vendor", "--check", code=1)
    assert ran.stdout.splitlines() == [
        f"missing     {wheel.relative_to(place)}",
        f"damaged     {jq.relative_to(place)}",
        "not wanted  pip/old.whl",
    ]
    mended = locked.program("vendor", str(place))
    assert "1 added, 1 replaced, 1 removed" in mended.stderr
    assert not (place / "pip/old.whl").exists()
    assert locked.program("vendor", "--check", str(place)).code == 0


def test_a_directory_of_something_else_is_not_touched(locked: Locked, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("kept")
    ran = locked.program("vendor", str(tmp_path / "mine"), code=2)
    assert "holds something else" in ran.stderr
    assert os.listdir(tmp_path / "mine") == ["file"]
